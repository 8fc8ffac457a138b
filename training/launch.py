"""Start a trainer in a process of its own, or let it continue."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import options
from .errors import UserError
from .run import read_record

ROOT = Path(__file__).resolve().parents[1]
# Options that change nothing in what a run comes to.
SHOWN = {"output_dir", "save_init", "resume", "print_every", "tensorboard"}
# Options in which two runs of the same experiment may differ: where the data lie, who drew the weights.
PLACES = {*SHOWN, "data_dir", "init_from"}


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
    if check(framework, arguments, folder, own={"init_from"} if "--init-from" in start else set()):
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


def check(framework: str, arguments: list[str], folder: Path, own: set[str] = frozenset()) -> bool:
    """Whether `folder` holds a run, complete or not, of these arguments, but for the options `own`, which the
    caller sets. Raises UserError as `train`."""
    wanted = options.plain(options.parse(framework, arguments))
    if not (folder / "args.json").is_file():
        return False
    record = read_record(folder)
    one, other = (_results(found, own) for found in (record["options"], wanted))
    if record.get("framework") != framework or one != other:
        raise UserError(f"{folder} was made with other options: choose another --output-dir")
    return True


def _results(found: dict, own: set[str]) -> dict:
    """The options that decide what a run comes to, with places from the root."""
    rest = {name: value for name, value in found.items() if name not in SHOWN | own}
    places = {name: os.path.abspath(rest[name]) for name in ("data_dir", "init_from")
              if isinstance(rest.get(name), str)}
    return {**rest, **places}
