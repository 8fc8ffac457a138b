"""Layers with PyTorch's semantics: what Jittor 1.3.11.0 lacks or computes differently.

The names, arguments and defaults are torch.nn's, so that the two zoos read alike; each class says
where Jittor's own differs. Everything here computes in the dtype of its input (float64 included:
a Python float is a float32 constant in Jittor, even beside a float64 Var; see `constant`).
"""
from __future__ import annotations

import functools

import numpy as np

import jittor as jt
from jittor import nn
from jittor.nn import Identity, Linear, Module, Sequential  # as torch's

from . import init, kernels
from .pooling import (AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, adaptive_avg_pool2d, avg_pool2d,
                      max_pool2d)
from .resizing import Upsample, interpolate

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Dropout",
           "Flatten", "Identity", "Linear", "LocalResponseNorm", "MaxPool2d", "Module", "ReLU",
           "ReLU6", "Sequential", "Sigmoid", "Tanh", "Upsample", "adaptive_avg_pool2d",
           "avg_pool2d", "constant", "dropout", "init", "interpolate", "max_pool2d", "relu",
           "relu6", "set_training", "sigmoid", "stock", "synchronised", "total"]


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


def set_training(module: Module, mode: bool = True) -> Module:
    """Set the mode of `module` and all below it, as torch's `train(mode)`.

    Jittor's `eval()` also freezes every parameter, so that a later optimizer step does nothing.
    """
    for child in module.modules():
        child.is_train = mode
    return module


def synchronised(net: Module) -> Module:
    """`net` with every BatchNorm over the batches of all ranks, which may differ in size (under mpirun)."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.sync = True
    return net


def stock(net: Module) -> Module:
    """`net` with Jittor's own computation in every convolution and BatchNorm, to measure speed against."""
    for module in net.modules():
        if isinstance(module, Conv2d):
            module.execute = functools.partial(nn.Conv2d.execute, module)
        elif isinstance(module, _BatchNorm):
            module.is_train = module.training  # which a fresh module of our own does not store
            module.execute = functools.partial(nn.BatchNorm.execute, module)
    return net


class Conv2d(nn.Conv2d):
    """Jittor's convolution, which agrees with torch's up to rounding, with a clear shape error.

    On a CPU, with a 1x1 kernel it is one matrix product: Jittor's oneDNN 2.2 takes up to fifteen times as
    long for small images, and also for large ones never less. A depthwise one has a kernel of our own.

    Raises:
        ValueError: the input is not [N, in_channels, H, W], or smaller than the kernel.
    """

    def execute(self, x):
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"this convolution takes [N, {self.in_channels}, H, W], "
                             f"not {list(x.shape)}")
        reach = [dilation * (k - 1) + 1 for dilation, k in zip(self.dilation, self.kernel_size)]
        if any(side + 2 * p < r for side, p, r in zip(x.shape[2:], self.padding, reach)):
            raise ValueError(f"{x.shape[2]}x{x.shape[3]} pixels with a padding of {self.padding} are less "
                             f"than the {reach[0]}x{reach[1]} that the kernel covers")
        if jt.flags.use_cuda:
            return super().execute(x)
        if self.kernel_size == (1, 1) and self.padding == (0, 0) and self.groups == 1:
            return self._product(x)
        depthwise = self.groups == self.in_channels == self.out_channels > 1
        if depthwise and self.dilation == (1, 1) and x.dtype in ("float32", "float64"):
            return self._with_bias(kernels.Depthwise(self.stride, self.padding)(x, self.weight))
        return super().execute(x)

    def _product(self, x):
        n, c, h, w = x.shape
        if self.stride != (1, 1):
            (down, right), (h, w) = self.stride, (-(-side // s) for side, s in zip((h, w), self.stride))
            x = x.reindex([n, c, h, w], ["i0", "i1", f"i2*{down}", f"i3*{right}"])
        columns = x.transpose(1, 0, 2, 3).reshape(c, n * h * w)
        y = jt.matmul(self.weight.reshape(self.out_channels, c), columns)
        return self._with_bias(y.reshape(self.out_channels, n, h, w).transpose(1, 0, 2, 3))

    def _with_bias(self, y):
        return y if self.bias is None else y + self.bias.broadcast(y, [0, 2, 3])


class _BatchNorm(Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) over all axes but the second.

    Jittor's own keeps the biased variance in `running_var` (torch: unbiased), computes the
    variance as E[x^2]-E[x]^2, which cancels when the mean is large, and accepts one value per
    channel. Here: two passes, unbiased, and torch's error. Images are normalised by a kernel of our own
    on a CPU, and by cuDNN on a GPU; elsewhere sums go axis by axis, forward and backward, since over all axes at once
    Jittor adds one by one, which is off by 100 u and more for 10^5 values per channel.

    Attributes:
        sync: normalise over the batch that all ranks have together (see `synchronised`).

    Raises:
        ValueError: another shape; in training mode, one value per channel.
    """
    sync = False

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
        if x.ndim != len(self.axes) + 1 or x.shape[1] != self.num_features:
            wanted = ", ".join(["N", str(self.num_features), "H", "W"][:len(self.axes) + 1])
            raise ValueError(f"this {type(self).__name__} takes [{wanted}], not {list(x.shape)}")
        if not self.training:
            scale = self.weight / jt.sqrt(self.running_var + constant(self.eps, x))
            shift = self.bias - self.running_mean * scale
            return x * self._spread(scale, x) + self._spread(shift, x)
        count = x.numel() // x.shape[1]
        if self.sync:
            count = self._all(jt.array([float(count)]))
        elif count == 1:
            raise ValueError("expected more than 1 value per channel when training, "
                             f"got input size {list(x.shape)}")
        if self._has_kernel(x) and jt.flags.use_cuda:
            norm = kernels.CudnnBatchNorm(self.eps, self.momentum)
            y = norm(x, self.weight, self.bias, self.running_mean, self.running_var)
            self._count(*norm.running)
            return y
        if self._has_kernel(x):
            norm = kernels.BatchNorm(self.eps)
            y = norm(x, self.weight, self.bias)
            self._track(norm.mean, norm.variance * constant(count / (count - 1), x))
            return y
        # sum / int: Jittor's mean multiplies its gradient by float32(1 / n).
        mean = self._all(total(x, self.axes)) / count
        centred = x - self._spread(mean, x)
        variance = self._all(total(centred * centred, self.axes)) / count
        scale = self.weight / jt.sqrt(variance + constant(self.eps, x))
        self._track(mean.detach(), variance.detach() * constant(count / (count - 1), x))
        return centred * self._spread(scale, x) + self._spread(self.bias, x)

    def _has_kernel(self, x):
        return x.ndim == 4 and not self.sync and (not jt.flags.use_cuda or x.dtype == "float32")

    def _all(self, v):
        return v.mpi_all_reduce("add") if self.sync else v

    def _spread(self, v, x):
        """[C] as large as x; its gradient is summed axis by axis."""
        for axis in self.axes:
            v = v.broadcast(x.shape[:max(axis + 1, 2)], [axis])
        return v

    def _track(self, mean, unbiased_variance):
        momentum = constant(self.momentum, mean)
        self._count(*(running + (new - running) * momentum for running, new in
                      ((self.running_mean, mean), (self.running_var, unbiased_variance))))

    def _count(self, mean, variance):
        self.running_mean.update(mean)
        self.running_var.update(variance)
        self.num_batches_tracked += 1


class BatchNorm1d(_BatchNorm):
    """`_BatchNorm` over [N, C]."""
    axes = [0]


class BatchNorm2d(_BatchNorm):
    """`_BatchNorm` over [N, C, H, W]."""
    axes = [0, 2, 3]


class LocalResponseNorm(Module):
    """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta (Krizhevsky et
    al. 2012, section 3.3), as torch's, which divides alpha by the size; the paper does not."""

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def execute(self, x):
        n, c, h, w = x.shape
        windows = (x * x).reindex([n, c, h, w, self.size],
                                  ["i0", f"i1+i4-{self.size // 2}", "i2", "i3"])
        scale = windows.sum(4) * constant(self.alpha / self.size, x) + constant(self.k, x)
        return x / jt.pow(scale, constant(self.beta, x))


def relu(x):
    """max(x, 0), gradient 0 at 0."""
    return nn.relu(x)


def relu6(x):
    """min(max(x, 0), 6), gradient 0 at 0 and 6."""
    return nn.relu6(x)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return jt.sigmoid(x)


class ReLU(Module):
    """`relu` as a module; `inplace` is accepted for torch's sake and changes nothing in Jittor."""

    def __init__(self, inplace=False):
        self.inplace = inplace

    def execute(self, x):
        return relu(x)


class ReLU6(ReLU):
    """`relu6` as a module."""

    def execute(self, x):
        return relu6(x)


class Sigmoid(Module):
    """`sigmoid` as a module."""

    def execute(self, x):
        return sigmoid(x)


class _Tanh(jt.Function):
    def execute(self, x):
        self.y = jt.tanh(x)
        return self.y

    def grad(self, g):
        return g - g * self.y * self.y


class Tanh(Module):
    """Hyperbolic tangent, with the gradient 1 - tanh(x)^2, as torch's.

    Jittor's is 1 / cosh(x)^2: beyond |x| = 44 the square overflows, and a vectorised kernel divides by
    infinity as if there were none, which is NaN.
    """

    def execute(self, x):
        return _Tanh.apply(x)


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


class Flatten(Module):
    """[N, ...] to [N, features]."""

    def execute(self, x):
        return jt.flatten(x, 1)
