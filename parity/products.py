"""Convolutions and matrix products in float64 for Jittor, by NumPy's BLAS.

oneDNN, which Jittor uses, knows float32 only; without it Jittor runs plain loops, at 0.4 billion
products a second and core. Twenty steps of VGG-19 take them five minutes, and these half a minute.
"""
from __future__ import annotations

import contextlib
from unittest import mock


# `np` is what Jittor passes: NumPy.
def _multiply(np, data):
    a, b = data["inputs"]
    np.matmul(a, b, out=data["outputs"][0])


def _to_left(np, data):
    b = data["inputs"][1]
    np.matmul(data["dout"], b.swapaxes(-1, -2), out=data["outputs"][0])


def _to_right(np, data):
    a = data["inputs"][0]
    np.matmul(a.swapaxes(-1, -2), data["dout"], out=data["outputs"][0])


def product(a, b):
    """Matrix products of Vars [..., n, m] and [..., m, k] of equal leading axes, float64."""
    import jittor as jt
    return jt.numpy_code([*a.shape[:-1], b.shape[-1]], "float64", [a, b], _multiply,
                         [_to_left, _to_right])


def convolution(x, weight, bias, stride, padding, dilation, groups):
    """`jt.nn.conv2d` of float64 Vars [N, C, H, W]; pairs of ints."""
    n, channels, *sides = x.shape
    out, _, *kernel = weight.shape
    height, width = ((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, p, d, k, s
                     in zip(sides, padding, dilation, kernel, stride))
    # [G, C / G, Kh, Kw, N, H', W']: one product per group. Each index expression is a kernel to compile.
    depth = channels // groups
    columns = x.reshape([n, groups, depth, *sides]).reindex(
        [groups, depth, *kernel, n, height, width], [
            "i4", "i0", "i1", f"i5*{stride[0]}-{padding[0]}+i2*{dilation[0]}",
            f"i6*{stride[1]}-{padding[1]}+i3*{dilation[1]}"])
    y = product(weight.reshape([groups, out // groups, -1]),
                columns.reshape([groups, -1, n * height * width]))
    y = y.reshape([out, n, height, width]).transpose(1, 0, 2, 3)
    return y if bias is None else y + bias.broadcast(y, [0, 2, 3])


@contextlib.contextmanager
def by_blas():
    """Context in which Jittor's float64 convolutions and products of two matrices are these."""
    import jittor as jt
    execute, conv2d = jt.nn.Conv.execute, jt.nn.conv2d
    matmul, transposed = jt.matmul, jt.nn.matmul_transpose

    def layer(self, x):
        if x.dtype != "float64":
            return execute(self, x)
        return convolution(x, self.weight, self.bias, self.stride, self.padding, self.dilation,
                           self.groups)

    def function(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if x.dtype != "float64":
            return conv2d(x, weight, bias, stride, padding, dilation, groups)
        return convolution(x, weight, bias, *map(jt.nn._pair, (stride, padding, dilation)), groups)

    def matrices(a, b):
        return a.dtype == b.dtype == "float64" and a.ndim == b.ndim == 2

    def multiplied(a, b):
        return product(a, b) if matrices(a, b) else matmul(a, b)

    def multiplied_transposed(a, b):
        return product(a, b.transpose(1, 0)) if matrices(a, b) else transposed(a, b)

    with contextlib.ExitStack() as stack:
        for place, name, replacement in (
                (jt.nn.Conv, "execute", layer), (jt.nn, "conv2d", function),
                (jt.nn, "matmul_transpose", multiplied_transposed), (jt, "matmul", multiplied),
                (jt.nn, "matmul", multiplied), (jt.Var, "matmul", multiplied),
                (jt.Var, "__matmul__", multiplied)):
            stack.enter_context(mock.patch.object(place, name, replacement))
        yield
