"""The tables of the README and of docs/ are those of the built nets and the committed measurements."""
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_tables_are_fresh():
    done = subprocess.run([sys.executable, "results/readme.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run: python results/readme.py"


def test_a_stale_table_is_noticed(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    copy = tmp_path / "README.md"
    reached = json.loads((ROOT / "results" / "densenet_cifar10" / "torch" / "result.json").read_text())["test_acc"]
    copy.write_text(text.replace(f"{reached:.2%}", "12.34%"))
    monkeypatch.syspath_prepend(ROOT / "results")
    import readme
    tables = readme.TABLES[ROOT / "README.md"]
    monkeypatch.delitem(tables, "zoo")  # building all nets takes half a minute
    monkeypatch.setattr(readme, "TABLES", {copy: tables})
    monkeypatch.setattr(sys, "argv", ["readme.py", "--check"])
    assert readme.main() == 1
    monkeypatch.setattr(sys, "argv", ["readme.py"])
    assert readme.main() == 0
    assert copy.read_text() == text
