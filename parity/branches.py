"""Branches: which piece of a ReLU (or ReLU6) each unit took, and which element each max-pool chose.

A gradient is discontinuous where a branch changes: one unit that rounding pushed to the other side
of a kink moves it by up to a few percent, for PyTorch against its own float64 as well. So the float64
truth of a gradient replays the branches of the run under test, and each branch that it would not
have taken itself must be legitimate: the unit lies within the error budget of the switching point.
"""
from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .truth import U

RELU = {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
HARDTANH = {F.hardtanh, F.hardtanh_}  # nn.ReLU6 calls it


@dataclass
class Branches:
    """Branch points in order of execution.

    Attributes:
        taken: per ReLU an int8 array (0: clipped from below, 1: passed, 2: clipped from above), per
            max-pool an int64 array of flat indices into the H x W plane of its input.
        flips: number of units where the truth would have branched otherwise (filled by a replay).
        margin: the largest distance of such a unit from its switching point, in u of the largest
            value of its tensor.
    """
    taken: list[np.ndarray] = field(default_factory=list)
    flips: int = 0
    margin: float = 0.0


def _bounds(func, args: tuple, kwargs: dict) -> tuple[float, float] | None:
    """Lower and upper bound of a ReLU or ReLU6; None for any other function."""
    if func in RELU:
        return 0.0, float("inf")
    if func is F.relu6:
        return 0.0, 6.0
    if func in HARDTANH:
        given = {**dict(zip(("min_val", "max_val"), args[1:])), **kwargs}
        bounds = given.get("min_val", -1.0), given.get("max_val", 1.0)
        return bounds if bounds == (0, 6) else None
    return None


def pieces(out: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which piece of min(max(x, low), high) each unit of its output took (see `Branches.taken`)."""
    return (out > low).astype("int8") + (out >= high).astype("int8")


def pool_choice(x: torch.Tensor, pool: dict) -> torch.Tensor:
    """Flat index, into each H x W plane, of the first maximum of every window of a max-pool."""
    return F.max_pool2d(x, **pool, return_indices=True)[1]


class RecordTorch(TorchFunctionMode):
    """Context that records the branches of a PyTorch forward pass into `branches`."""

    def __init__(self, branches: Branches):
        super().__init__()
        self.branches = branches

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.max_pool2d:
            pool = _pool_arguments(args, kwargs)
            self.branches.taken.append(pool_choice(args[0].detach(), pool).numpy())
        bounds = _bounds(func, args, kwargs)
        out = func(*args, **kwargs)
        if bounds:
            self.branches.taken.append(pieces(out.detach().numpy(), *bounds))
        return out


class ReplayTorch(TorchFunctionMode):
    """Context in which every ReLU and max-pool takes the recorded branch; counts the flips."""

    def __init__(self, branches: Branches):
        super().__init__()
        self.branches = branches
        self._left = iter(branches.taken)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        bounds = _bounds(func, args, kwargs)
        if bounds:
            x, piece = args[0], self._next(args[0].shape)
            # No bound may enter a gradient, so that an infinite one does no harm.
            out = torch.where(torch.from_numpy(piece == 1), x, torch.from_numpy(
                np.where(piece == 2, *reversed(bounds))).to(x.dtype))
            own = x.detach().clamp(*bounds)
            flipped = torch.from_numpy(pieces(own.numpy(), *bounds) != piece)
            self._flips((own - out.detach()).abs(), flipped, x)
            return x.copy_(out) if kwargs.get("inplace") or func.__name__.endswith("_") else out
        if func is F.max_pool2d:
            x = args[0]
            index = torch.from_numpy(self._next())
            flat = x.flatten(2)
            out = flat.gather(2, index.flatten(2)).view(index.shape)
            own = F.max_pool2d(x.detach(), **_pool_arguments(args, kwargs))
            self._flips(own - out.detach(), own != out.detach(), x)
            return out
        return func(*args, **kwargs)

    def __exit__(self, kind, *rest):
        super().__exit__(kind, *rest)
        if kind is None and next(self._left, None) is not None:
            raise ValueError("the run under test has more ReLUs and max-pools than the reference")

    def _next(self, shape=None) -> np.ndarray:
        taken = next(self._left, None)
        if taken is None:
            raise ValueError("the reference has more ReLUs and max-pools than the run under "
                             f"test, which has {len(self.branches.taken)}")
        if shape is not None and taken.shape != tuple(shape):
            raise ValueError(f"a ReLU of shape {list(shape)} in the reference meets one of shape "
                             f"{list(taken.shape)} in the run under test")
        return taken

    def _flips(self, distance, flipped, x) -> None:
        count = int(flipped.sum())
        if count:
            self.branches.flips += count
            margin = float(distance[flipped].max() / x.detach().abs().max() / U)
            self.branches.margin = max(self.branches.margin, margin if margin == margin else np.inf)


def _pool_arguments(args: tuple, kwargs: dict) -> dict:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = {**dict(zip(names, args[1:])), **kwargs}
    return {name: given[name] for name in names if name in given}


@contextlib.contextmanager
def record_jittor(branches: Branches):
    """Context that records the branches of a Jittor forward pass (of this project's layers) into
    `branches`. The arrays are fetched when the context ends, so run backward within it."""
    from jt_models import layers
    import jittor as jt
    seen = []
    relu, relu6, pool = jt.nn.relu, jt.nn.relu6, layers.MaxPool2d.execute

    def seeing(function, bounds):
        def see(x):
            out = function(x)
            seen.append((bounds, out))
            return out
        return see

    def seeing_pool(self, x):
        seen.append((self, x))
        return pool(self, x)

    jt.nn.relu, jt.nn.relu6 = seeing(relu, (0.0, np.inf)), seeing(relu6, (0.0, 6.0))
    layers.MaxPool2d.execute = seeing_pool
    try:
        yield
    finally:
        jt.nn.relu, jt.nn.relu6, layers.MaxPool2d.execute = relu, relu6, pool
    for module, var in seen:
        value = np.array(var.numpy())
        if isinstance(module, tuple):
            branches.taken.append(pieces(value, *module))
        else:
            arguments = {"kernel_size": module.kernel_size, "stride": module.stride,
                         "padding": module.padding, "ceil_mode": module.ceil_mode}
            branches.taken.append(pool_choice(torch.from_numpy(value), arguments).numpy())
