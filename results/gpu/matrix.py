"""Parity on a GPU: both frameworks in float32 there, judged against the truth on the CPU.

    python results/gpu/matrix.py [NET ...] [--jobs N]      rewrites the rows of results/gpu/matrix.json

TF32 is off. Exit code 1 if a net fails.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import judged  # noqa: E402
from zoo.catalog import NETS  # noqa: E402


def check(name: str, threads: int | None) -> dict:
    return judged.row(name, ["--net", name, "--device", "cuda", "--verdict", "numerics"], threads)


if __name__ == "__main__":
    sys.exit(judged.main(__doc__, "gpu/matrix.json", list(NETS), check))
