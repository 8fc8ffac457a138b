"""The checks: does a Jittor net compute what its PyTorch reference computes?

Two verdicts. `structure` runs both sides in float64, where a right port agrees to about 1e-15 and
the smallest port bug shows at 1e-9; the bound is 1e-11, and for a net so steep that PyTorch's own
float64 moves by more than an eighth of that when its input moves by one unit in the last place,
eight times this movement, but never above 1e-10. `numerics` runs
float32 and judges Jittor and PyTorch alike against the float64 truth: Jittor's error may be 8 times
the largest of PyTorch's own (its floor), and at least 64 u is allowed.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zoo.heads import aux_weight

from . import weights
from .branches import Branches
from .sides import RATE, JittorSide, State, TorchSide
from .truth import U, budget, budget64, error, one_ulp, weight_of


@dataclass(frozen=True)
class Check:
    """One verdict on one tensor.

    Attributes:
        level: "eval" or "train" (output in that mode), "gradients", "flips" (the branch that is
            furthest from its switching point among those that the truth would not have taken),
            "buffers", "momentum" and "steps" (after SGD steps: in float64 one step and a free run,
            and the parameters; in float32 teacher-forced steps, and the updates).
        tensor: name of the tensor.
        error: of the Jittor side, in u = 2^-24 relative to the truth.
        floor: largest error of PyTorch's own float32, in u; in float64, how far PyTorch moves with
            an input moved by one unit in the last place.
        budget: largest error that passes, in u.
    """
    level: str
    tensor: str
    error: float
    floor: float
    budget: float

    @property
    def passed(self) -> bool:
        return self.error <= self.budget

    def __str__(self) -> str:
        return (f"{self.level} {self.tensor}: Jittor {self.error:.3g} u, torch {self.floor:.3g} u, "
                f"budget {self.budget:.3g} u")


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Give a torch model a state that hides nothing: random BatchNorm scale, shift and statistics,
    and biases that are not zero. (A fresh net has scale 1, shift 0, mean 0, variance 1.)"""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.num_batches_tracked.fill_(3)
            if isinstance(getattr(module, "bias", None), torch.nn.Parameter):
                module.bias.normal_(0, 0.1, generator=generator)


def _errors(got: dict, truth: dict) -> dict[str, float]:
    """Error in u of every tensor of the truth; infinite for one that is missing.

    A bias is judged on the scale of its layer's weight where that is larger. Its gradient is a sum
    over all positions, which may cancel: before BatchNorm entirely, with a sigmoid between nearly.
    """
    return {name: np.inf if name not in got else
            error(got[name], t, truth.get(weight_of(name))).worst / U for name, t in truth.items()}


def _output_errors(got: dict, truth: dict) -> dict[str, float]:
    """As `_errors`; infinite also for an output that the truth does not have."""
    return {**dict.fromkeys(got, np.inf), **_errors(got, truth)}


def _buffers(state: State) -> dict:
    return {name: a for name, a in state.arrays.items() if name not in state.momentum}


# Inputs as they are, and with a mean of ten standard deviations, where naive variances cancel.
SHIFTS = ((0, ""), (10, ", mean/std 10"))


def _suffixed(by_name: dict, suffix: str) -> dict:
    return {name + suffix: value for name, value in by_name.items()}


def gentle_rate(arrays: dict, gradients: dict) -> float:
    """A learning rate whose first step moves no weight by more than 1e-5 of its norm (parameters
    or gradients that are all zero do not count).

    A deep net with random BatchNorm and few values per channel is so steep that two float64 runs
    of PyTorch itself, begun 1e-14 apart, are 5e-3 apart after five steps (resnet152, rate 0.001,
    batch 4 at 48x48). At this rate they stay within 1e-14.

    Raises:
        ValueError: no parameter has both a norm and a gradient.
    """
    norms = [(np.linalg.norm(arrays[name]), np.linalg.norm(g))
             for name, g in gradients.items() if name in arrays]
    rates = [1e-5 * size / slope for size, slope in norms if size > 0 and slope > 0]
    if not rates or not np.isfinite(min(rates)):
        raise ValueError("no parameter of the reference receives a finite gradient")
    return min(rates)


def structure(jittor_model, torch_model: torch.nn.Module, x: np.ndarray, y: np.ndarray,
              steps: int = 5) -> list[Check]:
    """Compare the two models in float64, with `torch_model`'s weights, on the CPU.

    Args:
        jittor_model, torch_model: with equal names of parameters and buffers; the Jittor model
            ends with the torch model's weights, in float32.
        x: float32 [N, C, H, W]; y: int64 [N], the labels.
        steps: length of the free run of SGD with momentum and weight decay; 0: no optimizer step.
            The loss is the cross-entropy, plus `torch_model.aux_weight` times that of each
            auxiliary head, for a net that returns a tuple in training mode.

    Returns:
        Checks of every output, gradient, buffer and parameter, each with its bound.
    """
    start = State(weights.tensors(torch_model))
    start64, x = start.cast("float64"), x.astype("float64")
    reference, shaken = TorchSide(torch_model, "float64"), TorchSide(torch_model, "float64")
    port = JittorSide(jittor_model, "float64", aux_weight(torch_model))
    moved = one_ulp(np.random.default_rng(0), x)
    found: list[Check] = []

    def judge(level, got, truth, other, errors=_errors):
        floors = _errors(other, truth)
        for name, e in errors(got, truth).items():
            noise = floors.get(name, 0.0)  # an output too many has none
            found.append(Check(level, name, e, noise, budget64(noise)))

    for side in (reference, shaken, port):
        side.load(start64.arrays)
    for shift, suffix in SHIFTS:
        for level, training in (("eval", False), ("train", True)):
            judge(level, _suffixed(port.forward(x + shift, training), suffix),
                  _suffixed(reference.forward(x + shift, training), suffix),
                  _suffixed(shaken.forward(moved + shift, training), suffix), _output_errors)
    for side in (reference, shaken, port):
        side.load(start64.arrays)
    gradients = reference.gradients(x, y, Branches(), replay=False)
    judge("gradients", port.gradients(x, y, Branches()), gradients,
          shaken.gradients(moved, y, Branches(), replay=False))
    judge("buffers", port.buffers(), reference.buffers(), shaken.buffers())
    # One step at a usual rate, which shows a wrong update, and a free run at a gentle one.
    runs = ((1, RATE), (steps, gentle_rate(start64.arrays, gradients))) if steps else ()
    for count, rate in runs:
        reference.rate = shaken.rate = port.rate = rate
        ours = theirs = other = start64
        for _ in range(count):
            ours = port.step(ours, x, y, Branches())
            theirs = reference.step(theirs, x, y, Branches(), replay=False)
            other = shaken.step(other, moved, y, Branches(), replay=False)
        states = (ours, theirs, other)
        judge("buffers", *map(_buffers, states))
        judge("momentum", *(state.momentum for state in states))
        judge("steps", *({name: state.arrays[name] for name in theirs.momentum}
                         for state in states))
    port.dtype = "float32"
    port.load(start.arrays)
    return found


@dataclass(frozen=True)
class _Variant:
    """One way of running PyTorch's own float32, to learn its noise."""
    moved: int = 0          # seed of a move of inputs and weights by one ulp; 0: none
    threads: int = 0        # 0: as many as usual
    channels_last: bool = False


FLOOR = (_Variant(), *(_Variant(moved=seed) for seed in (1, 2, 3, 4)), _Variant(threads=1),
         _Variant(channels_last=True))


class _Floor:
    """PyTorch's float32 in all variants, each against its own float64 truth: the largest errors."""

    def __init__(self, torch_model, truth: TorchSide):
        self.model, self.truth = torch_model, truth

    def runs(self, state: State, x: np.ndarray, variants=FLOOR):
        """Yields (side with its weights loaded, state, input) per variant."""
        for variant in variants:
            side = TorchSide(self.model, "float32")
            moved_state, moved_x = state, x
            if variant.moved:
                rng = np.random.default_rng(variant.moved)
                moved_x = one_ulp(rng, x)
                moved_state = State(*({name: one_ulp(rng, a) if a.dtype == "float32" else a
                                       for name, a in d.items()}
                                      for d in (state.arrays, state.momentum)))
            if variant.channels_last:
                side.layout = torch.channels_last
                side.model.to(memory_format=torch.channels_last)
            side.load(moved_state.arrays)
            self.truth.load(moved_state.cast("float64").arrays)
            usual = torch.get_num_threads()
            torch.set_num_threads(variant.threads or usual)
            try:
                yield side, moved_state, moved_x
            finally:
                torch.set_num_threads(usual)

    def forward(self, state, x, training) -> dict[str, float]:
        """Of each output in one mode."""
        worst = {}
        for side, _, moved in self.runs(state, x):
            _keep_largest(worst, _errors(side.forward(moved, training),
                                         self.truth.forward(moved.astype("float64"), training)))
        return worst

    def gradients(self, state, x, y) -> tuple[dict[str, float], float]:
        """Of each gradient, and the largest margin of a flip."""
        worst, margin = {}, 0.0
        for side, _, moved in self.runs(state, x):
            branches = Branches()
            got = side.gradients(moved, y, branches, replay=False)
            truth = self.truth.gradients(moved.astype("float64"), y, branches, replay=True)
            _keep_largest(worst, _errors(got, truth))
            margin = max(margin, branches.margin)
        return worst, margin

    def step(self, state, x, y, largest: dict[str, dict[str, float]]) -> None:
        """Of each buffer, momentum and update after one step, by level, into `largest`. The first
        step is run in all variants; a later one plainly, which costs a seventh."""
        variants = FLOOR[:1] if largest["steps"] else FLOOR
        for side, moved_state, moved in self.runs(state, x, variants):
            branches = Branches()
            after = side.step(moved_state, moved, y, branches, replay=False)
            truth = self.truth.step(moved_state.cast("float64"), moved.astype("float64"), y,
                                    branches, replay=True)
            for level, errors in _step_errors(moved_state, after, truth).items():
                _keep_largest(largest[level], errors)
        # An update is the momentum times the rate, stored: the rounding of the store, which is not
        # counted, may hide all of the momentum's noise, or not.
        _keep_largest(largest["steps"], largest["momentum"])


def _keep_largest(largest: dict[str, float], new: dict[str, float]) -> None:
    for name, value in new.items():
        largest[name] = max(largest.get(name, 0.0), value)


def numerics(jittor_model, torch_model: torch.nn.Module, x: np.ndarray, y: np.ndarray,
             steps: int = 5) -> list[Check]:
    """Compare the two models in float32, each against the float64 truth, on the CPU.

    Arguments as `structure`. The steps are teacher-forced: each starts from the truth's state,
    rounded to float32, since a free float32 run is chaotic after a handful of steps; what is
    judged is the update of each parameter.

    Returns:
        Checks with Jittor's error, PyTorch's floor and the budget, in u.
    """
    start = State(weights.tensors(torch_model))
    start64 = start.cast("float64")
    truth = TorchSide(torch_model, "float64")
    port = JittorSide(jittor_model, "float32", aux_weight(torch_model))
    floor = _Floor(torch_model, truth)
    found: list[Check] = []

    def judge(level, errors, floors):
        for name, e in errors.items():
            noise = floors.get(name, 0.0)  # an output too many has none
            found.append(Check(level, name, e, noise, budget(noise)))

    for shift, suffix in SHIFTS:
        for level, training in (("eval", False), ("train", True)):
            shifted = x + np.float32(shift)
            floors = floor.forward(start, shifted, training)
            port.load(start.arrays)
            truth.load(start64.arrays)
            got = port.forward(shifted, training)
            expected = truth.forward(shifted.astype("float64"), training)
            judge(level, _suffixed(_output_errors(got, expected), suffix),
                  _suffixed(floors, suffix))

    x64 = x.astype("float64")
    floors, floor_margin = floor.gradients(start, x, y)
    branches = Branches()
    port.load(start.arrays)
    truth.load(start64.arrays)
    got = port.gradients(x, y, branches)
    gradients = truth.gradients(x64, y, branches, replay=True)
    judge("gradients", _errors(got, gradients), floors)
    flips = f"{branches.flips} units"
    judge("flips", {flips: branches.margin}, {flips: floor_margin})

    state, floors = start, {"buffers": {}, "momentum": {}, "steps": {}}
    for index in range(steps):
        floor.step(state, x, y, floors)
        branches = Branches()
        after = port.step(state, x, y, branches)
        expected = truth.step(state.cast("float64"), x64, y, branches, replay=True)
        for level, errors in _step_errors(state, after, expected).items():
            step = f", step {index + 1}"
            judge(level, _suffixed(errors, step), _suffixed(floors[level], step))
        state = expected.cast("float32")
    port.load(start.arrays)
    return found


def _step_errors(before: State, after: State, truth: State) -> dict[str, dict[str, float]]:
    return {"buffers": _errors(_buffers(after), _buffers(truth)),
            "momentum": _errors(after.momentum, truth.momentum),
            "steps": _update_errors(before, after, truth)}


def _update_errors(before: State, after: State, truth: State) -> dict[str, float]:
    """Error in u of every parameter's update, without the rounding of the stored result: half an
    ulp of the new parameter, which no float32 computation avoids and which may be large beside a
    small update."""
    moved, expected = {}, {}
    for name in truth.momentum:
        new, right = after.arrays[name], truth.arrays[name]
        off = new - right
        excess = np.maximum(np.abs(off) - np.spacing(np.abs(new)).astype("float64") / 2, 0)
        expected[name] = right - before.arrays[name]
        moved[name] = expected[name] + np.sign(off) * excess
    return _errors(moved, expected)


def worst(checks: list[Check]) -> dict[str, Check]:
    """Per level the check that used the most of its budget."""
    found: dict[str, Check] = {}
    for check in checks:
        if check.level not in found or (check.error / check.budget
                                        > found[check.level].error / found[check.level].budget):
            found[check.level] = check
    return found
