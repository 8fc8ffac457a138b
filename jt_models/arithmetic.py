"""Constants and sums of Vars that keep the digits of their dtype; the size of what a convolution makes."""
from __future__ import annotations

import numpy as np

import jittor as jt


def constant(value: float, like: jt.Var):
    """`value` as an operand for `like`: a float64 Var of one element beside float64, else itself."""
    if like.dtype == "float64":
        return jt.array64(np.array([value], "float64"))
    return value


def total(x: jt.Var, axes):
    """Sum over these axes, in ascending order, one after the other: all at once Jittor adds value by value,
    which loses digits."""
    for axis in reversed(axes):
        x = x.sum(axis)
    return x


def spread(v: jt.Var, x: jt.Var):
    """v [C] as large as x [N, C, ...]; its gradient is summed as `total` does."""
    if jt.flags.no_grad:  # one broadcast is a tenth of an evaluation faster
        return v.broadcast(x.shape, [axis for axis in range(x.ndim) if axis != 1])
    for axis in range(x.ndim):
        if axis != 1:
            v = v.broadcast(x.shape[:max(axis + 1, 2)], [axis])
    return v


def like(x, g):
    """A gradient in x.dtype: that of a float64 Var times a float32 one is float32."""
    return g if g.dtype == x.dtype else g.cast(x.dtype)


def convolved(sides, kernel, stride, padding, dilation=(1, 1)) -> list[int]:
    """Height and width after a convolution, from those before."""
    return [(side + 2 * p - d * (k - 1) - 1) // step + 1
            for side, k, step, p, d in zip(sides, kernel, stride, padding, dilation)]
