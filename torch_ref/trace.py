"""Traces a net: every module call with its output shape, parameters and MACs, computing nothing."""
from __future__ import annotations

import copy

import torch

from zoo.summary import Row, macs


def trace(model: torch.nn.Module, channels: int, size: int) -> list[Row]:
    """Rows of every module call for one image of [channels, size, size], in order of execution
    (a container comes after what it contains), then of the layers that were not called."""
    model = copy.deepcopy(model).to("meta").eval()
    rows, seen = [], set()

    def own_size(module):
        return sum(p.numel() for p in module.parameters(recurse=False))

    def hook(name):
        def record(module, inputs, output):
            shape = tuple(output.shape[1:])
            rows.append(Row(name, type(module).__name__, module, shape,
                            0 if module in seen else own_size(module),
                            macs(module, shape), not list(module.children())))
            seen.add(module)
        return record

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    with torch.no_grad():
        model(torch.empty(1, channels, size, size, device="meta"))
    return rows + [Row(name, type(module).__name__, module, None, own_size(module), 0, True)
                   for name, module in model.named_modules()
                   if module not in seen and own_size(module)]
