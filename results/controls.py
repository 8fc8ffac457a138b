"""What shortcuts change in a training: nets of 20 and 56 layers with and without them.

    python results/controls.py CIFAR_DIR

CIFAR_DIR holds images as train/<class>/* and test/<class>/*. One `compare.py` of all nets, small enough for a CPU;
what was interrupted goes on with the same command. Records and logs are kept in results/controls/, with the curves of
Jittor's runs.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lab import keep  # noqa: E402
from training.plots import compare_curves  # noqa: E402

OUT = ROOT / "results" / "controls"
WORK = ROOT / "runs" / "controls"
OPTIONS = "--dataset folder --image-size 16 --epochs 4 --limit-batches 176"
NETS = ("plain20_cifar", "resnet20_cifar", "plain56_cifar", "resnet56_cifar")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", metavar="CIFAR_DIR", help="the images of CIFAR-10")
    data_dir = os.path.relpath(parser.parse_args().cifar, ROOT)
    code = subprocess.run([sys.executable, "compare.py", "--nets", *NETS, "--output-dir", str(WORK.relative_to(ROOT)),
                           "--", *OPTIONS.split(), "--data-dir", data_dir], cwd=ROOT).returncode
    if code == 0:
        keep(WORK / "runs", OUT)
        compare_curves({net: OUT / f"{net}-0-jittor" / "log.csv" for net in NETS}, OUT / "controls.png",
                       "CIFAR-10 (JPEG copy, 16x16 pixels), Jittor")
    return code


if __name__ == "__main__":
    sys.exit(main())
