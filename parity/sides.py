"""One interface to a model of either framework: forward, gradients, one optimizer step.

Arrays go in and come out; a side restores nothing, so a check loads the state that it wants first.
"""
from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field

import numpy as np
import torch

from zoo.heads import aux_weight, heads, total_loss

from . import weights
from .branches import Branches, RecordTorch, ReplayTorch, record_jittor
from .float64 import float64

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


def _named(outputs) -> dict[str, np.ndarray]:
    names = ["output", *(f"auxiliary output {i}" for i in range(1, len(outputs)))]
    return {name: np.array(output.numpy()) for name, output in zip(names, outputs)}


class TorchSide:
    """A torch model, run on a copy, in `dtype` ("float32" or "float64")."""

    def __init__(self, model: torch.nn.Module, dtype: str, rate: float = RATE):
        self.model = copy.deepcopy(model).to(getattr(torch, dtype))
        self.rate = rate
        self.layout = torch.contiguous_format

    def load(self, arrays):
        weights.load(self.model, arrays)

    def forward(self, x, training) -> dict[str, np.ndarray]:
        """Outputs by name: "output", and in training mode those of auxiliary heads."""
        with torch.no_grad():
            return _named(heads(self.model.train(training)(self._tensor(x))))

    def gradients(self, x, y, branches: Branches, replay: bool):
        """Gradients of the cross-entropy by parameter name; that of the input is "input"."""
        mode = ReplayTorch(branches) if replay else RecordTorch(branches)
        leaf = self._tensor(x).requires_grad_()
        self.model.train().zero_grad()
        with mode:
            # A leaf cannot be written to, and a net may begin with an in-place ReLU.
            output = self.model(leaf.clone())
        labels = torch.from_numpy(y)
        total_loss(lambda logits: torch.nn.functional.cross_entropy(logits, labels), output,
                   aux_weight(self.model)).backward()
        found = {name: p.grad.numpy() for name, p in self.model.named_parameters()
                 if p.grad is not None}
        return {**found, "input": leaf.grad.numpy()}

    def buffers(self):
        """Running statistics, as the last pass left them."""
        own = {name for name, _ in self.model.named_buffers()}
        return {name: a for name, a in weights.tensors(self.model).items() if name in own}

    def step(self, state: State, x, y, branches: Branches, replay: bool) -> State:
        """One SGD step from `state`."""
        self.load(state.arrays)
        named = dict(self.model.named_parameters())
        optimizer = torch.optim.SGD(named.values(), self.rate, **SGD)
        for name, buffer in state.momentum.items():
            optimizer.state[named[name]]["momentum_buffer"] = torch.from_numpy(buffer.copy())
        self.gradients(x, y, branches, replay)
        optimizer.step()
        momentum = {name: optimizer.state[p]["momentum_buffer"].numpy().copy()
                    for name, p in named.items() if p.grad is not None}
        return State(weights.tensors(self.model), momentum)

    def _tensor(self, x):
        return torch.from_numpy(x).to(memory_format=self.layout)


class JittorSide:
    """A Jittor model, run in place, in `dtype` ("float32" or "float64").

    Nothing runs in Jittor before it is read, and what is read one by one is computed one by one, in
    part again and again: so each pass runs whole (`sync_all`) before its results are read.
    """

    def __init__(self, model, dtype: str, aux_weight: float, rate: float = RATE):
        self.model = model
        self.dtype = dtype
        self.aux_weight = aux_weight
        self.rate = rate

    @contextlib.contextmanager
    def _flags(self):
        import jittor as jt
        with float64() if self.dtype == "float64" else contextlib.nullcontext():
            yield jt

    def load(self, arrays):
        with self._flags():
            (self.model.float64 if self.dtype == "float64" else self.model.float32)()
            weights.load(self.model, arrays)

    def forward(self, x, training) -> dict[str, np.ndarray]:
        """As TorchSide.forward."""
        from jt_models.layers import set_training
        with self._flags() as jt:
            set_training(self.model, training)
            outputs = heads(self.model(jt.array(x)))
            jt.sync_all(True)
            return _named(outputs)

    def _loss(self, jt, x, y):
        from jt_models.layers import set_training
        from jt_models.losses import cross_entropy
        set_training(self.model)
        leaf, labels = jt.array(x), jt.array(y.astype("int32"))
        return leaf, total_loss(lambda logits: cross_entropy(logits, labels), self.model(leaf),
                                self.aux_weight)

    def gradients(self, x, y, branches: Branches):
        """Gradients of the cross-entropy by parameter name; that of the input is "input"."""
        from jt_models.optim import trainable
        with self._flags() as jt, record_jittor(branches):
            leaf, loss = self._loss(jt, x, y)
            named = {**trainable(self.model), "input": leaf}
            found = jt.grad(loss, list(named.values()))
            jt.sync_all(True)
            return {name: np.array(g.numpy()) for name, g in zip(named, found)}

    def buffers(self):
        """As TorchSide.buffers."""
        from jt_models.optim import trainable
        own = trainable(self.model)
        return {name: a for name, a in weights.tensors(self.model).items() if name not in own}

    def step(self, state: State, x, y, branches: Branches) -> State:
        """One SGD step from `state`, with the optimizer of jt_models.optim."""
        from jt_models.optim import SGD as JittorSGD, trainable
        self.load(state.arrays)
        with self._flags() as jt, record_jittor(branches):
            named = trainable(self.model)
            optimizer = JittorSGD(list(named.values()), self.rate, **SGD)
            buffers = dict(zip(named, optimizer.param_groups[0]["momentum_buffer"]))
            for name, buffer in state.momentum.items():
                buffers[name].update(jt.array(buffer))
            optimizer.steps = 1 if state.momentum else 0
            _, loss = self._loss(jt, x, y)
            optimizer.step(loss)
            jt.sync_all(True)
            momentum = {name: np.array(b.numpy()) for name, b in buffers.items()}
            return State(weights.tensors(self.model), momentum)
