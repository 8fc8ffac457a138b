"""Executes the batch plan on the device: gather, crop, flip, normalise. The twin of
torch_ref/batches.py."""
from __future__ import annotations

import jittor as jt

from training.data import Batch, Data

from .layers import interpolate

# Two lookups a pixel, row by row. What Jittor generates for them are two passes over the batch, which check all of
# their places.
_ROWS = """
    const int64_t channels = in0_shape1, height = in0_shape2, width = in0_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < in1->num; n++) {
        const auto *rows = in2_p + n * height, *columns = in3_p + n * width;
        auto* x = out0_p + n * channels * height * width;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < height; i++) {
                const bool inside = rows[i] >= 0 && rows[i] < height;
                const auto *row = in0_p + ((in1_p[n] * channels + c) * height + (inside ? rows[i] : 0)) * width;
                const auto *table = in4_p + c * 256;
                for (int64_t j = 0; j < width; j++)
                    *x++ = table[inside && columns[j] >= 0 && columns[j] < width ? row[columns[j]] : 0];
            }
    }
"""


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
        places = index, rows, columns = [jt.array(part) for part in (batch.indices, batch.rows, batch.columns)]
        shape = [len(batch.indices), *images.shape[1:]]
        if jt.flags.use_cuda:
            pixels = images.reindex(shape, ["@e0(i0)", "i1", "@e1(i0,i2)", "@e2(i0,i3)"], extras=places, overflow_value=0)
            x = self.table.reindex(shape, ["i1", "@e0(i0,i1,i2,i3)"], extras=[pixels])
        else:
            x = jt.code(shape, self.table.dtype, [images, *places, self.table], cpu_src=_ROWS)
        if batch.cut:
            hidden_rows, hidden_columns = map(jt.array, batch.cut)
            hidden = hidden_rows.broadcast(shape, [1, 3]) & hidden_columns.broadcast(shape, [1, 2])
            x = jt.ternary(hidden, jt.zeros(shape), x)
        if batch.mix != 1:
            x = x * batch.mix + x.flip(0) * (1 - batch.mix)
        if self.size != shape[-1]:
            x = interpolate(x, size=(self.size, self.size))
        return x, labels[index]
