"""The judge judged: every kind of port bug in a net of every family, and right pairs with twenty seeds.

    python results/injection.py [NET ...] [--jobs N]   rewrites the rows of results/injection.json

Exit code 1 if a bug is missed or a right pair accused.
"""
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judged  # noqa: E402
from parity.inject import FAMILIES  # noqa: E402

SEEDS = 20
ELSEWHERE = {"mobilenet": "relu6_without_upper_bound"}  # a bug that has no place in the nets of FAMILIES


def inject(name: str, threads: int | None) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        only = ELSEWHERE.get(name)
        which = ["--fault", only, "--seeds", "1"] if only else ["--seeds", str(SEEDS)]
        found, error = judged.run(name, ["inject", "--net", name, *which, "--json", str(path)], threads)
        made = {"rows": [], "right_pairs": [], "environment": {}} if error else json.loads(path.read_text())
    wrong = [row["fault"] for row in made["rows"] if not row["levels"]]
    wrong += [f"seed {pair['seed']}" for pair in made["right_pairs"] if pair["failure"]]
    return {**found, **made, "passed": not (error or wrong), "text": error or ", ".join(wrong)}


if __name__ == "__main__":
    sys.exit(judged.main(__doc__, "injection.json", [*FAMILIES, *ELSEWHERE], inject))
