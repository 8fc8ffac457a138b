"""`python -m parity` in processes of its own, each a row of a committed table."""
from __future__ import annotations

import argparse
import contextlib
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


def run(name: str, arguments: list[str], threads: int | None = None) -> tuple[dict, str]:
    """`python -m parity` with these arguments, which end with the file for its JSON.

    Returns:
        Name, seconds, peak memory (MB) of the whole process, command; what went wrong if there is no JSON.
    """
    where = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "parity", *arguments]
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env=where, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    found = {"net": name, "seconds": round(time.monotonic() - start, 1),
             "peak_memory_mb": usage.ru_maxrss // 1024,
             "command": shlex.join(["python", *command[1:-2]])}
    code = os.waitstatus_to_exitcode(status)
    if code in (0, 1) and Path(arguments[-1]).is_file():
        return found, ""
    return found, next((line for line in lines[::-1] if line.startswith("error: ")), f"exit code {code}")


def row(name: str, arguments: list[str], threads: int | None = None) -> dict:
    """Check with these arguments, on this many threads (None: as many as usual): per verdict and level
    the check that used the most of its budget, what failed, what was not judged, seconds and peak memory
    (MB) of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        found, error = run(name, ["check", *arguments, "--json", str(path)], threads)
        if error:
            return {**found, "passed": False, "levels": {}, "text": error, "environment": {}}
        report = reports.load(path)
    levels = {f"{verdict} {level}": {
        "passed": worst.passed, "tensor": worst.tensor, "note": worst.note, **reports.finite(
            {"error_u": worst.error, "torch_u": worst.floor, "budget_u": worst.budget})}
        for (verdict, level), worst in report.worst().items()}
    where = {key: value for key, value in report.environment.items() if key != "command"}
    return {**found, "passed": report.passed, "levels": levels, "skipped": report.skipped,
            "text": str(report), "environment": where}


@contextlib.contextmanager
def workers(jobs: int):
    """A pool of threads; what has not begun when the block is left, by an error or Ctrl-C too, never begins."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def fill(path: Path, names: list[str], order: list[str], make, jobs: int = 1) -> int:
    """Make the rows of `names` anew in the table at `path`, each saved as it is done.

    Args:
        order: of the rows in the file.
        make: function of a name and a number of threads (None: as many as usual) that gives a row, with
            "net", "seconds", "peak_memory_mb", "passed" and, where that is false, a "text".
        jobs: how many are made at a time, which share the cores.

    Returns:
        How many rows of `names` did not pass. Each row also tells its run (when that began, UTC, and its
        jobs) and after how many seconds of the run it was done.
    """
    run, start = {"began": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), "jobs": jobs}, time.monotonic()
    rows = {row["net"]: row for row in json.loads(path.read_text())} if path.is_file() else {}
    # Threads of two processes on one core wait for each other: twice the time.
    threads = None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
    with workers(jobs) as pool:
        for made in as_completed(pool.submit(make, name, threads) for name in names):
            found = {**made.result(), "run": run, "done_after": round(time.monotonic() - start, 1)}
            rows[found["net"]] = found
            write_json(path, [rows[n] for n in order if n in rows])
            print(f"{found['net']}, {found['seconds']} s, {found['peak_memory_mb']} MB: "
                  f"{'passed' if found['passed'] else found['text']}", flush=True)
    return sum(not rows[name]["passed"] for name in names)


def main(description: str, file: str, order: list[str], make) -> int:
    """The command line of a table: which rows to make anew. Arguments as `fill`."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="rows to make (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, which share the cores "
                        "(default: %(default)s)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in order]
    if unknown or args.jobs < 1:
        parser.error(f"unknown name {unknown[0]!r}; there are: {', '.join(order)}" if unknown else
                     f"--jobs must be at least 1, not {args.jobs}")
    return min(1, fill(ROOT / "results" / file, args.names or order, order, make, args.jobs))
