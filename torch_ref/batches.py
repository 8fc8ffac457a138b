"""Executes the batch plan on the device: gather, crop, flip, normalise. The twin of
jt_models/batches.py."""
from __future__ import annotations

import numpy as np
import torch

from training.data import Batch, Data


class Batches:
    """The images of every split on `device`, and the batches made of them.

    Args:
        size: pixels a side of the network's input; larger images are made of smaller ones by
            bilinear interpolation.
        layout: memory layout of the batches.
    """

    def __init__(self, data: Data, size: int, device: str | torch.device = "cpu",
                 layout: torch.memory_format = torch.contiguous_format):
        self.size, self.device, self.layout = size, device, layout
        self.table = self._put(data.table())
        self.splits = {name: (self._put(split.images), self._put(split.labels).long())
                       for name, split in data.splits.items()}

    def _put(self, array: np.ndarray):
        return torch.from_numpy(array).to(self.device)

    def __call__(self, split: str, batch: Batch):
        """Input float32 [B, C, size, size] and labels int64 [B]; bit by bit as `training.data.apply`,
        unless it enlarges."""
        images, labels = self.splits[split]
        channels, size = images.shape[1], images.shape[-1]
        index = self._put(batch.indices)
        rows, columns = self._put(batch.rows)[:, :, None].long(), self._put(batch.columns)[:, None].long()
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        places = rows.clamp(0, size - 1) * size + columns.clamp(0, size - 1)
        # By flat places: indexing by several tensors takes three to four times as long.
        places = places.flatten(1)[:, None].expand(-1, channels, -1)
        pixels = images.index_select(0, index).flatten(2).gather(2, places) * inside.flatten(1)[:, None]
        x = self.table.expand(len(index), -1, -1).gather(2, pixels.long()).unflatten(2, (size, size))
        if batch.cut:
            hidden_rows, hidden_columns = map(self._put, batch.cut)
            hidden = hidden_rows[:, None, :, None] & hidden_columns[:, None, None, :]
            x = x.masked_fill(hidden, 0)
        if batch.mix != 1:
            x = x * batch.mix + x.flip(0) * (1 - batch.mix)
        if self.size != size:
            x = torch.nn.functional.interpolate(x, (self.size, self.size), mode="bilinear",
                                                align_corners=False)
        return x.contiguous(memory_format=self.layout), labels.index_select(0, index)
