"""The full matrix: every net of ours, every level, both verdicts.

    python results/matrix.py [NET ...] [--jobs N]      rewrites the rows of results/matrix.json

Exit code 1 if a net fails.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judged  # noqa: E402
from zoo.catalog import NETS  # noqa: E402


def check(name: str, threads: int | None) -> dict:
    return judged.row(name, ["--net", name, "--level", "all"], threads)


if __name__ == "__main__":
    sys.exit(judged.main(__doc__, "matrix.json", list(NETS), check))
