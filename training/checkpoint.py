"""What an interrupted run continues from: weights, optimizer and average, in one file, complete or absent.

Batches, learning rates and random numbers are functions of (seed, epoch, step), so nothing else has to
be kept for a continued run to equal an uninterrupted one bit for bit.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity import weights

from .errors import UserError

FILE = "state.safetensors"
_PARTS = ("weights", "optimizer", "average")


@dataclass
class Progress:
    """What a run has behind it.

    Attributes:
        epoch: the last complete one, from 1.
        best: validation accuracy of the best epoch.
        seconds: of all of the run's processes.
    """
    epoch: int = 0
    best: float = -math.inf
    seconds: float = 0.0


def save(path: Path, engine, progress: Progress, note: dict[str, str]) -> None:
    """Write the state of a run after an epoch."""
    parts = zip(_PARTS, (engine.arrays(), engine.optimizer_arrays(), engine.average_arrays()))
    weights.save(path, {f"{part}.{name}": a for part, arrays in parts for name, a in arrays.items()},
                 {**note, "best": repr(progress.best), "seconds": repr(progress.seconds)})


def load(path: Path, engine, net: str, command: str) -> Progress:
    """Put a state into the engine.

    Args:
        net, command: of the run, which the state must be of.

    Raises:
        UserError: the file is damaged, or of another run, net or optimizer.
    """
    parts: dict[str, dict] = {part: {} for part in _PARTS}
    for key, array in weights.read(path).items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = array
    note = weights.metadata(path)
    try:
        for name, wanted in (("net", net), ("command", command)):
            if note[name] != wanted:
                raise ValueError(f"its {name} is {note[name]}, the run's is {wanted}")
        progress = Progress(int(note["epoch"]), float(note["best"]), float(note["seconds"]))
        if progress.epoch < 1 or not 0 <= progress.seconds < math.inf or not progress.best <= 1:
            raise ValueError(f"it notes {progress}")
        for part, shapes in engine.state_shapes().items():
            _check(part, parts[part], shapes)
        weights.load(engine.net, parts["weights"])
        engine.load_optimizer(parts["optimizer"])
        engine.load_average(parts["average"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not the state of this run: {error}") from error
    return progress


def _check(part: str, arrays: dict, shapes: dict) -> None:
    """ValueError if they are not arrays of these shapes, of finite numbers."""
    if odd := sorted(set(arrays) ^ set(shapes)):
        raise ValueError(f"{part} {'has' if odd[0] in arrays else 'lacks'} {odd[0]}")
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{part} {name} has shape {array.shape}, not {shapes[name]}")
        if not np.isfinite(array).all():
            raise ValueError(f"{part} {name} is not finite")
