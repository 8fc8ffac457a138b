"""Levels "optimizer" and "schedule": the update rules and the learning rates, value by value."""
from __future__ import annotations

import inspect

import numpy as np
import torch

from training.schedule import Schedule

from . import models
from .layers import errors
from .pair import Pair
from .report import Check, Report
from .truth import FLOAT64_BOUND, U

# Name -> rule and options, in torch's terms; each option that a rule has differs from its default once.
OPTIMIZERS = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD, momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD, Nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "SGD, dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "SGD, weight decay": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    "Adam": ("Adam", {"lr": 0.01}),
    "Adam, weight decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3,
                                    "weight_decay": 0.05}),
    "AdamW": ("AdamW", {"lr": 0.01}),
    "RMSprop": ("RMSprop", {"lr": 0.01}),
    "RMSprop, centred, momentum": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.5,
                                               "weight_decay": 0.05, "centered": True}),
}
STEPS = 3          # some rules differ at the second step only
LARGEST = 20_000   # elements of a tensor that take part: the rules work element by element


def optimizers(pair: Pair, report: Report, module: str = "jt_models.optim") -> None:
    """Every rule, in float64, on one parameter of each kind of the model, with fixed gradients.

    Args:
        module: where the Jittor rules are, with torch's names and options; "jittor.optim" judges
            Jittor's own.
    """
    kinds = {}
    for name, array in pair.start.arrays.items():
        if name in pair.trained:
            kinds.setdefault((name.rpartition(".")[2], array.ndim), name)
    rng = np.random.default_rng(pair.task.seed)
    start = {name: pair.start.arrays[name].reshape(-1)[:LARGEST].astype("float64")
             for name in kinds.values()}
    # From 1e-9 to 1: an epsilon in the wrong place shows at small ones.
    gradients = [{name: rng.standard_normal(a.shape) * 10.0 ** rng.uniform(-9, 0, a.shape)
                  for name, a in start.items()} for _ in range(STEPS)]
    rules = models.import_module(module)
    for title, (rule, options) in OPTIMIZERS.items():
        constructor = getattr(rules, rule, None)
        missing = [] if constructor is None else [
            o for o in options if o not in inspect.signature(constructor).parameters]
        if constructor is None or missing:
            what = f"{module} has no {rule}" + (f" with {', '.join(missing)}" if missing else "")
            report.checks.append(Check("structure", "optimizer", title, np.inf, np.inf, 0.0,
                                       FLOAT64_BOUND / U, note=what))
            continue
        expected = _torch(getattr(torch.optim, rule), options, start, gradients)
        got = _jittor(pair, constructor, options, start, gradients)
        for step, (ours, theirs) in enumerate(zip(got, expected), 1):
            for name, e in errors(ours, theirs).items():
                report.checks.append(Check("structure", "optimizer", f"{title}, {name}, step {step}",
                                           e.e2 / U, e.einf / U, 0.0, FLOAT64_BOUND / U))


def _moves(states: list[dict]) -> list[dict]:
    return [{name: after[name] - before[name] for name in after}
            for before, after in zip(states, states[1:])]


def _torch(rule, options, start, gradients) -> list[dict]:
    """Update of each tensor at each step."""
    parameters = {name: torch.nn.Parameter(torch.from_numpy(a.copy())) for name, a in start.items()}
    optimizer = rule(parameters.values(), **options)
    states = [start]
    for found in gradients:
        for name, p in parameters.items():
            p.grad = torch.from_numpy(found[name])
        optimizer.step()
        states.append({name: p.detach().numpy().copy() for name, p in parameters.items()})
    return _moves(states)


def _jittor(pair, rule, options, start, gradients) -> list[dict]:
    """As `_torch`; the loss is sum(p * g), whose gradient is g."""
    with pair.port("float64").running() as jt:
        parameters = {name: jt.array64(a) for name, a in start.items()}
        optimizer = rule(list(parameters.values()), **options)
        states = [start]
        for found in gradients:
            optimizer.step(sum((p * jt.array64(found[name])).sum() for name, p in parameters.items()))
            jt.sync_all(True)
            states.append({name: np.array(p.numpy()) for name, p in parameters.items()})
    return _moves(states)


TOTAL, PER_EPOCH, WARMUP = 60, 10, 15


def schedules(report: Report) -> None:
    """Every schedule of `training.schedule`, which both trainers use, against torch's schedulers."""
    scheduler = torch.optim.lr_scheduler

    def warm(optimizer, after):
        rising = scheduler.LambdaLR(optimizer, lambda step: (step + 1) / WARMUP)
        return scheduler.SequentialLR(optimizer, [rising, after], [WARMUP])

    references = {
        "constant": lambda o, n: scheduler.ConstantLR(o, 1.0, n),
        "cosine": lambda o, n: scheduler.CosineAnnealingLR(o, n),
        "multistep": lambda o, n: scheduler.MultiStepLR(
            o, [m * PER_EPOCH - (TOTAL - n) for m in (2, 4)], 0.1),
    }
    for kind, make in references.items():
        for warmup in (0, WARMUP):
            rate = Schedule(kind, 0.1, TOTAL, PER_EPOCH, warmup,
                            (2, 4) if kind == "multistep" else ())
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
            reference = make(optimizer, TOTAL - warmup)
            if warmup:
                reference = warm(optimizer, reference)
            expected = []
            for _ in range(TOTAL):
                expected.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                reference.step()
            title = kind + (", warm-up" if warmup else "")
            found = errors({title: np.array([rate(step) for step in range(TOTAL)])},
                           {title: np.array(expected)})[title]
            report.checks.append(Check("structure", "schedule", title, found.e2 / U, found.einf / U,
                                       0.0, FLOAT64_BOUND / U))
