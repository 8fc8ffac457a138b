"""One interface to a model of either framework: forward, gradients, one optimizer step.

Arrays go in and come out, under the names of the PyTorch model; a side restores nothing, so a check
loads the state that it wants first.
"""
from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field

import numpy as np
import torch

from zoo.heads import aux_weight

from . import weights
from .branches import Branches, RecordTorch, ReplayTorch, module_paths, record_jittor
from .float64 import float64
from .noise import Noise, TorchDropout, jittor_dropout
from .products import by_blas
from .task import Task, leaves

RATE = 0.01
SGD = {"momentum": 0.9, "weight_decay": 5e-4}


@dataclass
class State:
    """Everything that a training step starts from.

    Attributes:
        arrays: parameters and buffers by name.
        momentum: momentum buffer by parameter name; empty before the first step.
    """
    arrays: dict[str, np.ndarray]
    momentum: dict[str, np.ndarray] = field(default_factory=dict)

    def cast(self, dtype: str) -> State:
        return State(*({name: a.astype(dtype) if a.dtype.kind == "f" else a
                        for name, a in d.items()} for d in (self.arrays, self.momentum)))


@contextlib.contextmanager
def default_dtype(dtype: str):
    """Context in which what a torch model makes itself, such as `torch.zeros`, has this dtype."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


class TorchSide:
    """A torch model, run on a copy, in `dtype` ("float32" or "float64") on `device` ("cpu" or "cuda")."""

    def __init__(self, model: torch.nn.Module, dtype: str, task: Task, rate: float = RATE,
                 device: str = "cpu"):
        self.model = copy.deepcopy(model).to(device, getattr(torch, dtype))
        self.dtype = dtype
        self.device = device
        self.task = task
        self.rate = rate
        self.layout = torch.contiguous_format

    def load(self, arrays):
        weights.load(self.model, arrays)

    def forward(self, inputs, training) -> dict[str, np.ndarray]:
        """Outputs by name (see `task.leaves`)."""
        with default_dtype(self.dtype), torch.no_grad(), TorchDropout(Noise(self.task.seed)):
            # A copy: a net may begin with an in-place ReLU.
            found = leaves(self.model.train(training)(*(self._tensor(a).clone() for a in inputs)))
        return {name: t.cpu().numpy().copy() for name, t in found.items()}

    def gradients(self, inputs, branches: Branches | None = None, replay: bool = False):
        """Gradients of the task's loss by parameter name; those of the inputs are "input". The branches
        are recorded, or replayed."""
        arguments = [self._tensor(a) for a in inputs]
        names = self.task.input_names()
        inner = {name: t.requires_grad_() for name, t in zip(names, arguments)
                 if t.is_floating_point()}
        self.model.train().zero_grad()
        with module_paths(self.model) as running:
            mode = (contextlib.nullcontext() if branches is None else
                    ReplayTorch(branches, running) if replay else RecordTorch(branches))
            # Also where a surrounding pass computes no gradients.
            with default_dtype(self.dtype), torch.enable_grad(), \
                    TorchDropout(Noise(self.task.seed)), mode:
                # A leaf cannot be written to, and a net may begin with an in-place ReLU.
                output = self.model(*(t.clone() for t in arguments))
        with torch.enable_grad():
            self.loss(output).backward()
        found = {**dict(self.model.named_parameters()), **inner}
        return {name: t.grad.cpu().numpy() for name, t in found.items() if t.grad is not None}

    def loss(self, output):
        """The task's loss as a scalar tensor."""
        if self.task.loss:
            return self.task.loss[1](output, torch.from_numpy(self.task.labels).to(self.device))
        return self.task.total(
            output, lambda logits, y: torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(y).to(self.device)),
            lambda array, like: torch.from_numpy(array).to(like), aux_weight(self.model))

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and buffers, as the last pass left them."""
        return weights.tensors(self.model)

    def step(self, state: State, inputs, branches: Branches | None = None, replay: bool = False,
             count: int = 1) -> State:
        """`count` steps of SGD from `state`; one, if branches are recorded or replayed."""
        self.load(state.arrays)
        optimizer = self._optimizer(state.momentum)
        for _ in range(count):
            self.gradients(inputs, branches, replay)
            optimizer.step()
        return self._state(optimizer)

    def update(self, momentum: dict[str, np.ndarray]) -> State:
        """One step of SGD from the weights of the model and this momentum, with the gradients of the last
        pass."""
        optimizer = self._optimizer(momentum)
        optimizer.step()
        return self._state(optimizer)

    def _optimizer(self, momentum) -> torch.optim.SGD:
        named = dict(self.model.named_parameters())
        optimizer = torch.optim.SGD(named.values(), self.rate, **SGD)
        for name, buffer in momentum.items():
            value = torch.from_numpy(buffer.astype(self.dtype)).to(self.device)
            optimizer.state[named[name]]["momentum_buffer"] = value
        return optimizer

    def _state(self, optimizer) -> State:
        momentum = {name: optimizer.state[p]["momentum_buffer"].cpu().numpy()
                    for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad()  # as large as the model
        return State(self.tensors(), momentum)

    def _tensor(self, array):
        tensor = torch.from_numpy(array).to(self.device)
        return tensor.to(memory_format=self.layout) if tensor.ndim == 4 else tensor


class JittorSide:
    """A Jittor model, run in place, in `dtype` ("float32" or "float64") on `device` ("cpu" or "cuda").

    Nothing runs in Jittor before it is read, and what is read one by one is computed one by one, in
    part again and again: so each pass runs whole (`sync_all`) before its results are read.

    Args:
        names: name of each tensor in the Jittor model -> its name in the PyTorch model.
        trained: names, in the PyTorch model, of its parameters (the others are buffers).

    Attributes:
        blas: whether float64 convolutions are BLAS products instead of Jittor's plain loops.
        idle: parameters that receive no gradient in PyTorch, whose optimizers leave them as they are;
            Jittor's would decay them.
    """

    def __init__(self, model, dtype: str, task: Task, names: dict[str, str], trained: set[str],
                 rate: float = RATE, device: str = "cpu"):
        self.model = model
        self.dtype = dtype
        self.device = device
        self.task = task
        self.names = names
        self.trained = trained
        self.rate = rate
        self.blas = False
        self.idle: set[str] = set()

    @contextlib.contextmanager
    def running(self):
        """Context that gives jittor, with the flags that the dtype needs."""
        import jittor as jt
        with contextlib.ExitStack() as stack:
            if self.device == "cuda":
                stack.enter_context(jt.flag_scope(use_cuda=1))
            if self.dtype == "float64":
                stack.enter_context(float64())
            if self.blas:
                stack.enter_context(by_blas())
            yield jt

    def load(self, arrays):
        """Put `arrays` (by PyTorch's names) into the model; what the names leave out stays."""
        with self.running():
            (self.model.float64 if self.dtype == "float64" else self.model.float32)()
            own = {} if set(weights.names(self.model)) <= set(self.names) else weights.tensors(self.model)
            weights.load(self.model, {**own, **{mine: arrays[theirs] for mine, theirs
                                                in self.names.items() if theirs in arrays}})

    def tensors(self) -> dict[str, np.ndarray]:
        """As TorchSide.tensors."""
        found = weights.tensors(self.model)
        return {theirs: found[mine] for mine, theirs in self.names.items() if mine in found}

    def parameters(self) -> dict:
        """Var of each parameter by PyTorch's name, in PyTorch's sense: no running statistics."""
        return {self.names[mine]: var for mine, var in weights.variables(self.model).items()
                if self.names.get(mine) in self.trained}

    def forward(self, inputs, training) -> dict[str, np.ndarray]:
        """As TorchSide.forward."""
        from jt_models.layers import set_training
        with self.running() as jt, jittor_dropout(Noise(self.task.seed)):
            set_training(self.model, training)
            outputs = leaves(self.model(*map(jt.array, inputs)))
            jt.sync_all(True)
            return {name: np.array(var.numpy()) for name, var in outputs.items()}

    def _loss(self, jt, inputs):
        from jt_models.layers import set_training
        from jt_models.losses import cross_entropy
        set_training(self.model)
        arguments = [jt.array(a) for a in inputs]
        output = self.model(*arguments)
        if self.task.loss:
            loss = self.task.loss[0](output, jt.array(self.task.labels))
        else:
            loss = self.task.total(
                output, lambda logits, y: cross_entropy(logits, jt.array(y.astype("int32"))),
                lambda array, like: jt.array(array).cast(like.dtype), aux_weight(self.model))
        return {name: var for name, var in zip(self.task.input_names(), arguments)
                if var.dtype.is_float()}, loss

    @staticmethod
    def _recording(branches: Branches | None):
        return contextlib.nullcontext() if branches is None else record_jittor(branches)

    def gradients(self, inputs, branches: Branches | None = None):
        """As TorchSide.gradients."""
        with self.running() as jt, jittor_dropout(Noise(self.task.seed)), self._recording(branches):
            leaf, loss = self._loss(jt, inputs)
            named = {**self.parameters(), **leaf}
            found = jt.grad(loss, list(named.values()))
            jt.sync_all(True)
            return {name: np.array(g.numpy()) for name, g in zip(named, found)}

    def step(self, state: State, inputs, branches: Branches | None = None, count: int = 1) -> State:
        """As TorchSide.step, with the optimizer of jt_models.optim."""
        from jt_models.optim import SGD as JittorSGD
        self.load(state.arrays)
        with self.running() as jt:
            named = {name: p for name, p in self.parameters().items() if name not in self.idle}
            optimizer = JittorSGD(list(named.values()), self.rate, **SGD)
            buffers = dict(zip(named, optimizer.param_groups[0]["momentum_buffer"]))
            for name, buffer in state.momentum.items():
                buffers[name].update(jt.array(buffer.reshape(buffers[name].shape)))
            optimizer.steps = 1 if state.momentum else 0
            for _ in range(count):
                with jittor_dropout(Noise(self.task.seed)), self._recording(branches):
                    _, loss = self._loss(jt, inputs)
                    optimizer.step(loss)
                    jt.sync_all(True)
            momentum = {name: np.array(b.numpy()) for name, b in buffers.items()}
            return State(self.tensors(), momentum)
