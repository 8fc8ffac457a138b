"""A reproduction of a divergence: a folder with a script and the arrays that it needs."""
from __future__ import annotations

import json
from pathlib import Path

from training.files import atomic_write

from . import weights
from .layers import Divergence, local
from .models import Source
from .pair import Pair
from .task import Task
from .truth import BUDGETS, U

SCRIPT = '''"""{heading}

Feeds the module in Jittor and in PyTorch what the reference feeds it, prints the errors against float64
in u = 2^-24 and exits with 1 if one is over its budget. Run it: python {name}
"""
import sys
from pathlib import Path

from parity.models import Source
from parity.reproduce import judge

source = Source({jittor!r}, {torch!r}, {arguments!r})
found = judge(Path(__file__).parent, source, module={module!r}, dtype={dtype!r}, level={level!r})
wrong = False
for tensor, (error, floor, budget) in found.items():
    wrong |= error > budget
    print(f"{{tensor}}: Jittor {{error:.3g}} u, torch {{floor:.3g}} u, budget {{budget:.3g}} u")
sys.exit(wrong)
'''


def write(folder: Path, pair: Pair, divergence: Divergence, dtype: str, level: str, source: Source,
          title: str) -> None:
    """Write `reproduce.py` and `arrays.safetensors` (weights, inputs, key map) into `folder`."""
    call, source = divergence.call, source.resolved()
    arrays = {f"weights.{name}": a for name, a in pair.start.arrays.items()}
    arrays.update((f"input.{i}", a) for i, a in enumerate(call.inputs))
    weights.save(folder / "arrays.safetensors", arrays,
                 {"names": json.dumps(pair.names), "seed": str(pair.task.seed), "device": pair.device})
    heading = f"{title}: {call.name} differs ({level}, {dtype})."
    heading = heading.encode("unicode_escape").decode().replace('"', r'\"')  # it must not end the docstring
    script = SCRIPT.format(heading=heading, level=level, dtype=dtype, module=call.path,
                           jittor=source.jittor, torch=source.torch, arguments=source.arguments,
                           name="reproduce.py")
    with atomic_write(folder / "reproduce.py") as file:
        file.write(script.encode())


def judge(folder: Path, source: Source, module: str, dtype: str,
          level: str) -> dict[str, tuple[float, float, float]]:
    """What `write` wrote, judged again: both models are built anew and get the stored weights.

    Returns:
        Tensor -> error, PyTorch's own error and budget, in u.

    Raises:
        UserError: a model cannot be built or no longer fits the weights.
    """
    arrays = weights.read(folder / "arrays.safetensors")
    notes = weights.metadata(folder / "arrays.safetensors")
    jittor_model, torch_model = source.build()
    weights.load(torch_model, {name[len("weights."):]: a for name, a in arrays.items()
                               if name.startswith("weights.")})
    inputs = tuple(arrays[f"input.{i}"] for i in range(sum(n.startswith("input.") for n in arrays)))
    pair = Pair(jittor_model, torch_model, Task(inputs, seed=int(notes["seed"])),
                json.loads(notes["names"]), device=notes["device"])
    errors, floors = local(pair.part(module, inputs), dtype, level)
    return {name: (e.worst / U, floors.get(name, 0.0), BUDGETS[dtype](floors.get(name, 0.0)))
            for name, e in errors.items()}
