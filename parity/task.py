"""What both models are run on: the inputs, and a loss that is the same in both frameworks."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

import numpy as np

from .truth import one_ulp


def leaves(output) -> dict:
    """Tensors of a model's output by name: "output" for a tensor; in a tuple or list the others are
    "auxiliary output 1" and so on; what is nested deeper, or in a dict, has its path appended. None
    counts as no output.

    Raises:
        TypeError: something that is neither a tensor nor a container of tensors.
    """
    if isinstance(output, (tuple, list)) and output and not isinstance(output[0], (tuple, list, dict)):
        names = ["output", *(f"auxiliary output {i}" for i in range(1, len(output)))]
        parts = list(zip(names, output))
    elif isinstance(output, dict):
        # Two ports may fill a dict in another order.
        parts = [(f"output.{key}", value) for key, value in sorted(output.items(), key=str)]
    elif isinstance(output, (tuple, list)):
        parts = [(f"output.{i}", value) for i, value in enumerate(output)]
    else:
        parts = [("output", output)]
    found = {}
    for name, value in parts:
        if isinstance(value, (tuple, list, dict)):
            found.update((name + inner[len("output"):] if inner.startswith("output") else
                          f"{name}, {inner}", leaf) for inner, leaf in leaves(value).items())
        elif hasattr(value, "numpy") and hasattr(value, "shape"):
            found[name] = value
        elif value is not None:
            raise TypeError(f"a model must return tensors, in tuples, lists or dicts, not a "
                            f"{type(value).__name__}")
    return found


def cast(inputs: tuple[np.ndarray, ...], dtype: str) -> tuple[np.ndarray, ...]:
    """The float ones in another dtype."""
    return tuple(a.astype(dtype) if a.dtype.kind == "f" else a for a in inputs)


def moved(inputs: tuple[np.ndarray, ...], seed: int = 0) -> tuple[np.ndarray, ...]:
    """The float ones moved by at most one unit in the last place."""
    rng = np.random.default_rng(seed)
    return tuple(one_ulp(rng, a) if a.dtype.kind == "f" else a for a in inputs)


@dataclass
class Task:
    """Inputs and loss.

    Attributes:
        inputs: arrays in the order of the model's arguments; float32 ones are cast to the dtype of
            the verdict, whole numbers are passed as they are.
        labels: int64 [N], classes for the cross-entropy; random ones are drawn if they are missing.
        loss: (jittor_loss, torch_loss), each of (output, labels), giving a scalar; None: the
            cross-entropy where every output is [N, C] with C > 1, else a fixed random projection,
            sum(output * r) / size.
        seed: of drawn labels and projections.
    """
    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None
    loss: tuple[Callable, Callable] | None = None
    seed: int = 0
    _projections: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.inputs = tuple(np.asarray(a) for a in self.inputs)
        for array in self.inputs:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError("an input holds values that are not finite")

    def cast(self, dtype: str) -> tuple[np.ndarray, ...]:
        return cast(self.inputs, dtype)

    def input_names(self) -> list[str]:
        if len(self.inputs) == 1:
            return ["input"]
        return [f"input {i}" for i in range(len(self.inputs))]

    @property
    def batch(self) -> int:
        return len(self.inputs[0])

    def classifies(self, shapes: list[tuple[int, ...]]) -> bool:
        """Whether outputs of these shapes are all logits [N, C], C > 1."""
        return all(len(s) == 2 and s[0] == self.batch and s[1] > 1 for s in shapes)

    def total(self, output, cross_entropy, constant, aux_weight: float):
        """The loss of one framework's `output`.

        Args:
            cross_entropy: (logits, labels as an array) -> scalar.
            constant: (array, like) -> tensor of the dtype of `like`.
            aux_weight: factor of the loss of each auxiliary output.
        """
        found = leaves(output)
        shapes = [tuple(t.shape) for t in found.values()]
        total = None
        for index, (tensor, shape) in enumerate(zip(found.values(), shapes)):
            if self.classifies(shapes):
                if self.labels is None:
                    classes = min(width for _, width in shapes)
                    self.labels = np.random.default_rng(self.seed).integers(0, classes, self.batch)
                part = cross_entropy(tensor, self.labels)
            else:
                key = index, shape
                if key not in self._projections:
                    rng = np.random.default_rng((self.seed, index))
                    self._projections[key] = rng.standard_normal(shape).astype("float32")
                part = (tensor * constant(self._projections[key], tensor)).sum() / int(np.prod(shape))
            if index:
                part = part * aux_weight
            total = part if total is None else total + part
        return total
