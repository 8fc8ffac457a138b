"""What breaks, where, and what became of it: the tests' own account of their faults, as one table.

    python results/faults.py [-k EXPRESSION]    rewrites results/faults.json; all takes an hour on two cores

Exit code 1 if a test failed.
"""
import argparse
import json
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.files import write_json  # noqa: E402
from training.run import environment  # noqa: E402

FILE = ROOT / "results" / "faults.json"
TESTS = ("tests/test_damaged.py", "tests/trainers/test_faults.py", "tests/trainers/test_resume.py",
         "tests/trainers/test_ranks.py")


def read(junit: Path) -> tuple[list[dict], dict[str, str]]:
    """Per fault and component how many tests noted it (fixture `noted`) and what they say became of it; and
    "passed", "failed" or "skipped" of every test by name."""
    found: dict[tuple[str, str], dict] = {}
    tests = {}
    for case in xml.etree.ElementTree.parse(junit).iter("testcase"):
        ends = {child.tag for child in case}
        tests[f"{case.get('classname')}::{case.get('name')}"] = (
            "failed" if ends & {"failure", "error"} else "skipped" if "skipped" in ends else "passed")
        noted = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "fault" in noted:
            row = found.setdefault((noted["fault"], noted["component"]), {
                "fault": noted["fault"], "component": noted["component"], "times": 0, "outcomes": {}})
            row["times"] += 1
            row["outcomes"][noted["outcome"]] = row["outcomes"].get(noted["outcome"], 0) + 1
    return list(found.values()), tests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="pytest's: which tests (default: all)")
    chosen = parser.parse_args().k
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        code = pytest.main(["-m", "", "-k", chosen, f"--rootdir={ROOT}", f"--junitxml={junit}",
                            *(str(ROOT / name) for name in TESTS)])
        rows, tests = read(junit)
    old = json.loads(FILE.read_text()) if chosen and FILE.is_file() else {"rows": [], "tests": {}}
    made = {(row["fault"], row["component"]): row for row in [*old["rows"], *rows]}
    write_json(FILE, {**environment(("jittor", "torch", "numpy", "hypothesis")),
                      "tests": {**old["tests"], **tests}, "rows": [made[key] for key in sorted(made)]})
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
