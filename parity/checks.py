"""The checks: does a Jittor net compute what its PyTorch reference computes?

Two verdicts. `structure` runs both sides in float64, where a right port agrees to about 1e-15 and
the smallest port bug shows at 1e-9; the bound is 1e-11, and for a net so steep that PyTorch's own
float64 moves by more than an eighth of that when its input moves by one unit in the last place, or
in channels_last, eight times this movement, but never above 1e-10. `numerics` runs
float32 and judges Jittor and PyTorch alike against the float64 truth: Jittor's error may be 8 times
the largest of PyTorch's own (its floor), and at least 64 u is allowed.
"""
from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from . import weights
from .branches import BranchError, Branches
from .layers import errors, in_u, judge_all, keep_largest
from .pair import Pair
from .report import VERDICTS, Check, Report
from .sides import RATE, State, TorchSide
from .task import cast, moved
from .truth import BUDGETS, CEILING, U, Error, all_one_ulp, error, partner_of

STEP_LEVELS = {"momentum", "steps"}


# Inputs as they are; with a mean of ten standard deviations, where naive variances cancel; and, in
# evaluation, large ones, which reach the upper bound of a ReLU6.
KINDS = ((1, 0, ""), (1, 10, ", mean/std 10"), (100, 0, ", times 100"))
MODES = (("eval", False), ("train", True))
VIEWS = [(level, training, *kind) for kind in KINDS for level, training in MODES
         if kind[0] == 1 or not training]


def changed(inputs: tuple, factor: float, shift: float) -> tuple:
    """Inputs of another scale and mean; whole numbers stay."""
    return tuple(a * a.dtype.type(factor) + a.dtype.type(shift) if a.dtype.kind == "f" else a
                 for a in inputs)


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


class _Judge:
    """Collects the checks of one verdict."""

    def __init__(self, verdict: str, report: Report, levels: set[str]):
        self.verdict, self.report, self.levels = verdict, report, levels
        self.budget = BUDGETS[VERDICTS[verdict]]

    def wants(self, *levels: str) -> bool:
        return bool(self.levels & {*levels})

    def __call__(self, level: str, found: dict[str, Error], floors: dict[str, float]) -> None:
        if level not in self.levels:
            return
        for name, e in found.items():
            floor = floors.get(name, 0.0)  # an output too many has none
            self.report.checks.append(Check(self.verdict, level, name, e.e2 / U, e.einf / U, floor,
                                            self.budget(floor)))

    def right(self, *levels: str) -> bool:
        """Whether these levels were judged, at least one of them, and passed."""
        own = [c for c in self.report.checks if c.verdict == self.verdict and c.level in levels]
        return bool(own) and all(check.passed for check in own)

    def skip_one(self, what: str, why: str) -> None:
        self.report.skipped[f"{self.verdict} {what}"] = next(iter(why.splitlines()), "")[:200]

    def skip(self, levels: set[str], why: str) -> None:
        for level in sorted(levels & self.levels):
            self.report.skipped[f"{self.verdict} {level}"] = why


def conversion(pair: Pair, report: Report) -> bool:
    """Level "weights": the reference's weights go into the Jittor model and come back bitwise.

    Returns:
        Whether the Jittor model took them at all; if not, nothing else can be judged.
    """
    start = pair.start.arrays
    port = pair.port("float32")
    try:
        port.load(start)
    except weights.WeightError as refused:
        report.checks.append(Check("structure", "weights", "all", np.inf, np.inf, 0.0, 0.0,
                                   note=str(refused)))
        return False
    back = port.tensors()
    for name in pair.names.values():
        back[name] = weights.fitted(back[name], start[name])
        same = (back[name].dtype == start[name].dtype
                and back[name].tobytes() == start[name].tobytes())
        distance = 0.0 if same else np.inf
        report.checks.append(Check("structure", "weights", name, distance, distance, 0.0, 0.0,
                                   note="" if same else "does not come back bit by bit"))
    if pair.doubt:
        report.skipped["weights, names"] = pair.doubt
    for name in pair.one_sided():
        report.skipped[f"weights, {name}"] = "a constant that one model alone stores keeps its value"
    return True


def structure(pair: Pair, report: Report, levels: set[str], steps: int = 20) -> None:
    """Compare the two models in float64, with the reference's weights, on the CPU.

    Args:
        report: takes the checks of every output, gradient, buffer and parameter.
        levels: which to judge.
        steps: length of the free run of SGD with momentum and weight decay; 0: no optimizer step.
    """
    judge = _Judge("structure", report, levels)
    start = pair.start.cast("float64")
    inputs = pair.task.cast("float64")
    shaken = moved(inputs)
    reference, port = pair.truth(), pair.port("float64")
    other_layout = functools.cache(lambda: _takes_channels_last(pair, "float64") and
                                   _channels_last(pair, "float64"))

    def compare(run, *how, measure: bool = True) -> dict:
        """Judge what `run` gives of a side and inputs: level -> tensors. Returns the reference's. Without
        `measure` PyTorch's own movement is measured only where the bare bound does not hold."""
        got, truth = run(port, inputs, *how), run(reference, inputs, *how)
        if "gradients" in got:
            got["gradients"] = _with_gradient(got["gradients"], truth["gradients"])
        found = {level: errors(got[level], truth[level]) for level in truth}
        del got  # as large as the model
        floors = {level: {} for level in found}

        def within() -> bool:
            return all(e.worst / U <= judge.budget(floors[level].get(name, 0.0))
                       for level in found for name, e in found[level].items())

        def noise(side, x):
            for level, t in run(side, x, *how).items():
                keep_largest(floors[level], in_u(errors(t, truth[level])))

        if measure or not within():
            noise(reference, shaken)
        # PyTorch itself in another memory layout errs more than for inputs one ulp away, in steep nets.
        if not within() and other_layout():
            noise(other_layout(), inputs)
        for level in found:
            judge(level, found[level], floors[level])
        return truth

    def forward(side, x, level, training, factor, shift, suffix):
        side.load(start.arrays)  # a pass in training mode moves the running statistics
        return {level: _suffixed(side.forward(changed(x, factor, shift), training), suffix)}

    def backward(side, x):
        side.load(start.arrays)
        return {"gradients": side.gradients(x), "buffers": pair.buffers(side.tensors())}

    def advance(side, x, rate, count):
        side.rate = rate
        state = side.step(start, x, count=count)
        return {"buffers": pair.buffers(state.arrays), "momentum": state.momentum,
                "steps": {name: state.arrays[name] for name in state.momentum}}

    port.blas = True
    for level, *view in VIEWS:
        if level in levels:
            compare(forward, level, *view)
    if "layers" in levels:  # by Jittor's own loops, which are slow
        judge_all(pair, "float64", judge)
    if not judge.wants("gradients", "buffers", *STEP_LEVELS):
        return
    gradients = compare(backward)["gradients"]
    if not steps or not judge.wants(*STEP_LEVELS):
        return
    if not pair.trained & set(gradients):
        judge.skip(STEP_LEVELS, "the reference has no parameter that receives a gradient")
        return
    port.idle = pair.trained - set(gradients)
    gentle = gentle_rate(start.arrays, gradients)
    del gradients
    # A step at a usual rate, which shows a wrong update, and a free run at a gentle one.
    compare(advance, RATE, 1)
    compare(advance, gentle, steps, measure=False)  # which costs as much as all else together


def _with_gradient(got: dict, gradients: dict) -> dict:
    """Jittor gives zeros for parameters that receive no gradient; PyTorch gives none."""
    return {name: g for name, g in got.items() if name in gradients or g.any()}


@dataclass(frozen=True)
class _Variant:
    """One way of running PyTorch's own float32, to learn its noise."""
    moved: int = 0          # seed of a move of inputs and weights by one ulp; 0: none
    threads: int = 0        # 0: as many as usual
    channels_last: bool = False

    def inputs(self, inputs: tuple) -> tuple:
        return moved(inputs, self.moved) if self.moved else inputs


FLOOR = (_Variant(), *(_Variant(moved=seed) for seed in (1, 2, 3, 4)), _Variant(threads=1),
         _Variant(channels_last=True))
PLAIN = FLOOR[:1]


def _levels() -> dict[str, dict[str, float]]:
    return {level: {} for level in ("gradients", "flips", "buffers", *STEP_LEVELS)}


class _Floor:
    """PyTorch's float32 in all variants, each against its own float64 truth: the largest errors."""

    def __init__(self, pair: Pair, truth: TorchSide, variants: tuple[_Variant, ...] = FLOOR):
        self.pair, self.truth = pair, truth
        self.variants = tuple(v for v in variants if v.threads != torch.get_num_threads()  # as PLAIN
                              and (not v.channels_last or _takes_channels_last(pair, "float32")))

    def runs(self, state: State, variants=None):
        """Yields (variant, side, state) per variant, the side and the truth with that state's weights."""
        for variant in variants or self.variants:
            side = (_channels_last(self.pair, "float32") if variant.channels_last
                    else self.pair.truth("float32"))
            moved_state = state
            if variant.moved:
                rng = np.random.default_rng(variant.moved)
                moved_state = State(all_one_ulp(rng, state.arrays), all_one_ulp(rng, state.momentum))
            side.load(moved_state.arrays)
            self.truth.load(moved_state.cast("float64").arrays)
            usual = torch.get_num_threads()
            torch.set_num_threads(variant.threads or usual)
            try:
                yield variant, side, moved_state
            finally:
                torch.set_num_threads(usual)

    def forward(self, state, inputs, views) -> dict[tuple, dict[str, float]]:
        """Of each output, by view."""
        worst: dict[tuple, dict[str, float]] = {view: {} for view in views}
        truths: dict[tuple, dict[str, np.ndarray]] = {}  # by what moved and view
        for variant, side, _ in self.runs(state):
            # Evaluation first: a pass in training mode moves the running statistics.
            for view in sorted(views, key=lambda view: view[1]):
                _, training, factor, shift, _ = view
                x, key = variant.inputs(changed(inputs, factor, shift)), (variant.moved, view)
                if key not in truths:
                    truths[key] = self.truth.forward(cast(x, "float64"), training)
                keep_largest(worst[view], in_u(errors(side.forward(x, training), truths[key])))
        return worst

    def backward(self, state, inputs, largest: dict[str, dict[str, float]], step: bool,
                 variants=None) -> None:
        """Of each gradient and of the margins of flips, and with `step` of each buffer, momentum and
        update after one optimizer step, by level, into `largest`."""
        for variant, side, before in self.runs(state, variants):
            x, branches = variant.inputs(inputs), Branches()
            got = side.gradients(x, branches)
            truth = self.truth.gradients(cast(x, "float64"), branches, replay=True)
            keep_largest(largest["gradients"], in_u(errors(got, truth)))
            keep_largest(largest["flips"], {"margin": branches.margin})
            if step:
                del got, truth  # each as large as the model
                after = side.update(before.momentum)
                right = self.truth.update(before.momentum)
                for level, found in _step_errors(before, after, right, self.pair).items():
                    keep_largest(largest[level], in_u(found))
        # An update is the momentum times the rate, stored: the rounding of the store, which is not
        # counted, may hide all of the momentum's noise, or not.
        keep_largest(largest["steps"], largest["momentum"])


def _channels_last(pair: Pair, dtype: str) -> TorchSide:
    """The reference in this memory layout."""
    side = pair.truth(dtype)
    side.layout = torch.channels_last
    side.model.to(memory_format=torch.channels_last)
    return side


def _takes_channels_last(pair: Pair, dtype: str) -> bool:
    """Whether the reference runs in this layout: one with `view` or three axes does not."""
    try:
        side = _channels_last(pair, dtype)
        for _, training in MODES:
            side.forward(pair.task.cast(dtype), training)
    except RuntimeError:
        return False
    return True


def own_error(pair: Pair, backward: bool) -> float:
    """PyTorch's own float32 error, in u: the largest of outputs in training mode and, with `backward`, of
    gradients."""
    floor, largest = _Floor(pair, pair.truth(), PLAIN), _levels()
    inputs = pair.task.cast("float32")
    train = next(view for view in VIEWS if view[0] == "train" and not view[-1])
    if backward:
        floor.backward(pair.start, inputs, largest, step=False)
    found = {**floor.forward(pair.start, inputs, [train])[train], **largest["gradients"]}
    return max(found.values(), default=0.0)


def numerics(pair: Pair, report: Report, levels: set[str], steps: int = 2) -> None:
    """Compare the two models in float32, each against the float64 truth, on the CPU.

    Arguments as `structure`. The steps are teacher-forced: each starts from the truth's state,
    rounded to float32, since a free float32 run is chaotic after a handful of steps; what is
    judged is the update of each parameter. Where the branches of the two models cannot be matched,
    gradients and steps are not judged, and the report says so.
    """
    judge = _Judge("numerics", report, levels)
    start = pair.start
    inputs = pair.task.cast("float32")
    truth, port = pair.truth(), pair.port("float32")
    floor = _Floor(pair, truth)

    views = [view for view in VIEWS if view[0] in levels]
    floors = floor.forward(start, inputs, views) if views else {}
    for view in views:
        level, training, factor, shift, suffix = view
        x = changed(inputs, factor, shift)
        port.load(start.arrays)
        truth.load(start.cast("float64").arrays)
        judge(level, _suffixed(errors(port.forward(x, training),
                                      truth.forward(cast(x, "float64"), training)), suffix),
              _suffixed(floors[view], suffix))
    if "layers" in levels:
        judge_all(pair, "float32", judge)
    if not judge.wants("gradients", "flips", "buffers", *STEP_LEVELS):
        return
    steps = steps if judge.wants("buffers", *STEP_LEVELS) else 0
    floors = _levels()
    try:
        floor.backward(start, inputs, floors, step=steps > 0 and bool(pair.trained))
        _gradients(pair, judge, floors, truth, port, report)
        if port.idle != pair.trained:
            _forced_steps(pair, judge, floor, floors, truth, port, steps)
    except BranchError as unmatched:
        judge.skip({"gradients", "flips", "buffers", *STEP_LEVELS}, f"{unmatched}; so the truth "
                   "cannot take the branches of the run under test")


def _gradients(pair, judge, floors, truth, port, report) -> None:
    start, inputs = pair.start, pair.task.cast("float32")
    branches = Branches()
    port.load(start.arrays)
    truth.load(start.cast("float64").arrays)
    got = port.gradients(inputs, branches)
    gradients = truth.gradients(cast(inputs, "float64"), branches, replay=True)
    port.idle = pair.trained - set(gradients)
    judge("gradients", errors(_with_gradient(got, gradients), gradients), floors["gradients"])
    margin = Error(branches.margin * U, branches.margin * U)
    units = f"{branches.flips} units"
    judge("flips", {units: margin}, {units: floors["flips"]["margin"]})
    report.flips = branches.found


def _forced_steps(pair, judge, floor, floors, truth, port, steps) -> None:
    state, inputs = pair.start, pair.task.cast("float32")
    for index in range(steps):
        if index:  # only plainly, which costs a seventh
            floor.backward(state, inputs, floors, True, PLAIN)
        branches = Branches()
        after = port.step(state, inputs, branches)
        expected = truth.step(state.cast("float64"), cast(inputs, "float64"), branches, replay=True)
        for level, found in _step_errors(state, after, expected, pair).items():
            step = f", step {index + 1}"
            judge(level, _suffixed(found, step), _suffixed(floors[level], step))
        state = expected.cast("float32")


def _step_errors(before: State, after: State, truth: State, pair: Pair) -> dict[str, dict[str, Error]]:
    return {"buffers": errors(pair.buffers(after.arrays), pair.buffers(truth.arrays)),
            "momentum": errors(after.momentum, truth.momentum),
            "steps": _update_errors(before, after, truth)}


def _update_errors(before: State, after: State, truth: State) -> dict[str, Error]:
    """Error of every parameter's update, without the rounding of the stored result: half an
    ulp of the new parameter, which no float32 computation avoids and which may be large beside a
    small update."""
    def expected(name):
        return truth.arrays[name] - before.arrays[name] if name in truth.momentum else None

    found = {}
    for name in truth.momentum:
        new, update = after.arrays[name], expected(name)
        off = new - truth.arrays[name]
        excess = np.maximum(np.abs(off) - np.spacing(np.abs(new)).astype("float64") / 2, 0)
        found[name] = error(update + np.copysign(excess, off), update, expected(partner_of(name, update)))
    return found
