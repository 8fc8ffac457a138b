"""The run folder: what was run, one row per epoch, checkpoints, the result.

    args.json         command, options, versions, hardware, precision, data
    log.csv           one row per epoch
    steps.csv         learning rate and loss of every training step
    last.safetensors  weights after the last complete epoch (with --ema their average)
    best.safetensors  the same of the best epoch on the validation images
    state.safetensors what --resume continues from (see training.checkpoint)
    curves.png        loss and accuracy
    confusion.csv     test images of the last epoch by class and by the class that the net says
    tensorboard/      both logs once more, with --tensorboard
    result.json       test loss, accuracy, top-5 and accuracy of each class, of the last epoch

Every file is complete or absent; the two logs grow by whole lines. A run that is resumed drops the
lines of the epoch in which it was stopped.
"""
from __future__ import annotations

import datetime
import errno
import fcntl
import os
import platform
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from . import processor
from .errors import UserError
from .files import existing_parent, read_json, write_json, write_text
from .logs import LOG, STEPS, read_log

# Run folders that this process keeps to itself. A compiler that Jittor has forked must not keep them: it may
# live longer than a run that was killed.
_locked: set[int] = set()


def _give_up_locks() -> None:
    while _locked:
        os.close(_locked.pop())


os.register_at_fork(after_in_child=_give_up_locks)


def default_folder(name: str) -> Path:
    """runs/NAME-TIME, which is new at each call."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return Path("runs") / f"{name}-{stamp}"


def environment(packages: tuple[str, ...]) -> dict:
    """Versions and hardware, for the record of a measurement."""
    return {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
            "cpu": processor.name(), "cores": len(os.sched_getaffinity(0)),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "versions": {name: version(name) for name in packages}}


def read_record(folder: Path) -> dict:
    """The args.json of a run. Raises UserError if `folder` holds no run."""
    path = Path(folder) / "args.json"
    try:
        record = read_json(path)
        for name, kind in (("command", str), ("options", dict)):
            if not isinstance(record[name], kind):
                raise ValueError(f"its {name} is {record[name]!r}")
        shlex.split(record["command"])
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: there is no args.json in it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the record of a run ({type(error).__name__}: {error})") from error
    return record


class Run:
    """An open run folder, in which no other process may train before `close` or the end of the block.

    Raises:
        UserError: the folder cannot be written, has no space, or another process trains in it; without
            `resume`, it holds a run already.
    """

    def __init__(self, folder: Path, record: dict, space_needed: int, resume: bool = False,
                 tensorboard: bool = False):
        """`record` goes to args.json, unless the run is resumed; `space_needed` is in bytes."""
        self.folder = Path(folder)
        self.tensorboard, self.events = tensorboard, None
        self.command = record["command"]
        self._place: int | None = None
        try:
            self._open(record, space_needed, resume)
        except OSError as error:
            self.close()
            raise UserError(f"cannot write to --output-dir {self.folder}: {error.strerror}") from error
        except UserError:
            self.close()
            raise

    def _open(self, record: dict, space_needed: int, resume: bool) -> None:
        free = shutil.disk_usage(existing_parent(self.folder)).free
        if free < space_needed:
            raise UserError(f"{self.folder}: {space_needed / 1e6:.0f} MB are needed for "
                            f"checkpoints and logs, {free / 1e6:.0f} MB are free")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        if not resume and any(self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty: choose another --output-dir")
        for partial in self.folder.glob(".*.tmp"):  # of a process that was killed
            partial.unlink()
        if not resume:
            self.write_json("args.json", record)
            self.keep_epochs(0, 1)

    def _lock(self) -> None:
        self._place = os.open(self.folder, os.O_RDONLY)
        _locked.add(self._place)
        try:
            fcntl.flock(self._place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {self.folder}: choose another --output-dir"
                            ) from None
        except OSError:
            pass  # a file system without locks

    def close(self) -> None:
        """Let others train in this folder."""
        if self._place in _locked:
            _locked.remove(self._place)
            os.close(self._place)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def keep_epochs(self, last: int, steps: int) -> None:
        """Drop the rows of later epochs from both logs, and begin TensorBoard's anew.

        Args:
            last: the epoch of the checkpoint; a log may be one further.
            steps: of an epoch.

        Raises:
            UserError: a log lacks a row of these epochs, is damaged or is further; none is changed.
        """
        kept = {}
        for name, columns, each, start in (
                ("log.csv", LOG, 1, lambda n: f"{n},"),
                ("steps.csv", STEPS, steps, lambda n: f"{(n - 1) // steps + 1},{n},")):
            lines, numbers = read_log(self.path(name), columns, start, last * each)
            if len(lines) > (last + 1) * each:
                raise UserError(f"{self.path(name)} is further than the checkpoint, which has "
                                f"{last or 'no'} complete epoch{'s' * (last != 1)}: it is not of this log")
            kept[name] = columns, lines[:last * each], numbers
        for name, (columns, lines, _) in kept.items():
            self.write_text(name, "".join(f"{line}\n" for line in (",".join(columns), *lines)))
        if self.tensorboard:
            from tensorboard.summary import Writer
            shutil.rmtree(self.path("tensorboard"), ignore_errors=True)
            self.events = Writer(str(self.path("tensorboard")))
            for row in kept["log.csv"][2]:
                self._show_epoch(dict(zip(LOG, row)))
            self._show_steps(kept["steps.csv"][2])

    def path(self, name: str) -> Path:
        return self.folder / name

    def write_json(self, name: str, content: dict) -> None:
        write_json(self.path(name), content)

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path(name), text)

    def _append(self, name: str, text: str) -> None:
        # One write of whole lines: neither a killed process nor a full disk leaves half a row.
        rows, written = text.encode(), 0
        with open(self.path(name), "ab", buffering=0) as file:
            size = file.tell()
            try:
                written = file.write(rows)
            finally:
                if written < len(rows):
                    file.truncate(size)
        if written < len(rows):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path(name)))

    def log_epoch(self, row: dict) -> None:
        """Append a row of LOG's columns; None becomes an empty field."""
        fields = (row[name] for name in LOG)
        self._append("log.csv", ",".join("" if v is None else f"{v:.7g}" for v in fields) + "\n")
        self._show_epoch(row)

    def log_steps(self, rows: list[tuple]) -> None:
        """Append rows of STEPS's columns, as precise as float32."""
        self._append("steps.csv", "".join(f"{e},{s},{lr:.9g},{loss:.9g}\n" for e, s, lr, loss in rows))
        self._show_steps(rows)

    def _show_epoch(self, row: dict) -> None:
        self._show((f"epoch/{name}", row[name], row["epoch"]) for name in LOG[1:] if row[name] is not None)

    def _show_steps(self, rows: list[tuple]) -> None:
        self._show((f"step/{name}", value, step) for _, step, *values in rows
                   for name, value in zip(STEPS[2:], values))

    def _show(self, scalars) -> None:
        if self.events:
            for name, value, step in scalars:
                self.events.add_scalar(name, value, int(step))
            self.events.flush()


def command(script: str | None = None, argv: list[str] | None = None) -> str:
    """The command line, to be repeated by hand, without the place where its files lie.

    Args:
        script: None: what this process runs, which may be a package (`python -m`).
        argv: its arguments; None: this process's.
    """
    if script is None:
        running = Path(sys.argv[0])
        package = running.name == "__main__.py"
        start = ["-m", running.parent.name] if package else [running.name]
    else:
        start = [script]
    shown = shlex.join(["python", *start, *(sys.argv[1:] if argv is None else argv)])
    return shown.encode("utf-8", "backslashreplace").decode()
