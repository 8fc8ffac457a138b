"""Layers with PyTorch's semantics: what Jittor 1.3.11.0 lacks or computes differently.

The names, arguments and defaults are torch.nn's, so that the two zoos read alike; each class says
where Jittor's own differs. Everything here computes in the dtype of its input (float64 included:
a Python float is a float32 constant in Jittor, even beside a float64 Var; see `constant`).
"""
from __future__ import annotations

import numpy as np

import jittor as jt
from jittor import init, nn
from jittor.nn import Identity, Linear, Module, Sequential  # noqa: F401  (as torch's)

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Conv2d", "Dropout", "Identity",
           "Linear", "MaxPool2d", "Module", "ReLU", "Sequential", "Tanh", "adaptive_avg_pool2d",
           "constant", "dropout", "init", "relu", "set_training", "sigmoid"]


def constant(value: float, like: jt.Var):
    """`value` as an operand for `like`: a float64 Var of one element beside float64, else itself."""
    if like.dtype == "float64":
        return jt.array64(np.array([value], "float64"))
    return value


def set_training(module: Module, mode: bool = True) -> Module:
    """Set the mode of `module` and all below it, as torch's `train(mode)`.

    Jittor's `eval()` also freezes every parameter, so that a later optimizer step does nothing.
    """
    for child in module.modules():
        child.is_train = mode
    return module


class Conv2d(nn.Conv2d):
    """Jittor's convolution, which agrees with torch's up to rounding, with a clear shape error.

    Raises:
        ValueError: the input is not [N, in_channels, H, W].
    """

    def execute(self, x):
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"this convolution takes [N, {self.in_channels}, H, W], "
                             f"not {list(x.shape)}")
        return super().execute(x)


class BatchNorm2d(Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) over [N, C, H, W].

    Jittor's own keeps the biased variance in `running_var` (torch: unbiased), computes the
    variance as E[x^2]-E[x]^2, which cancels when the mean is large, and accepts one value per
    channel. Here: two passes, unbiased, and torch's error.

    Raises:
        ValueError: in training mode, one value per channel.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.weight = init.constant((num_features,), "float32", 1.0)
        self.bias = init.constant((num_features,), "float32", 0.0)
        self.running_mean = init.constant((num_features,), "float32", 0.0).stop_grad()
        self.running_var = init.constant((num_features,), "float32", 1.0).stop_grad()
        # A plain int: torch's buffer of this name is converted to and from it (parity.weights).
        self.num_batches_tracked = 0

    def execute(self, x):
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"this BatchNorm2d takes [N, {self.num_features}, H, W], "
                             f"not {list(x.shape)}")
        dims = [0, 2, 3]
        if not self.training:
            scale = self.weight / jt.sqrt(self.running_var + constant(self.eps, x))
            shift = self.bias - self.running_mean * scale
            return x * scale.broadcast(x, dims) + shift.broadcast(x, dims)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if count == 1:
            raise ValueError("expected more than 1 value per channel when training, "
                             f"got input size {list(x.shape)}")
        # sum / int: Jittor's mean multiplies its gradient by float32(1 / n).
        mean = x.sum(dims) / count
        centred = x - mean.broadcast(x, dims)
        variance = (centred * centred).sum(dims) / count
        scale = self.weight / jt.sqrt(variance + constant(self.eps, x))
        self._track(mean.detach(), variance.detach() * constant(count / (count - 1), x))
        return centred * scale.broadcast(x, dims) + self.bias.broadcast(x, dims)

    def _track(self, mean, unbiased_variance):
        momentum = constant(self.momentum, mean)
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            running.update(running + (new - running) * momentum)
        self.num_batches_tracked += 1


def relu(x):
    """max(x, 0), gradient 0 at 0."""
    return nn.relu(x)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return jt.sigmoid(x)


class ReLU(Module):
    """`relu` as a module; `inplace` is accepted for torch's sake and changes nothing in Jittor."""

    def __init__(self, inplace=False):
        self.inplace = inplace

    def execute(self, x):
        return relu(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def execute(self, x):
        return jt.tanh(x)


def dropout(x, p=0.5, training=True):
    """Zero each element with probability p and scale the others by 1 / (1 - p), when training.

    The scale is applied in the dtype of x; Jittor's own divides by a float32 constant.
    """
    if not training or p == 0:
        return x
    keep = (jt.random(x.shape) >= p).cast(x.dtype)
    return x * keep * constant(1 / (1 - p), x)


class Dropout(Module):
    """`dropout` as a module; active until set to evaluation (a fresh one of Jittor's is not)."""

    def __init__(self, p=0.5):
        self.p = p

    def execute(self, x):
        return dropout(x, self.p, self.training)


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


class MaxPool2d(_Pool2d):
    """Maximum over windows of [N, C, H, W]; the gradient goes to the first maximum, as torch's."""

    def execute(self, x):
        n, c, h, w = x.shape
        oh, ow = self.output_size(h, 0), self.output_size(w, 1)
        (kh, kw), (sh, sw), (ph, pw) = self.kernel_size, self.stride, self.padding
        if h > kh and w > kw and not self.ceil_mode:
            return nn.Pool(self.kernel_size, self.stride, self.padding, op="maximum")(x)
        # Pad by hand up to a size that Jittor's kernel accepts; -max is never the maximum.
        high = max((oh - 1) * sh + kh, kh + 1)
        wide = max((ow - 1) * sw + kw, kw + 1)
        x = x.reindex([n, c, high, wide], ["i0", "i1", f"i2-{ph}", f"i3-{pw}"],
                      overflow_value=-3.4028234e38)
        return nn.Pool(self.kernel_size, self.stride, op="maximum")(x)[:, :, :oh, :ow]


class AvgPool2d(_Pool2d):
    """Mean over windows of [N, C, H, W]. Jittor's own ignores `count_include_pad=False`, and its
    divisor is wrong for ceil_mode with padding."""

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
        n, c, h, w = x.shape
        (kh, kw), (sh, sw), (ph, pw) = self.kernel_size, self.stride, self.padding
        counts = np.outer(self._counts(h, 0), self._counts(w, 1))
        oh, ow = counts.shape
        windows = x.reindex([n, c, oh, ow, kh, kw],
                            ["i0", "i1", f"i2*{sh}-{ph}+i4", f"i3*{sw}-{pw}+i5"])
        total = windows.sum([4, 5])
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
