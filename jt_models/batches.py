"""Executes the batch plan on the device: gather, crop, flip, normalise. The twin of
torch_ref/batches.py."""
from __future__ import annotations

import jittor as jt

from training.data import Batch, Data

from .layers import interpolate


class Batches:
    """The images of every split on Jittor's device, and the batches made of them.

    Args:
        size: pixels a side of the network's input; larger images are made of smaller ones by
            bilinear interpolation.
    """

    def __init__(self, data: Data, size: int):
        self.size = size
        self.table = jt.array(data.table())
        self.splits = {name: (jt.array(split.images), jt.array(split.labels))
                       for name, split in data.splits.items()}

    def __call__(self, split: str, batch: Batch):
        """Input float32 [B, C, size, size] and labels int32 [B]; bit by bit as `training.data.apply`,
        unless it enlarges."""
        images, labels = self.splits[split]
        index, rows, columns = map(jt.array, (batch.indices, batch.rows, batch.columns))
        shape = [len(batch.indices), *images.shape[1:]]
        pixels = images.reindex(shape, ["@e0(i0)", "i1", "@e1(i0,i2)", "@e2(i0,i3)"],
                                extras=[index, rows, columns], overflow_value=0)
        x = self.table.reindex(shape, ["i1", "@e0(i0,i1,i2,i3)"], extras=[pixels])
        if batch.cut:
            hidden_rows, hidden_columns = map(jt.array, batch.cut)
            hidden = hidden_rows.broadcast(shape, [1, 3]) & hidden_columns.broadcast(shape, [1, 2])
            x = jt.ternary(hidden, jt.zeros(shape), x)
        if batch.mix != 1:
            x = x * batch.mix + x.flip(0) * (1 - batch.mix)
        if self.size != shape[-1]:
            x = interpolate(x, size=(self.size, self.size))
        return x, labels[index]
