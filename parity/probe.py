"""Accuracy of Jittor's own operators, so that a port is not blamed for what Jittor does.

Each operator reduces `size` elements to one, of inputs whose mean is `ratio` times their deviation. Jittor
and PyTorch compute it in float32 on the same bits, and both are compared with float64.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import jt_models  # noqa: F401  (prepares Jittor's start)
import jittor as jt
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jt_models import layers
from training.errors import UserError, did_you_mean

from .report import finite
from .truth import U, budget, error

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
RATIOS = (0, 10, 100, 1_000)


@dataclass(frozen=True)
class Row:
    """One operator, of one implementation, on one input.

    Attributes:
        op: name in OPS.
        implementation: "jittor", or "jt_models" for what this project computes instead.
        size: number of elements that each result is reduced from.
        ratio: mean of the input over its standard deviation.
        e2, einf: error in u = 2^-24, as parity.truth.error: infinite if NaNs or shapes differ.
        torch_e2, torch_einf: that of PyTorch's float32.
    """
    op: str
    implementation: str
    size: int
    ratio: float
    e2: float
    einf: float
    torch_e2: float
    torch_einf: float

    @property
    def error(self) -> float:
        return max(self.e2, self.einf)

    @property
    def torch_error(self) -> float:
        return max(self.torch_e2, self.torch_einf)

    @property
    def budget(self) -> float:
        """Largest error, in u, that a port is allowed where PyTorch has this one."""
        return budget(self.torch_error)

    @property
    def at_fault(self) -> bool:
        """Whether the operator alone leaves the budget, so that a right port would fail."""
        return not self.error <= self.budget

    @property
    def verdict(self) -> str:
        if not self.at_fault:
            return "within the budget"
        return f"{self.implementation} is at fault, not the port: {self.error:.3g} u of {self.budget:.3g} u"

    def to_json(self) -> dict:
        """Plain data, with budget, at_fault and verdict; infinite numbers are null."""
        data = {**asdict(self), "budget": self.budget, "at_fault": self.at_fault, "verdict": self.verdict}
        return finite(data)


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes:
        inputs: generator, size -> float32 arrays, standard normal. The ratio is added to the first.
        torch: function of tensors, in their dtype.
        jittor: implementation -> function of Vars.
    """
    inputs: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]]
    torch: Callable
    jittor: dict[str, Callable]


def _normal(rng, *shape) -> np.ndarray:
    return rng.standard_normal(shape, "float32")


def _planes(rng, size):
    """[2, 4, H, W] with H * W = size, H and W as near to each other as may be."""
    height = next(h for h in range(math.isqrt(size), 0, -1) if size % h == 0)
    return (_normal(rng, 2, 4, height, size // height),)


def _image(rng, size):
    """[1, 4, H, W], so that a channel has `size` values."""
    return (_planes(rng, size)[0][:1],)


def _logits(rng, size):
    return (_normal(rng, 4, size),)


def _convolution(rng, size):
    """An image of 2 x 2 positions, and a kernel of `size` weights for each of 4 channels."""
    kernel = next(k for k in (5, 3, 1) if size % (k * k) == 0)
    channels = size // (kernel * kernel)
    return _normal(rng, 2, channels, kernel + 1, kernel + 1), _normal(rng, 4, channels, kernel, kernel)


OPS = {
    "mean": Op(_planes, lambda x: x.mean((2, 3)),
               {"jittor": lambda x: x.mean([2, 3]),
                "jt_models": lambda x: layers.adaptive_avg_pool2d(x, 1).reshape(x.shape[:2])}),
    "sum": Op(_planes, lambda x: x.sum((2, 3)), {"jittor": lambda x: x.sum([2, 3])}),
    "batch_norm": Op(_image, lambda x: torch.nn.functional.batch_norm(x, None, None, training=True),
                     {"jittor": lambda x: jt.nn.BatchNorm2d(x.shape[1])(x),
                      "jt_models": lambda x: layers.BatchNorm2d(x.shape[1])(x)}),
    "softmax": Op(_logits, lambda x: x.softmax(1), {"jittor": lambda x: jt.nn.softmax(x, 1)}),
    # jt_models.layers.Conv2d is Jittor's.
    "conv2d": Op(_convolution, torch.nn.functional.conv2d, {"jittor": lambda x, w: jt.nn.conv2d(x, w)}),
}


def probe(ops: Iterable[str] | None = None, sizes: Iterable[int] = SIZES,
          ratios: Iterable[float] = RATIOS, seed: int = 0) -> list[Row]:
    """Measure operators.

    Args:
        ops: names in OPS; None: all.
        sizes: numbers of elements to reduce, at least 2.
        ratios: means of the input, in standard deviations.
        seed: of the inputs.

    Returns:
        One row for each operator, implementation, size and ratio, in this order.

    Raises:
        UserError: an unknown operator, or a size below 2.
    """
    ops, sizes, ratios = list(OPS if ops is None else ops), list(sizes), list(ratios)
    for name in ops:
        if name not in OPS:
            raise UserError(f"unknown operator {name!r}: use {', '.join(OPS)}{did_you_mean(name, OPS)}")
    if sizes and min(sizes) < 2:
        raise UserError(f"a size must be at least 2, not {min(sizes)}")
    rows = [row for name in ops for size in sizes for row in _measure(name, size, ratios, seed)]
    place = {(name, of): (ops.index(name), i) for name in ops for i, of in enumerate(OPS[name].jittor)}
    return sorted(rows, key=lambda row: place[row.op, row.implementation])


def _measure(name: str, size: int, ratios: list[float], seed: int) -> Iterable[Row]:
    op = OPS[name]
    x, *constants = op.inputs(np.random.default_rng(seed), size)
    for ratio in ratios:
        arrays = [x + np.float32(ratio), *constants]
        tensors = [torch.from_numpy(a) for a in arrays]
        truth = op.torch(*(t.double() for t in tensors)).numpy()
        theirs = error(op.torch(*tensors).numpy(), truth)
        for implementation, function in op.jittor.items():
            ours = error(np.array(function(*map(jt.array, arrays)).numpy()), truth)
            yield Row(name, implementation, size, ratio, ours.e2 / U, ours.einf / U,
                      theirs.e2 / U, theirs.einf / U)


def render(rows: list[Row]) -> Table:
    """A table for rich: a column for each ratio, in each cell the error of Jittor and, in brackets, of
    PyTorch; an exclamation mark where Jittor is at fault."""
    ratios = list(dict.fromkeys(row.ratio for row in rows))
    # No padding: it fits a terminal of 80 columns.
    table = Table("operator", "of", box=SIMPLE_HEAD, padding=0, pad_edge=False,
                  title="Error in u = 2^-24 of Jittor (of PyTorch), by number of reduced elements and "
                        "mean / deviation; ! where Jittor is at fault and not the port")
    table.add_column("n", justify="right")
    for ratio in ratios:
        table.add_column(_short(ratio), justify="right")
    lines: dict[tuple, dict[float, Row]] = {}
    for row in rows:
        lines.setdefault((row.op, row.implementation, row.size), {})[row.ratio] = row
    for (op, implementation, size), cells in lines.items():
        table.add_row(op, implementation, _short(size),
                      *(_cell(cells[ratio]) if ratio in cells else "" for ratio in ratios))
    return table


def _cell(row: Row) -> Text:
    text = f"{_short(row.error)} ({_short(row.torch_error)})"
    return Text(f"!{text}", "bold red") if row.at_fault else Text(text)


def _short(number: float) -> str:
    """Two significant digits, or all before the point: 0.75, 7.5, 740, 1e4, 5.8e9."""
    if 10 <= number < 1e4:
        return f"{number:.0f}"
    return f"{number:.2g}".replace("e+0", "e").replace("e+", "e")
