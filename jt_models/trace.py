"""Traces a net: every module call with its output shape, parameters and MACs, computing nothing
(Jittor knows all shapes before it runs anything)."""
from __future__ import annotations

import jittor as jt

from zoo.summary import Row, macs

from .layers import set_training
from .optim import trainable


def trace(model: jt.nn.Module, channels: int, size: int) -> list[Row]:
    """Rows of every module call for one image of [channels, size, size], in order of execution
    (a container comes after what it contains), then of the layers that were not called. The model
    is left as it was."""
    training = model.training
    rows, seen = [], set()
    named = dict(model.named_modules())
    sizes = dict.fromkeys(named, 0)
    for path, p in trainable(model).items():
        sizes[path.rpartition(".")[0]] += p.numel()

    def hook(name):
        def record(module, inputs, output):
            shape = tuple(output.shape[1:])
            rows.append(Row(name, type(module).__name__, module, shape,
                            0 if id(module) in seen else sizes[name],
                            macs(module, shape), not module.children()))
            seen.add(id(module))
        return record

    for name, module in named.items():
        module.register_forward_hook(hook(name))
    try:
        set_training(model, False)
        model(jt.zeros((1, channels, size, size)))
    finally:
        set_training(model, training)
        for module in named.values():
            module.remove_forward_hook()
    return rows + [Row(name, type(module).__name__, module, None, sizes[name], 0, True)
                   for name, module in named.items() if id(module) not in seen and sizes[name]]
