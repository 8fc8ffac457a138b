"""Pooling with PyTorch's semantics; `jt_models.layers` says what that means and exports all of it."""
from __future__ import annotations

import numpy as np

import jittor as jt
from jittor import nn
from jittor.nn import Module

from . import kernels


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


class _Pool2d(Module):
    """Shape rules of torch's pools. Jittor's raise where H or W <= kernel, even with padding, and
    with ceil_mode emit windows that begin outside the padded image."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False):
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(kernel_size if stride is None else stride)
        self.padding = _pair(padding)
        self.ceil_mode = ceil_mode
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size)):
            raise ValueError(f"padding {self.padding} is more than half of kernel size "
                             f"{self.kernel_size}")

    def output_size(self, size: int, axis: int) -> int:
        """Number of windows along `axis` (0: height, 1: width) of an image of `size` pixels."""
        kernel, stride, padding = self.kernel_size[axis], self.stride[axis], self.padding[axis]
        reach = size + 2 * padding - kernel
        windows = (-(-reach // stride) if self.ceil_mode else reach // stride) + 1
        if self.ceil_mode and (windows - 1) * stride >= size + padding:
            windows -= 1  # the last window must begin inside the image or its left padding
        if windows < 1:
            raise ValueError(f"pool of {self.kernel_size} has no window in an image of {size} "
                             f"pixels with padding {padding}")
        return windows

    def _output_sizes(self, x):
        return tuple(self.output_size(side, axis) for axis, side in enumerate(x.shape[2:]))

    def _by_kernel(self, kind, x):
        return kind(self.kernel_size, self.stride, self.padding, self._output_sizes(x))(x)


class MaxPool2d(_Pool2d):
    """Maximum over windows of [N, C, H, W]; the gradient goes to the first maximum, as torch's. On a CPU by a kernel of
    our own: Jittor's takes five times as long."""

    def execute(self, x):
        if jt.flags.use_cuda:
            return self.by_jittor(x)
        return self._by_kernel(kernels.MaxPool, x)

    def by_jittor(self, x):
        """The same by Jittor's pool."""
        n, c, h, w = x.shape
        oh, ow = self._output_sizes(x)
        (kh, kw), (sh, sw), (ph, pw) = self.kernel_size, self.stride, self.padding
        partial = (oh - 1) * sh + kh > h + 2 * ph or (ow - 1) * sw + kw > w + 2 * pw  # in ceil_mode
        if h > kh and w > kw and not partial:
            return nn.Pool(self.kernel_size, self.stride, self.padding, op="maximum")(x)
        # Pad by hand up to a size that Jittor's kernel accepts; -max is never the maximum.
        high = max((oh - 1) * sh + kh, kh + 1)
        wide = max((ow - 1) * sw + kw, kw + 1)
        x = x.reindex([n, c, high, wide], ["i0", "i1", f"i2-{ph}", f"i3-{pw}"],
                      overflow_value=-3.4028234e38)
        return nn.Pool(self.kernel_size, self.stride, op="maximum")(x)[:, :, :oh, :ow]


class AvgPool2d(_Pool2d):
    """Mean over windows of [N, C, H, W]. Jittor's own ignores `count_include_pad=False`, and its
    divisor is wrong for ceil_mode with padding. On a CPU the sums of small windows are a kernel of our own."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad

    def _counts(self, size: int, axis: int) -> np.ndarray:
        begin = np.arange(self.output_size(size, axis)) * self.stride[axis] - self.padding[axis]
        end = np.minimum(begin + self.kernel_size[axis], size + self.padding[axis])
        if not self.count_include_pad:
            begin, end = np.maximum(begin, 0), np.minimum(end, size)
        return end - begin

    def execute(self, x):
        if jt.flags.use_cuda or self.kernel_size[0] * self.kernel_size[1] > 16:
            return self.by_jittor(x)
        return self._divided(self._by_kernel(kernels.SumPool, x), x)

    def by_jittor(self, x):
        """The same by operations that Jittor compiles."""
        (kh, kw), (sh, sw), (ph, pw) = self.kernel_size, self.stride, self.padding
        windows = x.reindex([*x.shape[:2], *self._output_sizes(x), kh, kw], ["i0", "i1", f"i2*{sh}-{ph}+i4", f"i3*{sw}-{pw}+i5"])
        return self._divided(windows.sum([4, 5]), x)

    def _divided(self, total, x):
        counts = np.outer(*(self._counts(side, axis) for axis, side in enumerate(x.shape[2:])))
        if (counts == counts[0, 0]).all():
            return total / int(counts[0, 0])
        return total / jt.array(counts[None, None].astype("int32"))


def adaptive_avg_pool2d(x, output_size):
    """Mean over torch's bins floor(i*H/o) .. ceil((i+1)*H/o) of [N, C, H, W].

    Args:
        output_size: height and width of the output; an int means both, None the input's.

    Jittor's own has other bins wherever H is no multiple of the output.
    """
    n, c, h, w = x.shape
    oh, ow = (size if out is None else out for out, size in zip(_pair(output_size), (h, w)))
    if (oh, ow) == (1, 1):
        return x.sum([2, 3], keepdims=True) / (h * w)
    if h % oh == 0 and w % ow == 0:
        a, b = h // oh, w // ow
        return x.reshape((n, c, oh, a, ow, b)).sum([3, 5]) / (a * b)
    bounds = []
    for size, out in ((h, oh), (w, ow)):
        index = np.arange(out)
        bounds.append(((index * size // out).astype("int32"),
                       (-(-(index + 1) * size // out)).astype("int32")))
    (top, bottom), (left, right) = bounds
    kh, kw = int((bottom - top).max()), int((right - left).max())
    windows = x.reindex(
        [n, c, oh, ow, kh, kw], ["i0", "i1", "@e0(i2)+i4", "@e2(i3)+i5"],
        extras=[jt.array(v) for v in (top, bottom, left, right)],
        overflow_conditions=["@e0(i2)+i4>=@e1(i2)", "@e2(i3)+i5>=@e3(i3)"], overflow_value=0)
    counts = np.outer(bottom - top, right - left)[None, None]
    return windows.sum([4, 5]) / jt.array(counts.astype("int32"))


class AdaptiveAvgPool2d(Module):
    """`adaptive_avg_pool2d` as a module."""

    def __init__(self, output_size):
        self.output_size = output_size

    def execute(self, x):
        return adaptive_avg_pool2d(x, self.output_size)


def max_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """`MaxPool2d` as a function."""
    return MaxPool2d(kernel_size, stride, padding, ceil_mode)(x)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """`AvgPool2d` as a function."""
    return AvgPool2d(kernel_size, stride, padding, ceil_mode, count_include_pad)(x)
