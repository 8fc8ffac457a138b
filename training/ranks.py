"""The processes of one training: `torchrun train_torch.py ...` or `mpirun python train_jittor.py ...`.

Every rank holds all images and makes the same batch plan, of which it executes its part, so that the ranks
together see exactly the batches that one process would.
"""
from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

import numpy as np

from .data import Batch
from .errors import UserError

# Variables of the launcher that tell rank and size, and of the rank on its own machine.
_LAUNCHERS = {"torch": ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
              "jittor": ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                         "OMPI_COMM_WORLD_LOCAL_RANK")}


@dataclass(frozen=True)
class Ranks:
    """This process among those of its training.

    Attributes:
        rank: from 0, which alone writes.
        size: how many there are.
        local: rank among those on this machine, which is the number of its GPU.
    """
    rank: int = 0
    size: int = 1
    local: int = 0

    def check(self, images: int) -> None:
        """UserError if a batch of so many images has fewer pairs (see `part`) than there are ranks."""
        if self.size > 1 and (images + 1) // 2 < self.size:
            raise UserError(f"a batch of {images} images is too small for {self.size} ranks: at least "
                            f"{2 * self.size - 1}")

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """(this rank's images of a batch, scale): the mean over the ranks of scale times the mean loss of a
        part is the mean loss of the batch, also where parts differ in size.

        An image and the one at the same place from the end, with which mixup mixes it, stay together and
        in places that mirror each other.

        Raises:
            UserError: as `check`.
        """
        if self.size == 1:
            return batch, 1.0
        n = len(batch.indices)
        self.check(n)
        first = np.arange(self.rank, (n + 1) // 2, self.size)
        own = np.concatenate([first, [n - 1 - i for i in first[::-1] if n - 1 - i != i]]).astype(int)
        cut = batch.cut and tuple(lines[own] for lines in batch.cut)
        return replace(batch, indices=batch.indices[own], rows=batch.rows[own], columns=batch.columns[own],
                       cut=cut), len(own) * self.size / n


def find(framework: str) -> Ranks:
    """What the launcher says.

    Raises:
        UserError: its variables are incomplete or no such numbers, or it is the other framework's launcher,
            whose processes would train each by itself.
    """
    launcher, *names = _LAUNCHERS[framework]
    other = "jittor" if framework == "torch" else "torch"
    given = [name for name in names if name in os.environ]
    missing = [name for name in names if name not in os.environ]
    if given and missing:
        raise UserError(f"{given[0]} is set but {missing[0]} is not: {launcher} sets both, and a training of "
                        "one process needs neither")
    rank, size, local = (_number(name, default) for name, default in zip(names, "010"))
    if rank >= size:
        raise UserError(f"{names[0]} is {rank}, but must be below {names[1]}, which is {size}")
    if size == 1 and _number(_LAUNCHERS[other][2], "1") > 1:
        raise UserError(f"train_{framework}.py trains on several devices with {launcher}, not with "
                        f"{_LAUNCHERS[other][0]}")
    return Ranks(rank, size, local)


def _number(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UserError(f"{name} is {text!r}, but must be a whole number, at least 0")
    return int(text)
