"""The full matrix: every net of ours, every level, both verdicts.

    python results/matrix.py [NET ...]      rewrites the rows of results/matrix.json

Exit code 1 if a net fails.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judged  # noqa: E402
from zoo.catalog import NETS  # noqa: E402


def main(names: list[str]) -> int:
    return min(1, judged.fill(judged.ROOT / "results" / "matrix.json", names or list(NETS), list(NETS),
                              lambda name: ["--net", name, "--level", "all"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
