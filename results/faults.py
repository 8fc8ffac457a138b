"""What breaks, where, and what became of it: the tests' own account of their faults, as one table.

    python results/faults.py            rewrites results/faults.json; two hours on two cores

Exit code 1 if a test failed.
"""
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.files import write_json  # noqa: E402
from training.run import command, environment  # noqa: E402

TESTS = ("tests/test_damaged.py", "tests/trainers/test_faults.py", "tests/trainers/test_resume.py",
         "tests/trainers/test_ranks.py", "tests/trainers/test_memory.py")


def rows(junit: Path) -> list[dict]:
    """Per fault and component how many tests noted it (fixture `noted`), and what they say became of it."""
    found: dict[tuple[str, str], dict] = {}
    for case in xml.etree.ElementTree.parse(junit).iter("testcase"):
        noted = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "fault" in noted:
            row = found.setdefault((noted["fault"], noted["component"]), {
                "fault": noted["fault"], "component": noted["component"], "times": 0, "outcomes": {}})
            row["times"] += 1
            row["outcomes"][noted["outcome"]] = row["outcomes"].get(noted["outcome"], 0) + 1
    return sorted(found.values(), key=lambda row: (row["fault"], row["component"]))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        code = pytest.main(["-m", "", f"--rootdir={ROOT}", f"--junitxml={junit}",
                            *(str(ROOT / name) for name in TESTS)])
        tests = next(xml.etree.ElementTree.parse(junit).iter("testsuite")).attrib
        write_json(ROOT / "results" / "faults.json", {
            "command": command(), **environment(("jittor", "torch", "numpy", "hypothesis")),
            **{name: int(tests[name]) for name in ("tests", "failures", "errors", "skipped")},
            "rows": rows(junit)})
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
