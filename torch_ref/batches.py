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
    """

    def __init__(self, data: Data, size: int, device: str | torch.device = "cpu"):
        self.size, self.device = size, device
        self.table = self._put(data.table())
        self.channel = torch.arange(data.in_channels, device=device)[None, :, None, None]
        self.splits = {name: (self._put(split.images), self._put(split.labels).long())
                       for name, split in data.splits.items()}

    def _put(self, array: np.ndarray):
        return torch.from_numpy(array).to(self.device)

    def __call__(self, split: str, batch: Batch):
        """Input float32 [B, C, size, size] and labels int64 [B]; bit by bit as `training.data.apply`,
        unless it enlarges."""
        images, labels = self.splits[split]
        size = images.shape[-1]
        index = self._put(batch.indices).long()
        rows = self._put(batch.rows)[:, None, :, None].long()
        columns = self._put(batch.columns)[:, None, None, :].long()
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        pixels = images[index[:, None, None, None], self.channel,
                        rows.clamp(0, size - 1), columns.clamp(0, size - 1)]
        x = self.table[self.channel, (pixels * inside).long()]
        if self.size != size:
            x = torch.nn.functional.interpolate(x, (self.size, self.size), mode="bilinear",
                                                align_corners=False)
        return x, labels[index]
