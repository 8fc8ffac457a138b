"""One `python -m parity check` in a process of its own, as a row of a committed table."""
from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from parity import report as reports  # noqa: E402
from training.files import write_json  # noqa: E402


def row(name: str, arguments: list[str], threads: int | None = None) -> dict:
    """Check with these arguments, on this many threads (None: as many as usual): per verdict and level
    the check that used the most of its budget, what failed, what was not judged, seconds and peak memory
    (MB) of the whole process."""
    where = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "report.json", Path(folder) / "log"
        command = [sys.executable, "-m", "parity", "check", *arguments]
        start = time.monotonic()
        with open(log, "wb") as output:
            process = subprocess.Popen([*command, "--json", str(path)], cwd=ROOT, env=where,
                                       stdout=subprocess.DEVNULL, stderr=output)
            _, _, usage = os.wait4(process.pid, 0)
        found = {"net": name, "seconds": round(time.monotonic() - start, 1),
                 "peak_memory_mb": usage.ru_maxrss // 1024,
                 "command": shlex.join(["python", *command[1:]])}
        if not path.is_file():
            lines = log.read_text(errors="replace").splitlines()
            error = [line for line in lines if line.startswith("error: ")] or ["no report"]
            return {**found, "passed": False, "levels": {}, "text": error[-1], "environment": {}}
        report = reports.load(path)
    levels = {f"{verdict} {level}": {
        "passed": worst.passed, "tensor": worst.tensor, "note": worst.note, **reports.finite(
            {"error_u": worst.error, "torch_u": worst.floor, "budget_u": worst.budget})}
        for (verdict, level), worst in report.worst().items()}
    where = {key: value for key, value in report.environment.items() if key != "command"}
    return {**found, "passed": report.passed, "levels": levels, "skipped": report.skipped,
            "text": str(report), "environment": where}


def fill(path: Path, names: list[str], order: list[str], arguments, jobs: int = 1) -> int:
    """Make the rows of `names` anew in the table at `path`, each saved as it is done.

    Args:
        order: of the rows in the file.
        arguments: function of a name that gives what `parity check` is called with.
        jobs: how many are made at a time, which share the cores.

    Returns:
        How many rows of `names` did not pass.
    """
    rows = {row["net"]: row for row in json.loads(path.read_text())} if path.is_file() else {}
    # Threads of two processes on one core wait for each other: twice the time.
    threads = None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        for made in as_completed(pool.submit(row, name, arguments(name), threads) for name in names):
            found = made.result()
            rows[found["net"]] = found
            write_json(path, [rows[n] for n in order if n in rows])
            print(f"{found['net']}, {found['seconds']} s, {found['peak_memory_mb']} MB: "
                  f"{'passed' if found['passed'] else found['text']}", flush=True)
    return sum(not rows[name]["passed"] for name in names)
