"""Start a trainer in a process of its own, or let it continue."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from . import options
from .errors import UserError
from .run import read_record

ROOT = Path(__file__).resolve().parents[1]
# Options in which two runs of the same experiment may differ: where things lie, who drew the weights, what
# is shown.
PLACES = {"output_dir", "init_from", "save_init", "data_dir", "resume", "print_every", "tensorboard"}


def kept(options_: dict) -> dict:
    """The options of a run's record without PLACES."""
    return {name: value for name, value in options_.items() if name not in PLACES}


def train(framework: str, arguments: list[str], folder: Path, *start: str) -> int:
    """Train into `folder`; an interrupted run is continued, a complete one left as it is.

    Args:
        arguments: for the trainer, without --output-dir.
        start: further arguments for a new run only.

    Returns:
        The trainer's exit code; 0 for a complete run.

    Raises:
        UserError: bad arguments, `folder` holds a run with other options, or the trainer was killed.
    """
    if check(framework, arguments, folder):
        if (folder / "result.json").is_file():
            return 0
        arguments = ["--resume", str(folder)]
    else:
        arguments = [*arguments, *start, "--output-dir", str(folder)]
    process = subprocess.Popen([sys.executable, str(ROOT / f"train_{framework}.py"), *arguments])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()  # it may have heard Ctrl-C itself; it says what it kept
        process.wait()
        raise
    if code < 0:
        raise UserError(f"the training in {folder} was killed by signal {-code}")
    return code


def check(framework: str, arguments: list[str], folder: Path) -> bool:
    """Whether `folder` holds a run, complete or not, of these arguments. Raises UserError as `train`."""
    wanted = json.loads(json.dumps(vars(options.parse(framework, arguments)), default=str))
    if not (folder / "args.json").is_file():
        return False
    record = read_record(folder)
    if record.get("framework") != framework or kept(record.get("options", {})) != kept(wanted):
        raise UserError(f"{folder} was made with other options: choose another --output-dir")
    return True
