"""A Jittor model and its PyTorch reference, made ready to be compared."""
from __future__ import annotations

import contextlib
import copy
import math
from dataclasses import dataclass
from functools import cached_property
from unittest import mock

import numpy as np
import torch

from . import keymap, weights
from .sides import JittorSide, State, TorchSide
from .task import Task
from .truth import error


def randomise(model: torch.nn.Module, seed: int, shift: float = 0.0) -> None:
    """Give a torch model a state that hides nothing: wherever a BatchNorm's statistics or a parameter
    are constant (as in a fresh net: scale 1, shift 0, mean 0, variance 1), random ones. Trained
    values stay, and so do single numbers and parameters that are not trained.

    The scale that ends a bottleneck (`bn3`, as torchvision calls it) is a fifth of the others: residual
    branches at full size make 50 blocks too steep for any comparison (resnet152: 4e-11 in float64 for
    an input moved by one unit in the last place); at a fifth, as in a trained net, 1e-13.

    Args:
        shift: mean of BatchNorm's shifts. At 0 the gradients of ReLUs after BatchNorm, and rounding errors
            with them, grow by about 1.2 a layer (Yang et al. 2019, arXiv:1902.08129); at 1, where most
            units are positive, hardly (plain56_cifar: 105,550 u become 406 u).
    """
    last = {id(module.bn3) for module in model.modules() if hasattr(module, "bn3")}
    # So that units of every layer reach the upper bound.
    most = 2.5 if any(isinstance(module, torch.nn.ReLU6) for module in model.modules()) else 1.5
    generator = torch.Generator().manual_seed(seed)

    def fresh(tensor):
        return tensor is not None and bool((tensor == tensor.flatten()[0]).all())

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._NormBase):
                if fresh(module.weight):
                    module.weight.uniform_(0.5, most, generator=generator)
                    if id(module) in last:
                        module.weight.mul_(0.2)
                if fresh(module.running_mean) and fresh(module.running_var):
                    module.running_mean.normal_(0, 0.2, generator=generator)
                    module.running_var.uniform_(0.5, 2, generator=generator)
                    module.num_batches_tracked.fill_(3)
            bias = getattr(module, "bias", None)
            if isinstance(bias, torch.nn.Parameter) and fresh(bias):
                norm = isinstance(module, torch.nn.modules.batchnorm._NormBase)
                bias.normal_(shift if norm else 0, 0.1, generator=generator)
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad and parameter.numel() > 1 and fresh(parameter):
                    value = float(parameter.flatten()[0])
                    if value:  # a layer scale may start at 1e-6, which hides what it scales
                        parameter.uniform_(0.5, 1.5, generator=generator).mul_(
                            math.copysign(max(abs(value), 0.1), value))
                    else:
                        parameter.normal_(0, 0.1, generator=generator)


@dataclass
class Pair:
    """Both models, the map between their tensors, and what they are run on.

    Attributes:
        jittor: the Jittor model; it is run in place.
        reference: a torch model whose weights both sides get; only copies of it are run.
        task: inputs and loss.
        names: name in the Jittor model -> name in the PyTorch model.
        doubt: what else the names might be, if they were inferred from the outputs.
        random: whether the reference is random in training mode in another way than dropout.
        device: on which both run in float32; the truth, and all of float64, is the CPU's.
    """
    jittor: object
    reference: torch.nn.Module
    task: Task
    names: dict[str, str]
    doubt: str = ""
    random: bool = False
    device: str = "cpu"

    @property
    def trained(self) -> set[str]:
        """Names of the reference's parameters."""
        return {name for name, _ in self.reference.named_parameters()}

    @property
    def start(self) -> State:
        """The reference's weights."""
        return State(weights.tensors(self.reference))

    def truth(self, dtype: str = "float64") -> TorchSide:
        return TorchSide(self.reference, dtype, self.task, device=self._device(dtype))

    def port(self, dtype: str) -> JittorSide:
        return JittorSide(self.jittor, dtype, self.task, self.names, self.trained,
                          device=self._device(dtype))

    def _device(self, dtype: str) -> str:
        return self.device if dtype == "float32" else "cpu"

    def buffers(self, arrays: dict) -> dict:
        """Those of `arrays` that are buffers of both models. (Jittor's own BatchNorm does not count
        its batches.)"""
        stored = {name for name, _ in self.reference.named_buffers(remove_duplicate=False)}
        both = stored & set(self.names.values())
        return {name: a for name, a in arrays.items() if name in both}

    def one_sided(self) -> list[str]:
        """Names of the tensors that the map leaves out, batch counters aside."""
        known = {*self.names, *self.names.values()}
        return [name for model in (self.jittor, self.reference) for name in keymap.shapes(model)
                if name not in known]

    def restore(self) -> None:
        """Leave the Jittor model in float32, with the reference's weights."""
        self.port("float32").load(self.start.arrays)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Path of each PyTorch module that has a counterpart -> path of the Jittor module.

        A module with tensors goes where all of them go. One without (a ReLU, a pool) has the same name
        below the counterpart of its parent.
        """
        ours = {name for name, _ in self.jittor.named_modules()}
        found = {"": ""}
        for name, _ in self.reference.named_modules():
            below = f"{name}."
            mine = [(key, target[len(below):]) for key, target in self.names.items()
                    if target.startswith(below)]
            parent, _, last = name.rpartition(".")
            if mine:
                # The part of the Jittor name that is left when what is below is taken away: layer by
                # layer, since names below may differ too.
                prefixes = {".".join(key.split(".")[:max(0, len(key.split(".")) - rest.count(".") - 1)])
                            for key, rest in mine}
                complete = len(prefixes) == 1 and len(mine) == sum(
                    key.startswith(f"{next(iter(prefixes))}.") for key in self.names)
                if complete and prefixes <= ours:
                    found[name] = prefixes.pop()
            elif parent in found and f"{found[parent]}.{last}".lstrip(".") in ours:
                found[name] = f"{found[parent]}.{last}".lstrip(".")
        return found

    @cached_property
    def _jittor_modules(self) -> dict:
        return dict(self.jittor.named_modules())

    def part(self, path: str, inputs: tuple[np.ndarray, ...]) -> Pair:
        """The pair of modules at `path` (of the PyTorch model; it must be in `modules`)."""
        mine = self.modules[path]
        theirs, ours = (f"{p}." if p else "" for p in (path, mine))
        names = {key[len(ours):]: target[len(theirs):] for key, target in self.names.items()
                 if target.startswith(theirs)}
        return Pair(self._jittor_modules[mine], self.reference.get_submodule(path),
                    Task(inputs, seed=self.task.seed), names, device=self.device)


def make_pair(jittor_model, torch_model: torch.nn.Module, task: Task,
              key_map: dict[str, str] | None = None, device: str = "cpu") -> Pair:
    """A pair of whole models; the reference is a copy of `torch_model`, in float32 on the CPU.

    Args:
        key_map: name in the Jittor model -> name in the PyTorch model, or module paths; None: the
            names are equal, or the map is inferred (see `keymap.infer`).

    Raises:
        KeyMapError: the tensors cannot be mapped, or in more than one way.
    """
    jittor_model.train()  # undoes the freeze of an earlier eval()
    pair = Pair(jittor_model, copy.deepcopy(torch_model).cpu().float(), task, {}, device=device)
    if key_map is not None:
        pair.names = keymap.check(jittor_model, pair.reference, key_map)
    else:
        pair.names, pair.doubt = keymap.infer(jittor_model, pair.reference,
                                              lambda names: _distance(pair, names), lambda: _calls(pair))
    return pair


def _distance(pair: Pair, names: dict[str, str]) -> float:
    """Relative distance of the evaluation outputs under a map."""
    moved = Pair(pair.jittor, copy.deepcopy(pair.reference), pair.task, names)
    randomise(moved.reference, 0)
    inputs, start = pair.task.cast("float64"), moved.start.cast("float64").arrays
    port, truth = moved.port("float64"), moved.truth()
    try:
        for side in (port, truth):
            side.load(start)
        got, expected = port.forward(inputs, False), truth.forward(inputs, False)
    finally:
        pair.jittor.float32()
    if list(got) != list(expected):
        return float("inf")
    return max(error(got[name], t).worst for name, t in expected.items())


def _calls(pair: Pair) -> tuple[list[str], list[str]]:
    """Paths of the modules in the order in which they are called, in evaluation mode."""
    import jittor as jt
    from jt_models.layers import set_training
    theirs: list[str] = []
    side = pair.truth("float32")
    for name, module in side.model.named_modules():
        module.register_forward_hook(lambda *_, name=name: theirs.append(name))
    side.forward(pair.task.cast("float32"), False)
    ours: list[str] = []
    with watched(pair.jittor, ours.append):
        set_training(pair.jittor, False)
        pair.jittor(*map(jt.array, pair.task.cast("float32")))  # lazy: nothing is computed
    set_training(pair.jittor)
    return ours, theirs


@contextlib.contextmanager
def watched(model, see):
    """Context in which `see(path)` hears of every call of a module of a Jittor model, at its end.

    Not by Jittor's forward hooks: there is one per module, which the user may need, and it stays in
    the class.
    """
    def heard(name, usual):
        def execute(*inputs, **options):
            output = usual(*inputs, **options)
            see(name)
            return output
        return execute

    with contextlib.ExitStack() as stack:
        known = set()
        for name, module in model.named_modules():
            if id(module) in known:  # shared: PyTorch, too, knows its first path only
                continue
            known.add(id(module))
            stack.enter_context(mock.patch.object(module, "execute", heard(name, module.execute)))
        yield
