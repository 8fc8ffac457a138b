"""The same random numbers for the dropout of both frameworks.

Dropout makes a training pass random, so two right models differ. Here PyTorch's dropout takes its
mask from a numbered stream of uniform noise, and Jittor's `random` returns the same numbers: what
Jittor makes of them (the mask, the scale) is its own and is judged.
"""
from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

PLANES = {F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}  # number of axes that fall together


class Noise:
    """A stream of float32 arrays in [0, 1), each known by its seed, its number and its shape."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.count = 0

    def next(self, shape) -> np.ndarray:
        self.count += 1
        rng = np.random.default_rng((self.seed, self.count))
        return rng.random(int(np.prod(shape)), "float32").reshape(tuple(shape))


class TorchDropout(TorchFunctionMode):
    """Context in which dropout masks come from `noise`: kept where it is at least p."""

    def __init__(self, noise: Noise):
        super().__init__()
        self.noise = noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.dropout or func in PLANES:
            given = {**dict(zip(("input", "p", "training", "inplace"), args)), **kwargs}
            x, p = given["input"], given.get("p", 0.5)
            # F.dropout trains by default, as do the plane-wise ones.
            if not given.get("training", True) or not 0 < p < 1:
                return func(*args, **kwargs)
            axes = PLANES.get(func, 0)
            shape = x.shape[:-axes] if axes else x.shape
            mask = torch.from_numpy(self.noise.next(shape) >= p).reshape(*shape, *[1] * axes)
            return x * mask.to(x) / (1 - p)
        return func(*args, **kwargs)


@contextlib.contextmanager
def jittor_dropout(noise: Noise):
    """Context in which `jt.random` and `jt.rand` give the numbers of `noise`."""
    import jittor as jt
    usual = jt.random, jt.rand

    def random(shape, dtype="float32", type="uniform"):
        if type != "uniform":
            return usual[0](shape, dtype, type)
        return jt.array(noise.next(shape))

    def rand(*size, **options):
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        return random(shape)

    jt.random, jt.rand = random, rand
    try:
        yield
    finally:
        jt.random, jt.rand = usual
