"""What Jittor compiles for a net, and how long that takes.

    python results/compile_times.py NET ...     rewrites rows of results/compile_times.json

Each way has a cache of its own without kernels, and then the same again with them. The time is that of two training steps
and an evaluation, as in `python -m jt_models.warm`, after the import of Jittor.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rows import renew  # noqa: E402
from training.run import environment  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
WAYS = {"own": ("jittor", True), "own, headers as text": ("jittor", False), "stock": ("jittor-stock", False)}


def measured(net: str, column: str, precompiled: bool, cold: bool) -> dict:
    """Kernels that were compiled, seconds, and where they lie; `cold`: what an interrupted run left there goes first."""
    from jt_models import compiling  # before Jittor
    from jt_models.warm import BATCH_SIZE, compiled
    import jittor as jt
    if not precompiled:
        jt.flags.cc_flags = re.sub('-include ".*?"', "", jt.flags.cc_flags)
    if cold:
        shutil.rmtree(Path(jt.flags.cache_path).with_name("compile-times"), ignore_errors=True)
    compiling.use_folder("compile-times")
    compiling.leave_loops = lambda: compiling.take_over(threads=False)  # in this folder
    kernels, seconds = compiled(net, column)
    return {"kernels": kernels, "seconds": seconds, "folder": jt.flags.cache_path, "batch_size": BATCH_SIZE}


def row(net: str) -> dict:
    """A row of the table."""
    made = {"net": net, "environment": environment(("jittor", "numpy"))}
    for way, (column, precompiled) in WAYS.items():
        runs = []
        for cold in (True, False):
            command = [sys.executable, __file__, "--measure", net, column, str(int(precompiled)), str(int(cold))]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(runs[0]["folder"])
        made["batch_size"] = runs[0]["batch_size"]
        made[way] = {"kernels": runs[0]["kernels"], "cold": runs[0]["seconds"], "warm": runs[1]["seconds"]}
    return made


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        net, column, *switches = sys.argv[2:]
        print(json.dumps(measured(net, column, *(bool(int(switch)) for switch in switches))))
    else:
        renew(FILE, sys.argv[1:], row, lambda made: f"{made['own']['kernels']} kernels, {made['own']['cold']:.0f} s")
