"""Bilinear resizing with PyTorch's semantics; `jt_models.layers` exports it."""
from __future__ import annotations

import numpy as np

import jittor as jt
from jittor.nn import Module


def _taps(size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """The two source pixels of each of `out` pixels, and their weights: int32 and float64
    [out, 2]."""
    centre = np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0)
    first = centre.astype("int32")
    second = np.minimum(first + 1, size - 1)
    right = centre - first
    return np.stack([first, second], 1).astype("int32"), np.stack([1 - right, right], 1)


def interpolate(x, size, mode="bilinear", align_corners=False):
    """Resize [N, C, H, W] to `size` (an int, or height and width) as torch does.

    Raises:
        ValueError: another mode, or align_corners.
    """
    if mode != "bilinear" or align_corners:
        raise ValueError(f"only mode='bilinear' with align_corners=False, not {mode!r} with "
                         f"align_corners={align_corners}")
    n, c, h, w = x.shape
    oh, ow = size if isinstance(size, (tuple, list)) else (size, size)
    (rows, down), (columns, across) = _taps(h, oh), _taps(w, ow)
    pixels = x.reindex([n, c, oh, ow, 2, 2], ["i0", "i1", "@e0(i2,i4)", "@e1(i3,i5)"],
                       extras=[jt.array(rows), jt.array(columns)])
    weights = jt.array64(down[:, None, :, None] * across[None, :, None, :]).cast(x.dtype)
    return (pixels * weights.broadcast(pixels.shape, [0, 1])).sum([4, 5])


class Upsample(Module):
    """`interpolate` by a whole factor, as a module."""

    def __init__(self, scale_factor, mode="bilinear", align_corners=False):
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners

    def execute(self, x):
        h, w = x.shape[2:]
        return interpolate(x, (h * self.scale_factor, w * self.scale_factor), self.mode,
                           self.align_corners)
