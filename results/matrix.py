"""The full matrix: every net of ours, every level, both verdicts.

    python results/matrix.py [NET ...] [--jobs N]      rewrites the rows of results/matrix.json

Exit code 1 if a net fails.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judged  # noqa: E402
from zoo.catalog import NETS  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", metavar="NET", nargs="*", default=list(NETS), help="default: every net")
    parser.add_argument("--jobs", type=int, default=1, help="nets checked at a time (default %(default)s), which "
                        "share the cores")
    args = parser.parse_args()
    return min(1, judged.fill(judged.ROOT / "results" / "matrix.json", args.nets, list(NETS),
                              lambda name: ["--net", name, "--level", "all"], args.jobs))


if __name__ == "__main__":
    sys.exit(main())
