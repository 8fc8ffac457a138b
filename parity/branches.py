"""Branches: which piece of a ReLU (ReLU6, leaky ReLU) each unit took, and which element each max-pool
chose.

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
from torch.nn.modules.module import (register_module_forward_hook,
                                     register_module_forward_pre_hook)
from torch.overrides import TorchFunctionMode

from .truth import U

RELU = {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
HARDTANH = {F.hardtanh, F.hardtanh_}  # nn.ReLU6 calls it
CLAMP = {torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_}
LEAKY = {F.leaky_relu, F.leaky_relu_}


class BranchError(ValueError):
    """The run under test and the reference do not have the same branch points."""


@dataclass
class Branches:
    """Branch points in order of execution.

    Attributes:
        taken: per ReLU an int8 array (0: clipped from below, 1: passed, 2: clipped from above), per
            max-pool an int64 array of flat indices into the H x W plane of its input.
        found: per branch point where the truth would have branched otherwise (filled by a replay):
            {"where": module path, "kind", "units": how many, "margin": the largest distance of one
            from its switching point, in u of the largest value of its tensor}.
    """
    taken: list[np.ndarray] = field(default_factory=list)
    found: list[dict] = field(default_factory=list)

    @property
    def flips(self) -> int:
        return sum(row["units"] for row in self.found)

    @property
    def margin(self) -> float:
        return max((row["margin"] for row in self.found), default=0.0)


def _pieces_of(func, args: tuple, kwargs: dict) -> tuple[float, float, float] | None:
    """(lower bound, upper bound, slope below) of a function with kinks; None for any other."""
    def given(*names):
        return {**dict(zip(names, args[1:])), **kwargs}
    if func in RELU:
        return 0.0, float("inf"), 0.0
    if func is F.relu6:
        return 0.0, 6.0, 0.0
    if func in LEAKY:
        return 0.0, float("inf"), float(given("negative_slope").get("negative_slope", 0.01))
    low = high = None
    if func in HARDTANH:
        options = given("min_val", "max_val")
        low, high = options.get("min_val", -1.0), options.get("max_val", 1.0)
    elif func in CLAMP:
        options = given("min", "max")
        low, high = options.get("min"), options.get("max")
        high = float("inf") if high is None else high
    known = isinstance(low, (int, float)) and low == 0 and high in (6, float("inf"))
    return (0.0, float(high), 0.0) if known else None


def pieces(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which piece each unit of an input, or of a clipped output, lies on (see `Branches.taken`)."""
    return (x > low).astype("int8") + (x >= high).astype("int8")


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
            self.branches.taken.append(pool_choice(_input(args, kwargs).detach(), pool).cpu().numpy())
        kinks = _pieces_of(func, args, kwargs)
        if kinks:
            self.branches.taken.append(pieces(_input(args, kwargs).detach().cpu().numpy(), *kinks[:2]))
        return func(*args, **kwargs)


@contextlib.contextmanager
def module_paths(model: torch.nn.Module):
    """Context that gives a list: the paths of the modules of `model` that are running, the innermost
    last."""
    names = {id(module): name for name, module in model.named_modules()}
    running: list[str] = []

    def enter(module, inputs):
        running.append(names.get(id(module), ""))

    def leave(module, inputs, output):
        running.pop()

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


class ReplayTorch(TorchFunctionMode):
    """Context in which every ReLU and max-pool takes the recorded branch; counts the flips.

    Args:
        running: what `module_paths` gives, to tell where a flip is.
    """

    def __init__(self, branches: Branches, running: list[str] | None = None):
        super().__init__()
        self.branches = branches
        self.running = running if running is not None else []
        self._left = iter(branches.taken)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kinks = _pieces_of(func, args, kwargs)
        if kinks:
            low, high, slope = kinks
            x = _input(args, kwargs)
            piece = self._next(func.__name__, x.shape)
            # No bound may enter a gradient, so that an infinite one does no harm.
            clipped = torch.from_numpy(np.where(piece == 2, high, low)).to(x.dtype)
            out = torch.where(torch.from_numpy(piece == 1), x, x * slope if slope else clipped)
            own = x.detach().clamp(low, high) if not slope else func(x.detach().clone(), slope)
            flipped = torch.from_numpy(pieces(x.detach().numpy(), low, high) != piece)
            self._flips(func.__name__, (own - out.detach()).abs(), flipped, x)
            return x.copy_(out) if kwargs.get("inplace") or func.__name__.endswith("_") else out
        if func is F.max_pool2d:
            x = _input(args, kwargs)
            pool = _pool_arguments(args, kwargs)
            own = F.max_pool2d(x.detach(), **pool)
            index = torch.from_numpy(self._next("max_pool2d", own.shape))
            flat = x.flatten(2)
            out = flat.gather(2, index.flatten(2)).view(index.shape)
            self._flips("max_pool2d", own - out.detach(), own != out.detach(), x)
            return out
        return func(*args, **kwargs)

    def __exit__(self, kind, *rest):
        super().__exit__(kind, *rest)
        if kind is None and next(self._left, None) is not None:
            raise BranchError("the run under test has more ReLUs and max-pools than the reference")

    def _next(self, kind: str, shape) -> np.ndarray:
        taken = next(self._left, None)
        if taken is None:
            raise BranchError("the reference has more ReLUs and max-pools than the run under "
                              f"test, which has {len(self.branches.taken)}")
        if taken.shape != tuple(shape) or (taken.dtype == "int64") != (kind == "max_pool2d"):
            other = "max-pool" if taken.dtype == "int64" else "ReLU"
            raise BranchError(f"a {kind} of shape {list(shape)} in the reference meets a {other} of "
                              f"shape {list(taken.shape)} in the run under test")
        return taken

    def _flips(self, kind, distance, flipped, x) -> None:
        count = int(flipped.sum())
        if count:
            margin = float(distance[flipped].max() / x.detach().abs().max() / U)
            self.branches.found.append({"where": self.running[-1] if self.running else "",
                                        "kind": kind, "units": count,
                                        "margin": margin if margin == margin else np.inf})


def _input(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else kwargs["input"]


def _pool_arguments(args: tuple, kwargs: dict) -> dict:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = {**dict(zip(names, args[1:])), **kwargs}
    return {name: given[name] for name in names if name in given}


@contextlib.contextmanager
def record_jittor(branches: Branches):
    """Context that records the branches of a Jittor forward pass into `branches`: of Jittor's own
    ReLUs and pools and of this project's. The arrays are fetched when the context ends, so run
    backward within it."""
    from jt_models import batchnorm, layers
    import jittor as jt
    inside = []
    seen = []  # (bounds or pool, the Var whose values tell the branch)
    usual = {name: getattr(jt, name) for name in ("ternary_out_hint", "ternary", "maximum", "minimum")}
    pools = {layers.MaxPool2d: layers.MaxPool2d.execute, jt.pool.Pool: jt.pool.Pool.execute}
    joined = batchnorm.rectified

    def see_relu(condition, x, y):
        out = usual["ternary_out_hint"](condition, x, y)
        seen.append(((0.0, np.inf), out))
        return out

    def see_joined(y, rectifier):
        out = joined(y, rectifier)
        if out is not None:
            seen.append(((0.0, rectifier.most), out))
        return out

    def see_leaky(condition, x, y):
        out = usual["ternary"](condition, x, y)
        if isinstance(x, jt.Var) and isinstance(y, jt.Var) and condition.shape == x.shape == y.shape:
            seen.append(((0.0, np.inf), condition))
        return out

    def see_maximum(x, y):
        out = usual["maximum"](x, y)
        if isinstance(x, jt.Var) and isinstance(y, (int, float)) and y == 0:
            seen.append(((0.0, np.inf), out))
        return out

    def see_minimum(x, y):
        out = usual["minimum"](x, y)
        if seen and seen[-1][1] is x and isinstance(y, (int, float)) and y == 6:
            seen[-1] = ((0.0, 6.0), out)  # ReLU6 is the minimum of a maximum
        return out

    def seeing(pool):
        def see_pool(self, x):
            if getattr(self, "op", "maximum") != "maximum" or inside:
                return pool(self, x)
            seen.append((self, x))
            inside.append(self)  # our pool calls Jittor's
            try:
                return pool(self, x)
            finally:
                inside.pop()
        return see_pool

    for name, function in (("ternary_out_hint", see_relu), ("ternary", see_leaky),
                           ("maximum", see_maximum), ("minimum", see_minimum)):
        setattr(jt, name, function)
    batchnorm.rectified = see_joined
    for kind, execute in pools.items():
        kind.execute = seeing(execute)
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(jt, name, function)
        batchnorm.rectified = joined
        for kind, execute in pools.items():
            kind.execute = execute
    for point, var in seen:
        value = np.array(var.numpy())
        if isinstance(point, tuple):
            branches.taken.append(pieces(value, *point))
        else:
            arguments = {"kernel_size": point.kernel_size, "stride": point.stride,
                         "padding": point.padding, "ceil_mode": point.ceil_mode}
            branches.taken.append(pool_choice(torch.from_numpy(value), arguments).numpy())
