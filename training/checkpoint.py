"""What an interrupted run continues from: weights, optimizer and average, in one file, complete or absent.

Batches, learning rates and random numbers are functions of (seed, epoch, step), so nothing else has to
be kept for a continued run to equal an uninterrupted one bit for bit.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

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


def load(path: Path, engine) -> Progress:
    """Put a state into the engine.

    Raises:
        UserError: the file is damaged, or of another net or optimizer.
    """
    parts: dict[str, dict] = {part: {} for part in _PARTS}
    for key, array in weights.read(path).items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = array
    note = weights.metadata(path)
    try:
        progress = Progress(int(note["epoch"]), float(note["best"]), float(note["seconds"]))
        for key, array in {**parts["average"], **parts["optimizer"]}.items():
            # "momentum_buffer.conv1.weight", say; a count of steps has no shape.
            name = key if key in parts["average"] else key.partition(".")[2]
            if name and array.ndim and array.shape != parts["weights"][name].shape:
                raise ValueError(f"{key} has shape {array.shape}")
        weights.load(engine.net, parts["weights"])
        engine.load_optimizer(parts["optimizer"])
        engine.load_average(parts["average"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not the state of this run: {error}") from error
    return progress
