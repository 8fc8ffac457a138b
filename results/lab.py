"""The results of lab reports 000 and 004, on real images, in both frameworks.

    python results/lab.py CIFAR_DIR MNIST_DIR [NET ...] [--jobs N]

CIFAR_DIR holds images as train/<class>/* and test/<class>/*, MNIST_DIR MNIST as torchvision stores it. Each
net is a `compare.py` of its own, on the GPU if there is one; what was interrupted goes on with the same command.
Records, logs and results are kept in results/lab/.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from judged import workers  # noqa: E402
from training.files import write_json  # noqa: E402
from training.plots import compare_curves  # noqa: E402

OUT = ROOT / "results" / "lab"
KEPT = ("args.json", "log.csv", "result.json")


@dataclass(frozen=True)
class Experiment:
    """What a report says of a net, and how it is repeated here.

    Attributes:
        accuracy: on the test images, as reported.
        options: of the trainers.
        seeds: one pair of runs for each.
    """
    report: str
    accuracy: float
    options: str
    seeds: tuple[int, ...] = (0,)


_CIFAR = "--dataset folder --epochs 10"
_MNIST = "--dataset mnist --epochs 10"
EXPERIMENTS = {
    "cnn_1x1": Experiment("000", 0.60, "--dataset folder --epochs 20 --lr 0.02"),
    "resnet18_lab": Experiment("000", 0.72, _CIFAR),
    "densenet_fc128": Experiment("000", 0.71, _CIFAR),
    "se_resnet18_preact": Experiment("000", 0.82, _CIFAR),
    "lenet_bn": Experiment("004", 0.987, "--dataset mnist --epochs 20 --optimizer adam --lr 0.004",
                           (0, 1, 2)),
    "alexnet_mnist": Experiment("004", 0.981, _MNIST),
    "resnet18_mnist": Experiment("004", 0.988, _MNIST),
    "mobilenet_mnist": Experiment("004", 0.992, _MNIST),
    "densenet121_mnist": Experiment("004", 0.989, _MNIST),
    "vgg_mnist": Experiment("004", 0.984, _MNIST),
}


def run(net: str, data_dir: str, jobs: int) -> int:
    """Train `net` in both frameworks and keep what was measured, also that `jobs` nets shared the machine (if
    more than one, times tell little); returns the exit code of compare.py."""
    one = EXPERIMENTS[net]
    work = ROOT / "runs" / "lab" / net
    code = subprocess.run([sys.executable, "compare.py", "--nets", net, "--seeds", *map(str, one.seeds),
                           "--output-dir", str(work.relative_to(ROOT)), "--", *one.options.split(),
                           "--data-dir", data_dir], cwd=ROOT).returncode
    if code == 0:
        for kept in keep(work / "runs", OUT):
            write_json(kept / "lab.json", {"jobs": jobs})
        shutil.copy(work / f"{net}.png", OUT / f"{net}.png")
    return code


def keep(runs: Path, out: Path) -> list[Path]:
    """Copy what tells of each complete run in `runs` to a folder of its own in `out`; returns these folders."""
    folders = []
    for made in sorted(runs.glob("*/result.json")):
        folders.append(out / made.parent.name)
        folders[-1].mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(made.parent / name, folders[-1] / name)
    return folders


def draw() -> None:
    """Overlay the curves of report 000's nets that were trained alike, those of Jittor and seed 0."""
    logs = {net: OUT / f"{net}-0-jittor" / "log.csv" for net, one in EXPERIMENTS.items() if one.options == _CIFAR}
    logs = {net: log for net, log in logs.items() if log.is_file()}
    if logs:
        compare_curves(logs, OUT / "blocks.png", "CIFAR-10 (JPEG copy), Jittor")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", metavar="CIFAR_DIR", help="the images of CIFAR-10")
    parser.add_argument("mnist", metavar="MNIST_DIR", help="MNIST")
    parser.add_argument("nets", metavar="NET", nargs="*", default=list(EXPERIMENTS),
                        help="of " + ", ".join(f"{name} (reported: {one.accuracy})" for name, one
                                               in EXPERIMENTS.items()) + " (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="how many nets at a time, which share the machine (default: %(default)s)")
    args = parser.parse_args()
    for net in args.nets:
        if net not in EXPERIMENTS:
            parser.error(f"no experiment with {net!r}; there are: {', '.join(EXPERIMENTS)}")
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {args.jobs}")
    codes: list[int] = []

    def make(net: str) -> None:
        if not any(codes):  # after a failure nothing is begun
            data_dir = args.mnist if EXPERIMENTS[net].report == "004" else args.cifar
            codes.append(run(net, os.path.relpath(data_dir, ROOT), args.jobs))

    with workers(args.jobs) as pool:
        list(pool.map(make, args.nets))
    draw()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
