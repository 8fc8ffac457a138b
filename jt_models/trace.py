"""Traces a net: every module call with its output shape, parameters and MACs, computing nothing
(Jittor knows all shapes before it runs anything)."""
from __future__ import annotations

import jittor as jt

from zoo.summary import Row, macs

from .layers import set_training
from .optim import trainable


def trace(model: jt.nn.Module, channels: int, size: int) -> list[Row]:
    """Rows of every module call for one image of [channels, size, size], in order of execution
    (a container comes after what it contains). The model is left as it was."""
    training = model.training
    rows, seen = [], set()
    params = trainable(model)

    def hook(name):
        def record(module, inputs, output):
            own = 0 if id(module) in seen else sum(
                p.numel() for path, p in params.items() if path.rpartition(".")[0] == name)
            seen.add(id(module))
            shape = tuple(output.shape[1:])
            rows.append(Row(name, type(module).__name__, module, shape, own,
                            macs(module, shape), not module.children()))
        return record

    named = dict(model.named_modules())
    for name, module in named.items():
        module.register_forward_hook(hook(name))
    try:
        set_training(model, False)
        model(jt.zeros((1, channels, size, size)))
    finally:
        set_training(model, training)
        for module in named.values():
            module.remove_forward_hook()
    return rows
