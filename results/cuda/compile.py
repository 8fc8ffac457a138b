"""Does every kernel that training needs compile for CUDA? On a machine without a GPU; nothing is computed.

    python results/cuda/compile.py [NET ...] [--cache DIR]    rewrites these rows of results/cuda/compile.json

It needs nvcc 12 or 13 and the nvidia wheels of PyTorch. A copy of the overlay (jt_models/cuda) gets stand-ins
for the libraries of CUDA, with which Jittor imports, takes two training steps and evaluates. Exit code 1 if a
net does not, 2 if something for the overlay is missing.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training.files import atomic_folder, write_json  # noqa: E402
from training.run import environment  # noqa: E402
from zoo.catalog import NETS  # noqa: E402

HERE = Path(__file__).parent
FILE = HERE / "compile.json"
LIBRARIES = {"cudart": "libcudart.so.*", "cudnn": "libcudnn.so.*", "cublas": "libcublas.so.*",
             "curand": "libcurand.so.*", "cufft": "libcufft.so.*", "cusparse": "libcusparse.so.*"}
# SGD with all options (other optimizers' kernels would say nothing more); its second step adds momentum to the first.
STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import train_jittor
import jt_models
import jittor as jt
from training import datasets, loop, options
from training.data import BatchPlan
assert jt.has_cuda, "Jittor was compiled without CUDA"
assert "fast_math" not in jt.flags.nvcc_flags, jt.flags.nvcc_flags
args = options.parse("jittor", ["--net", sys.argv[2], "--dataset", "digits", "-b", "2", "--device", "cuda",
                                "--nesterov", "--clip-norm", "1", "--ema", "0.9", "--label-smoothing", "0.1",
                                "--dropout", "0.1", "--limit-batches", "2"])
data = datasets.load("digits", "data", 0.1, 0)
engine = train_jittor.Engine(args, data)
plan, schedule = loop.plan_and_schedule(args, data)
for batch in plan.epoch(0):
    engine.fetch(engine.step(batch, 0.1))
with engine.averaged():
    loop.evaluate(engine, data, "val", args)
engine.arrays()
jt.sync_all(True)
"""


def stand_ins(overlay: Path) -> None:
    """Replace CUDA's libraries in a copy of an overlay by ones that do nothing."""
    for name, pattern in LIBRARIES.items():
        place = min((overlay / "lib64").glob(pattern), key=lambda path: len(path.name))
        shown = subprocess.run(["nm", "-D", "--defined-only", place], check=True, capture_output=True,
                               text=True)
        symbols = {line.split()[2] for line in shown.stdout.splitlines() if line.split()[1] in "TWi"}
        versions = {symbol.rpartition("@")[2] for symbol in symbols if "@lib" in symbol}
        prefix = ("cuda", "__cuda") if name == "cudart" else name
        calls = {symbol.partition("@")[0] for symbol in symbols if symbol.startswith(prefix)}
        text = (HERE / "noop.cc").read_text()
        written = {call.replace("##PASS##", way) for call in re.findall(r"([\w#]+)\(", text)
                   for way in ("Forward", "BackwardData", "BackwardFilter")}
        source = overlay / f"noop-{name}.cc"
        source.write_text(text + "".join(f"CALL int {call}() {{ return 0; }}\n"
                                         for call in sorted(calls - written)))
        options = []
        if versions:
            script = overlay / f"noop-{name}.map"
            script.write_text(f"{min(versions)} {{ global: *; }};\n")
            options = [f"-Wl,--version-script={script}"]
        soname = place.name
        place.unlink()  # a link: the library itself stays
        subprocess.run(["g++", "-w", "-O1", "-shared", "-fPIC", f"-DNOOP_{name}",
                        f"-I{overlay}/include/toolkit", str(source), "-o", str(place),
                        f"-Wl,-soname,{soname}", *options], check=True)


def compiled(net: str, where: dict[str, str], cache: Path) -> dict:
    """A row: whether the net trains and evaluates with the stand-ins, its seconds, and how many kernels were
    compiled for it that no net before it had."""
    before = kernels(cache)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STEP, str(ROOT), net], env=where, cwd=ROOT,
                          capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if re.search(r"error|Error|abort", line)]
    return {"net": net, "passed": done.returncode == 0, "seconds": round(time.monotonic() - start, 1),
            "kernels": kernels(cache) - before,
            "text": "" if done.returncode == 0 else (lines or done.stderr.splitlines() or [""])[-1][:500]}


def kernels(cache: Path) -> int:
    return sum(1 for _ in cache.rglob("jit/*.so"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", metavar="NET", nargs="*", help="default: all")
    parser.add_argument("--cache", type=Path,
                        help="keep what is compiled here (default: a folder that is removed)")
    parser.add_argument("--json", type=Path, default=FILE, help="the table (default: %(default)s)")
    args = parser.parse_args()
    unknown = [name for name in args.nets if name not in NETS]
    if unknown:
        parser.error(f"unknown net {unknown[0]!r}; there are: {', '.join(NETS)}")
    old = json.loads(args.json.read_text())["rows"] if args.json.is_file() else []
    rows = {row["net"]: row for row in old}
    with tempfile.TemporaryDirectory() as folder:
        cache = (args.cache or Path(folder)).resolve()
        where = prepare(cache)
        for name in args.nets or NETS:
            rows[name] = compiled(name, where, cache)
            print(rows[name], flush=True)
            made = " ".join(n for n in NETS if n in rows)
            write_json(args.json, {"command": f"python results/cuda/compile.py {made}",
                                   **environment(("jittor", "torch", "numpy")),
                                   "rows": [rows[n] for n in NETS if n in rows]})
    return int(not all(rows[name]["passed"] for name in args.nets or NETS))


def prepare(cache: Path) -> dict[str, str]:
    """The environment in which Jittor compiles for CUDA into `cache`."""
    from jt_models import runtime
    from jt_models.cuda import overlay
    nvcc = runtime.cuda_toolkit() or "nvcc"
    try:
        overlay.needed(nvcc)
        whole = overlay.build(cache / "overlay", nvcc)
    except overlay.Unsuitable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    copy = cache / "stand_ins" / whole.name
    if not copy.is_dir():
        with atomic_folder(copy) as staging:
            shutil.copytree(whole, staging, symlinks=True, dirs_exist_ok=True)
            stand_ins(staging)
    return {**os.environ, **overlay.variables(copy), "HOME": str(cache), "JITTOR_HOME": str(cache),
            "cuda_archs": "90", "use_mpi": "0"}


if __name__ == "__main__":
    sys.exit(main())
