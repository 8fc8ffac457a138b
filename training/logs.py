"""The two logs of a run, log.csv and steps.csv: their columns, and what a log is that nobody has touched."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Callable

from .errors import UserError

LOG = ("epoch", "lr", "train_loss", "train_acc", "val_loss", "val_acc", "seconds",
       "images_per_second", "peak_memory_mb", "energy_j")
STEPS = ("epoch", "step", "lr", "loss")


def read_log(path: Path, columns: tuple[str, ...], start: Callable[[int], str], needed: int | None = None
             ) -> tuple[list[str], list[list[float | None]]]:
    """The rows of a log, as text and as numbers, None for an empty cell. A last line that has no end is left
    out: the process was killed as it wrote.

    Args:
        start: number of a row, from 1 -> what it begins with, so that none is missing, doubled or elsewhere.
        needed: how many of the rows there must be and are read as numbers; those that follow need only begin
            as they should. None: all, and at least one.

    Raises:
        UserError: the log is missing, though a row is needed, or damaged.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no regular file")
    text = path.read_bytes().decode("ascii", "replace") if path.is_file() else ""
    header, *lines = text.split("\n")[:-1] or [",".join(columns)]
    if header == ",".join(LOG[:-1]):  # of the time before energy was logged
        header, lines = ",".join(LOG), [f"{line}," for line in lines]
    needed = max(1, len(lines)) if needed is None else needed
    numbers = []
    if header != ",".join(columns):
        raise UserError(f"{path}, line 1, is not {','.join(columns)}")
    if len(lines) < needed:
        raise UserError(f"{path} has {len(lines)} rows, but {needed} were complete")
    for number, line in enumerate(lines, 1):
        try:
            if not line.startswith(start(number)):
                raise ValueError
            if number <= needed:
                numbers.append(_numbers(line, len(columns)))
        except ValueError:
            raise UserError(f"{path}, line {number + 1}, is damaged: {line[:80]!r}") from None
    return lines, numbers


def _numbers(line: str, columns: int) -> list[float | None]:
    found = [float(field) if field else None for field in line.split(",")]
    if len(found) != columns or not all(value is None or math.isfinite(value) for value in found):
        raise ValueError
    return found
