"""What a net's outputs are worth: loss, accuracy, top-5, confusion. NumPy in float64, for both trainers."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

import numpy as np

from .files import csv_text

TOP = 5


@dataclass(frozen=True)
class Scores:
    """Of a set of images.

    Attributes:
        loss: mean cross-entropy.
        accuracy, top5: parts of the images whose class has the largest output, one of the five largest.
        confusion: int [C, C], images by class (row) and by the class that the net takes them for (column).
    """
    loss: float
    accuracy: float
    top5: float
    confusion: np.ndarray

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    def by_class(self, classes: tuple[str, ...]) -> dict[str, float | None]:
        """Accuracy of each class; None for one without images."""
        return {name: float(row[i] / row.sum()) if row.any() else None
                for i, (name, row) in enumerate(zip(classes, self.confusion))}

    def table(self, classes: tuple[str, ...]) -> str:
        """The confusion as a table: a row per class, a column per class that the net says."""
        return csv_text([["class", *classes],
                         *([name, *row.tolist()] for name, row in zip(classes, self.confusion))])


def score(outputs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int,
          total: Callable[[np.ndarray], np.ndarray] = lambda sums: sums) -> Scores:
    """The scores of batches of (logits [B, C], labels int [B]).

    Args:
        total: sums an array over all ranks, each of which has some of the batches.
    """
    confusion = np.zeros((classes, classes))
    loss, top = 0.0, 0
    for logits, labels in outputs:
        logits = np.asarray(logits, "float64")
        own = logits[np.arange(len(labels)), labels]
        largest = logits.max(1)
        with np.errstate(invalid="ignore"):  # the loss tells
            loss += float((np.log(np.exp(logits - largest[:, None]).sum(1)) + largest - own).sum())
        np.add.at(confusion, (labels, logits.argmax(1)), 1)
        # As in argmax, of equal outputs the first counts as larger.
        before = (logits == own[:, None]) & (np.arange(classes) < labels[:, None])
        rank = ((logits > own[:, None]) | before).sum(1)
        top += int((rank < TOP).sum())
    sums = total(np.append(confusion, [loss, top]))
    confusion, (loss, top) = sums[:-2].astype(np.int64).reshape(classes, classes), sums[-2:]
    images = int(confusion.sum())
    return Scores(float(loss / images), float(np.trace(confusion) / images), float(top / images), confusion)
