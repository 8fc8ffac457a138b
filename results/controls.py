"""What shortcuts change in a training, and squeeze-and-excitation: nets with and without them.

    python results/controls.py CIFAR_DIR

CIFAR_DIR holds images as train/<class>/* and test/<class>/*. One `compare.py` of nets of 20 and 56 layers with and
without shortcuts, small enough for a CPU; then those without once more, each framework from weights one ulp away, which
shows how far rounding alone lets two trainings part; then one `compare.py` of 20 layers with and without
squeeze-and-excitation, from three seeds. What was interrupted goes on with the same command. Records and logs are kept in
results/controls/, those of the last in results/controls/gates/, with the curves of Jittor's runs.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lab import keep  # noqa: E402
from parity import weights  # noqa: E402
from parity.truth import all_one_ulp  # noqa: E402
from training import launch  # noqa: E402
from training.plots import compare_curves  # noqa: E402

OUT = ROOT / "results" / "controls"
WORK = ROOT / "runs" / "controls"
RUNS = WORK / "runs"
OPTIONS = "--dataset folder --image-size 16 --epochs 4 --limit-batches 176"
GATED = ("resnet20_cifar", "se_resnet20_cifar")
SEEDS = (0, 1, 2)
NETS = ("plain20_cifar", "resnet20_cifar", "plain56_cifar", "resnet56_cifar")
# (net, seed of the ulps, framework)
MOVED = (("plain20_cifar", 1, "torch"), ("plain20_cifar", 2, "torch"), ("plain20_cifar", 1, "jittor"),
         ("plain20_cifar", 2, "jittor"), ("plain56_cifar", 1, "torch"))


def train_moved(net: str, seed: int, framework: str, data_dir: str) -> int:
    """Train `net` from weights one ulp away; returns the trainer's exit code."""
    start = WORK / f"{net}-ulp{seed}.safetensors"
    weights.save(start, all_one_ulp(np.random.default_rng(seed), weights.read(RUNS / f"{net}-0-init.safetensors")), {})
    return launch.train(framework, [*OPTIONS.split(), "--data-dir", data_dir, "--net", net],
                        RUNS / f"{net}-ulp{seed}-{framework}", "--init-from", str(start.relative_to(ROOT)))


def compare(nets: tuple[str, ...], folder: Path, data_dir: str, *options: str) -> int:
    """Both frameworks' trainings of `nets`, in `folder`; returns the exit code."""
    return subprocess.run([sys.executable, "compare.py", "--nets", *nets, *options, "--output-dir",
                           str(folder.relative_to(ROOT)), "--", *OPTIONS.split(), "--data-dir", data_dir]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", metavar="CIFAR_DIR", help="the images of CIFAR-10")
    data_dir = os.path.relpath(parser.parse_args().cifar, ROOT)
    os.chdir(ROOT)  # records name places from there
    code = compare(NETS, WORK, data_dir)
    for run in MOVED:
        code = code or train_moved(*run, data_dir)
    gates = WORK / "gates"
    code = code or compare(GATED, gates, data_dir, "--seeds", *map(str, SEEDS))
    if code == 0:
        keep(RUNS, OUT)
        keep(gates / "runs", OUT / "gates")
        compare_curves({net: OUT / f"{net}-0-jittor" / "log.csv" for net in NETS}, OUT / "controls.png",
                       "CIFAR-10 (JPEG copy, 16x16 pixels), Jittor")
        compare_curves({net: OUT / "gates" / f"{net}-0-jittor" / "log.csv" for net in GATED}, OUT / "gates.png",
                       "CIFAR-10 (JPEG copy, 16x16 pixels), Jittor, seed 0")
    return code


if __name__ == "__main__":
    sys.exit(main())
