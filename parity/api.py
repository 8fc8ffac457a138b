"""`check`: a Jittor model against its PyTorch reference, on all levels."""
from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import jt_models  # first: it imports PyTorch and Jittor in the one order in which both work
import jittor as jt
import numpy as np
import torch

from training.errors import UserError
from training.run import command, environment

from . import checks, initial, keymap, models, rules, stream, weights
from .layers import first_divergence
from .models import Source
from .pair import Pair, make_pair, randomise
from .report import LEVELS, VERDICTS, Check, Place, Report
from .reproduce import write as write_reproduction
from .sides import TorchSide
from .task import Task
from .truth import BUDGETS, U

# What is judged unless more is asked for: the others judge fresh weights, update rules and batches,
# which a pair of models need not have to do with.
MODEL_LEVELS = tuple(level for level in LEVELS if level not in ("init", "optimizer", "schedule", "data"))
BACKWARD = {"gradients", "flips", "momentum", "steps"}
IN_TRAINING = {"train", "buffers", *BACKWARD}


class ParityError(AssertionError):
    """A port differs from its reference. The message is the report; `report` holds it whole."""

    def __init__(self, report: Report):
        super().__init__(f"\n{report}")
        self.report = report


def check(jittor_model, torch_model: torch.nn.Module, inputs, *, labels=None,
          loss: tuple[Callable, Callable] | None = None, key_map: dict[str, str] | None = None,
          levels: Iterable[str] = MODEL_LEVELS, verdicts: Iterable[str] = tuple(VERDICTS),
          steps: int = 20, seed: int = 0, title: str | None = None,
          optim: str = "jt_models.optim", locate: bool = True, source: Source | None = None,
          reproduction: Path | None = None, device: str = "cpu") -> Report:
    """Does `jittor_model` compute what `torch_model` computes?

    Both get the torch model's weights, of which those that are constant (a fresh BatchNorm, zero
    biases) are replaced by random ones, and run on the CPU or, in float32, on a GPU. Dropout takes the
    same random numbers in both. The Jittor model ends with these weights; the torch model is not touched.

    Args:
        jittor_model, torch_model: modules; their modules and tensors may have other names.
        inputs: an array, or a tuple of arrays for several arguments; float ones as float32, with a
            first axis of the batch.
        labels: int [N], classes for the cross-entropy, random if they are missing; for a loss of your
            own whatever it takes.
        loss: (of Jittor, of PyTorch), each of (output, labels) giving a scalar. Without one: the
            cross-entropy if all outputs are [N, C] (auxiliary ones times the model's `aux_weight`, 1 if
            it has none), else a random projection of the outputs.
        key_map: name of a tensor or module in Jittor -> its name in PyTorch; inferred if missing.
        levels: of `parity.report.LEVELS`, or "all".
        verdicts: "structure" (float64), "numerics" (float32).
        steps: length of the free run of SGD in float64.
        seed: of the random weights, labels and projections.
        title: name for the report.
        optim: module with the update rules that the level "optimizer" judges.
        locate: find the first diverging module of a failing level.
        source, reproduction: how to build both models again, and a folder; what reproduces each first
            divergence is written there.
        device: "cpu", or "cuda": where both run in float32 (the verdict numerics). The truth is computed on
            the CPU, and PyTorch's own errors are measured on the device. TF32 is off.

    Returns:
        A report with errors, floors, budgets and verdicts; `report.passed`. An exception in the
        Jittor model is a failure.

    Raises:
        KeyMapError: the tensors of the two models can be mapped in more than one way. (Tensors that one
            model lacks are a failure of the level "weights".)
        UserError: bad arguments, or a reference that does not run on the inputs.
    """
    for model, framework in ((jittor_model, "jittor"), (torch_model, "torch")):
        if weights.framework(model) != framework:
            raise TypeError(f"a {framework} model is expected, not one of {weights.framework(model)}: "
                            "the Jittor model comes first")
    wanted, verdicts = _levels(levels), _verdicts(verdicts)
    _check_device(device)
    if "optimizer" in wanted:
        models.import_module(optim)  # what it lacks is found out before the work begins
    task = _task(inputs, labels, loss, seed)
    report = Report(title or f"{type(jittor_model).__name__} against {type(torch_model).__name__}")
    report.environment = _environment(task, seed, verdicts, device)
    # Nothing here may move the user's own random numbers.
    with _mode_kept(jittor_model), jt.flag_scope(use_cuda=0), torch.random.fork_rng(devices=[]), \
            _exact_products(device):
        _try_reference(torch_model, task, wanted)
        try:
            pair = make_pair(jittor_model, torch_model, task, key_map, device)
        except keymap.Mismatch as error:
            report.checks.append(Check("structure", "weights", "all", np.inf, np.inf, 0.0, 0.0,
                                       note=str(error)))
            return report
        except UserError:
            raise
        except Exception as error:  # whatever a port may raise: a port that breaks is a finding
            report.checks.append(_raises("structure", error))
            return report
        if "init" in wanted:
            initial.initial(jittor_model, torch_model, pair.names, report)
        _draw(pair, torch_model, seed, wanted, report)
        if checks.conversion(pair, report):
            try:
                _run(pair, report, wanted, verdicts, steps)
                if "optimizer" in wanted:
                    rules.optimizers(pair, report, optim)
                if not report.passed:
                    report.checks = list(map(_explained(pair), report.checks))
                if locate:
                    report.places = _places(pair, report, source, reproduction)
            finally:
                pair.restore()
        if "schedule" in wanted:
            rules.schedules(report)
        if "data" in wanted:
            stream.own_pipeline(report, seed)
    report.checks = [c for c in report.checks if c.level in wanted or not c.passed]
    jt.gc()
    return report


def _draw(pair: Pair, torch_model, seed: int, wanted: set[str], report: Report) -> None:
    """Random weights for the reference where it has constant ones, in a state that can be judged."""
    def draw(shift):
        pair.reference.load_state_dict(torch_model.state_dict())
        randomise(pair.reference, seed, shift)

    draw(0.0)
    pair.random = _is_random(pair.truth(), training=True)
    if not wanted & IN_TRAINING or pair.random:
        return
    backward = bool(wanted & BACKWARD)
    usual = checks.own_error(pair, backward)
    if 8 * usual <= checks.CEILING:  # eight of PyTorch's own errors are a budget
        return
    draw(1.0)
    # Where hardly any ReLU clips, the gradients of a BatchNorm before another one cancel.
    if checks.own_error(pair, backward) < usual:
        report.environment["state"] = ("shifts of fresh BatchNorms around 1: around 0 PyTorch's own float32 "
                                       "is off by more than an eighth of 2^-10, the ceiling of a budget")
    else:
        draw(0.0)


@contextlib.contextmanager
def _mode_kept(jittor_model):
    """Context after which the model is in training or evaluation mode as before."""
    training = jittor_model.is_training()
    try:
        yield
    finally:
        (jittor_model.train if training else jittor_model.eval)()


def assert_parity(jittor_model, torch_model, inputs, **options) -> Report:
    """`check`, raising ParityError with the report if the port differs. Arguments as `check`."""
    report = check(jittor_model, torch_model, inputs, **options)
    if not report.passed:
        raise ParityError(report)
    return report


def _levels(levels) -> set[str]:
    wanted = set(LEVELS if levels == "all" else [levels] if isinstance(levels, str) else levels)
    unknown = sorted(wanted - set(LEVELS) - {"all"})
    if unknown or not wanted:
        raise UserError(f"unknown level {unknown[0] if unknown else ''!r}: use all, "
                        f"{', '.join(LEVELS)}")
    return set(LEVELS) if "all" in wanted else wanted


def _verdicts(verdicts) -> list[str]:
    wanted = [verdicts] if isinstance(verdicts, str) else list(verdicts)
    unknown = [v for v in wanted if v not in VERDICTS]
    if unknown or not wanted:
        raise UserError(f"unknown verdict {unknown[0] if unknown else ''!r}: use "
                        f"{', '.join(VERDICTS)}")
    return wanted


def _task(inputs, labels, loss, seed) -> Task:
    arrays = []
    for value in inputs if isinstance(inputs, (tuple, list)) else (inputs,):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.kind not in "fiub" or array.ndim == 0 or not array.size:
            raise UserError(f"inputs must be arrays of numbers with a batch axis, not {array.dtype} "
                            f"{list(array.shape)}")
        kept = {"f": "float32", "b": "bool"}
        arrays.append(array.astype(kept.get(array.dtype.kind, "int64")))
        if not np.isfinite(arrays[-1]).all():
            raise UserError("an input holds values that are not finite")
    if labels is not None:
        labels = np.asarray(labels)
        if loss is None:
            labels = labels.astype("int64")
            if labels.shape != arrays[0].shape[:1]:
                raise UserError(f"labels must be [{len(arrays[0])}], one for each of the batch, not "
                                f"{list(labels.shape)}")
    elif loss:
        raise UserError("a loss needs labels")
    return Task(tuple(arrays), labels, loss, seed)


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise UserError(f"unknown device {device!r}: use cpu or cuda")
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise UserError("device cuda: this PyTorch sees no usable NVIDIA GPU")
    if not jt.has_cuda:
        raise UserError(f"device cuda: Jittor runs on {jt_models.runtime.device}")
    if os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise UserError("device cuda: set NVIDIA_TF32_OVERRIDE=0 before Python starts; else Jittor's float32 "
                        "convolutions may round to ten bits")


@contextlib.contextmanager
def _exact_products(device: str):
    """Context in which products are float32's own on a GPU: PyTorch takes no TF32, and Jittor, which looks for
    the fastest algorithm of a convolution at run time, none of those that trade digits for it (FFT, Winograd with
    large tiles); these need more workspace than it gets, unless nothing else is there."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    if device == "cuda":
        jt_models.runtime.limit_workspace(2**14)
    try:
        yield
    finally:
        for place, allowed in zip(places, before):
            place.allow_tf32 = allowed
        if device == "cuda":
            jt_models.runtime.limit_workspace()


def _environment(task: Task, seed: int, verdicts: list[str], device: str) -> dict:
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {**environment(("jittor", "torch", "numpy")), "command": command(), **gpu,
            "seed": seed, "device": device, "threads": torch.get_num_threads(),
            "precision": ", ".join(VERDICTS[v] for v in verdicts),
            "inputs": ", ".join(f"{a.dtype} {'x'.join(map(str, a.shape))}" for a in task.inputs)}


def _try_reference(torch_model, task: Task, wanted: set[str]) -> None:
    """Run the reference once in each mode and dtype, and its loss."""
    for dtype in VERDICTS.values():
        side = TorchSide(copy.deepcopy(torch_model).cpu(), dtype, task)
        doing = ""
        try:
            for training, mode in ((False, "evaluation"), (True, "training")):
                doing = f"does not run on these inputs in {mode} mode"
                side.forward(task.cast(dtype), training)
            if wanted & BACKWARD:
                doing = "and its loss do not run backward on these inputs and labels"
                side.gradients(task.cast(dtype))
        except Exception as error:  # whatever a user's model may raise
            raise UserError(f"the PyTorch model {doing}, in {dtype}: {type(error).__name__}: "
                            f"{error}") from error
    if _is_random(side, training=False):
        raise UserError("the PyTorch model gives another output each time it runs in evaluation mode: "
                        "there is nothing to compare with")


def _is_random(side: TorchSide, training: bool) -> bool:
    """Whether the reference gives another output when it runs again, dropout aside."""
    start = side.tensors()
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        side.load(start)
        outputs.append(side.forward(side.task.cast(side.dtype), training))
    return any(not np.array_equal(outputs[0][name], outputs[1][name], equal_nan=True)
               for name in outputs[0])


def _run(pair: Pair, report: Report, wanted: set[str], verdicts: list[str], steps: int) -> None:
    if pair.random:
        for level in sorted(wanted & IN_TRAINING):
            report.skipped[level] = ("the reference is random in training mode, in another way than "
                                     "dropout")
        wanted = wanted - IN_TRAINING
    judges = {"structure": lambda: checks.structure(pair, report, wanted, steps),
              "numerics": lambda: checks.numerics(pair, report, wanted, min(steps, 2))}
    for verdict in verdicts:
        try:
            judges[verdict]()
        except Exception as error:  # as above
            report.checks.append(_raises(verdict, error))


def _raises(verdict: str, error: Exception) -> Check:
    first = next(iter(str(error).strip().splitlines()), "")
    return Check(verdict, "eval", "the model", np.inf, np.inf, 0.0, 0.0,
                 note=f"raises {type(error).__name__}: {first[:300]}")


def _explained(pair: Pair) -> Callable[[Check], Check]:
    """A function that adds to a failure what is known of Jittor."""
    ours = dict(pair.jittor.named_modules())
    biased = {f"{path}.running_var".lstrip(".") for path, mine in pair.modules.items()
              if isinstance(ours[mine], jt.nn.BatchNorm)}

    def explain(check: Check) -> Check:
        if check.passed or check.level != "buffers" or check.tensor.partition(",")[0] not in biased:
            return check
        return dataclasses.replace(check, note="jittor.nn.BatchNorm keeps the biased variance: "
                                   "docs/divergences.md")
    return explain


def _folder_name(title: str, verdict: str) -> str:
    short = re.sub(r"[^\w.-]+", "_", title)[-55:]  # a name has at most 255 bytes, a letter up to four
    return f"{short}-{verdict}"


def _places(pair: Pair, report: Report, source, reproduction) -> list[Place]:
    """Where the failing levels begin: outputs first; gradients only if outputs are right, and buffers
    if gradients are too (those after a step follow from them)."""
    found = []
    for verdict, dtype in VERDICTS.items():
        failing = {c.level: c for c in reversed(report.failures) if c.verdict == verdict}
        level = next((name for name in ("eval", "train", "gradients", "buffers") if name in failing),
                     None)
        if level is None or "raises" in failing[level].note:
            continue
        seen = dataclasses.replace(pair, task=copy.copy(pair.task))
        for factor, shift, suffix in checks.KINDS:
            if suffix and failing[level].tensor.endswith(suffix):
                seen.task.inputs = checks.changed(pair.task.inputs, factor, shift)
        pair.restore()
        rule = BUDGETS[dtype]
        place = first_divergence(seen, dtype, level, rule)
        if place is None:
            found.append(Place(verdict, level, "", False, failing[level]))
        else:
            e = place.error
            folder = ""
            if source and reproduction:
                folder = Path(reproduction) / _folder_name(report.title, verdict)
                write_reproduction(folder, seen, place, dtype, level, source, report.title)
            found.append(Place(verdict, level, place.call.path, place.inside, Check(
                verdict, level, place.tensor, e.e2 / U, e.einf / U, place.floor, rule(place.floor)),
                str(folder)))
    return found
