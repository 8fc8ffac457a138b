"""Where a training step of Jittor spends its time on a CPU: 32 images, as bench.py's.

    python results/profiles.py NET ...     rewrites rows of results/profiles.json

`step_ms` is the least of five, without a profiler; the parts are those of Jittor's profiler, milliseconds a step, with
how often each is called.
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rows import renew  # noqa: E402
from training.bench_worker import Work, image_size  # noqa: E402
from training.run import environment  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
STEPS, BATCH_SIZE = 3, 32
# Part of a step -> what the name of an operation of its holds, which is the source of a compiled one; the first that
# fits.
PARTS = {"SGD": ("struct Options",), "3x3 convolution": ("namespace winograd",), "products": ("dnnl_sgemm",),
         "others by oneDNN": ("mkl_conv",), "depthwise": ("pitch",), "linear": ("mkl_matmul",),
         "BatchNorm": ("variance", "slope"), "pools": ("wide",), "gradient of ReLU": ("const in0_type y = in0_p[i]",),
         "concatenation": ("memcpy",), "other": ("",)}


def part_of(name: str, parts: dict[str, tuple[str, ...]]) -> str:
    """The first of `parts` of whose words one is in `name`."""
    return next(part for part, words in parts.items() if any(word in name for word in words))


def row(net: str) -> dict:
    """A row of the table."""
    work = Work("jittor", net, image_size(net), BATCH_SIZE)
    import jittor as jt
    work.train(2)
    step = min(work.train(1) for _ in range(5))
    with jt.profile_scope() as report:
        work.train(STEPS)
    parts = {part: {"ms": 0.0, "calls": 0.0} for part in PARTS}
    for name, _, calls, ns, *_ in report[1:]:
        found = parts[part_of(name, PARTS)]
        found["ms"] += float(ns) / 1e6 / STEPS
        found["calls"] += float(calls) / STEPS
    return {"net": net, "image_size": image_size(net), "batch_size": BATCH_SIZE, "step_ms": 1e3 * step, "parts": parts,
            "environment": environment(("jittor", "numpy"))}


if __name__ == "__main__":
    renew(FILE, sys.argv[1:], row, lambda made: f"{made['step_ms']:.0f} ms a step")
