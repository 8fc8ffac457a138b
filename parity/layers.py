"""Module by module: each module of the Jittor model, fed what the reference is fed there.

Used to judge every layer by itself, and to find the first one that diverges. Nothing is kept of a
module when the next one runs, so memory stays that of one module.
"""
from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass

import numpy as np
import torch

from .branches import BranchError, Branches
from .pair import Pair
from .task import cast, moved
from .truth import U, Error, error, partner_of

DIFFERENT = Error(np.inf, np.inf)
OTHER = 1e-2  # relative; beyond, a module does not err but computes something else


@dataclass
class Call:
    """One call of a module in the reference.

    Attributes:
        path: of the module in the PyTorch model.
        index: which call of it this is, from 0.
        inputs: what it was fed: float64 or int64.
    """
    path: str
    index: int
    inputs: tuple[np.ndarray, ...]

    @property
    def name(self) -> str:
        shown = self.path or "the net"
        return f"{shown}, call {self.index + 1}" if self.index else shown


class Stop(Exception):
    """Ends a walk."""


def walk(pair: Pair, paths: set[str], training: bool, see) -> None:
    """Run the reference once; `see(call)` hears of each call of the modules at `paths`, in order of
    execution, before it runs. `see` may raise Stop. Calls with other arguments than tensors are left out."""
    side = pair.truth()
    count: dict[str, int] = {}

    def hear(path):
        def heard(module, inputs, options):
            if options:  # in the order of the definition
                bound = inspect.signature(module.forward).bind(*inputs, **options)
                inputs = () if bound.kwargs else bound.args
            if inputs and all(isinstance(x, torch.Tensor) for x in inputs):
                count[path] = count.get(path, -1) + 1
                see(Call(path, count[path], tuple(x.detach().numpy().copy() for x in inputs)))
        return heard

    for name, module in side.model.named_modules():
        if name in paths:
            module.register_forward_pre_hook(hear(name), with_kwargs=True)
    with contextlib.suppress(Stop):
        side.forward(pair.task.cast("float64"), training)


def errors(got: dict, truth: dict) -> dict[str, Error]:
    """Error of every tensor of the truth; infinite for one that only one side has.

    A bias is judged on the scale of its layer's weight where that is larger. Its gradient is a sum
    over all positions, which may cancel: before BatchNorm entirely, with a sigmoid between nearly. So is
    the gradient of a normalisation's scale, which cancels where only a ReLU lies before the next one
    (DenseNet's first: ten times as small as that of its shift): it is judged on the scale of its shift.
    """
    return {**dict.fromkeys((name for name in got if name not in truth), DIFFERENT),
            **{name: DIFFERENT if name not in got else
               error(got[name], t, truth.get(partner_of(name, t))) for name, t in truth.items()}}


def in_u(found: dict[str, Error]) -> dict[str, float]:
    """The worse of both norms, in u."""
    return {name: e.worst / U for name, e in found.items()}


def keep_largest(largest: dict[str, float], new: dict[str, float]) -> None:
    for name, value in new.items():
        largest[name] = max(largest.get(name, 0.0), value)


def local(part: Pair, dtype: str, level: str) -> tuple[dict[str, Error], dict[str, float]]:
    """Errors of one Jittor module against its reference's float64, and PyTorch's own errors in u.

    Args:
        part: see `Pair.part`; its inputs are rounded to `dtype` first.
        level: "eval", "train" (outputs in that mode), "buffers" or "gradients" (for a fixed loss).

    Raises:
        BranchError: float32 gradients of modules whose branches do not match.
    """
    start = part.start

    def run(side, inputs, branches, **replay):
        side.load((start if side.dtype == "float32" else start.cast("float64")).arrays)
        if level == "gradients":
            found = side.gradients(inputs, branches, **replay)
            return {name: g for name, g in found.items() if name in part.trained or "input" in name}
        outputs = side.forward(inputs, level != "eval")
        return part.buffers(side.tensors()) if level == "buffers" else outputs

    inputs = part.task.cast(dtype)
    single = dtype == "float32"  # where the truth must take the branches of the run under test
    truth = part.truth()
    taken = Branches()
    got = run(part.port(dtype), inputs, taken)
    expected = run(truth, cast(inputs, "float64"), taken if single else Branches(), replay=single)
    if level == "gradients":  # Jittor gives zeros where PyTorch gives none
        got = {name: g for name, g in got.items() if name in expected or g.any()}
    floors: dict[str, float] = {}
    shaken = moved(inputs)
    for other in (inputs, shaken) if single else (shaken,):
        taken = Branches()
        noise = run(part.truth(dtype), other, taken)
        right = run(truth, cast(other, "float64"), taken, replay=True) if single else expected
        keep_largest(floors, in_u(errors(noise, right)))
    return errors(got, expected), floors


def judge_all(pair: Pair, dtype: str, judge) -> None:
    """Level "layers": every layer (a module without modules in it) that both models have, in both
    modes. Where the outputs of the nets agree, a layer that computes something else is not judged: a
    port may fuse a ReLU into the convolution before it."""
    right = judge.right("eval", "train")
    leaves = {path for path in pair.modules
              if path and not any(True for _ in pair.reference.get_submodule(path).children())}

    for level, suffix in (("eval", ""), *([] if pair.random else [("train", ", train")])):
        def see(call):
            try:
                found, floors = local(pair.part(call.path, call.inputs), dtype, level)
            except Exception as error:  # a layer may take its arguments in another way
                judge.skip_one(f"layers, {call.path}", f"{type(error).__name__}: {error}")
                return
            if right and max(e.worst for e in found.values()) > OTHER:
                judge.skip_one(f"layers, {call.path}", "computes something else than its namesake, but "
                               "the outputs of the net agree: what belongs to it is elsewhere")
                return
            for name, e in found.items():
                label = call.name + suffix + ("" if name == "output" else f", {name}")
                judge("layers", {label: e}, {label: floors.get(name, 0.0)})
        walk(pair, leaves, level == "train", see)


@dataclass
class Divergence:
    """A module that does not compute what its reference does, when it is fed the same.

    Attributes:
        call: of the reference's module.
        inside: False if the modules in it are right, so that the fault is in its own code.
        tensor, error, floor: the worst one, in u the floor.
    """
    call: Call
    inside: bool
    tensor: str
    error: Error
    floor: float


def first_divergence(pair: Pair, dtype: str, level: str, budget) -> Divergence | None:
    """The first module in order of execution whose result leaves the budget (for gradients the last,
    which is the first in the order of the backward pass); descends from a module into those in it.

    Args:
        level: as `local`.
        budget: function of a floor in u that gives the largest error in u.

    Returns:
        None if every module below the whole net is right.
    """
    modules = pair.modules
    prefix, found = "", None
    while True:
        below = _nearest(pair.reference, prefix, modules)
        failing: list[Divergence] = []

        def see(call):
            try:
                errors_, floors = local(pair.part(call.path, call.inputs), dtype, level)
            except BranchError:
                errors_, floors = {"branches": DIFFERENT}, {}
            except Exception:  # it takes its arguments in another way: what is around it is blamed
                return
            used = {name: e.worst / U / budget(floors.get(name, 0.0)) for name, e in errors_.items()}
            worst = max(used, key=used.get, default=None)
            if worst is not None and used[worst] > 1:
                failing.append(Divergence(call, True, worst, errors_[worst], floors.get(worst, 0.0)))
                if level != "gradients":
                    raise Stop

        if below:
            walk(pair, below, level != "eval", see)
        if not failing:
            if found:
                found.inside = not below
            return found
        found = failing[-1]
        prefix = found.call.path


def _nearest(model: torch.nn.Module, prefix: str, modules: dict[str, str]) -> set[str]:
    """Paths below `prefix` that have a counterpart and no other such path between."""
    found: set[str] = set()
    for name, _ in model.get_submodule(prefix).named_children():
        path = f"{prefix}.{name}".lstrip(".")
        found |= {path} if path in modules else _nearest(model, path, modules)
    return found
