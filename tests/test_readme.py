"""The README's tables are those of the built nets and the committed measurements."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_tables_are_fresh():
    done = subprocess.run([sys.executable, "results/readme.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run: python results/readme.py"


def test_a_stale_table_is_noticed(tmp_path):
    text = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("1,753,546", "1,753,547"))
    code = ("import sys, pathlib; sys.argv.append('--check'); sys.path.insert(0, 'results')\n"
            f"import readme; readme.README = pathlib.Path({str(tmp_path / 'README.md')!r})\n"
            "sys.exit(readme.main())")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 1
