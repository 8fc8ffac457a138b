"""Layers with PyTorch's semantics: what Jittor 1.3.11.0 lacks or computes differently.

The names, arguments and defaults are torch.nn's, so that the two zoos read alike; each class says
where Jittor's own differs. Everything here computes in the dtype of its input (float64 included:
a Python float is a float32 constant in Jittor, even beside a float64 Var; see `arithmetic.constant`).
"""
from __future__ import annotations

import functools

import jittor as jt
from jittor import nn
from jittor.nn import Identity, Module, Sequential  # as torch's

from . import batchnorm, cudnn, epilogue, folded, init, kernels, product, winograd
from .arithmetic import constant, spread
from .bias import Bias
from .concatenation import Concat
from .convolution import Convolution
from .depthwise import Depthwise
from .norm import BatchNorm, BatchNorm1d, BatchNorm2d, LocalResponseNorm
from .pooling import (AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, adaptive_avg_pool2d, avg_pool2d,
                      max_pool2d)
from .resizing import Upsample, interpolate

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Dropout",
           "Flatten", "Identity", "Linear", "LocalResponseNorm", "MaxPool2d", "Module", "ReLU",
           "ReLU6", "Sequential", "Sigmoid", "Tanh", "Upsample", "adaptive_avg_pool2d",
           "avg_pool2d", "concat", "dropout", "init", "interpolate", "max_pool2d", "relu", "relu6",
           "set_training", "sigmoid", "stock", "synchronised"]


def concat(parts, dim):
    """`parts` (Vars of one dtype, alike in all other dimensions) one after the other along `dim` >= 0.

    Values and gradients are jt.concat's, which is an operation for every part, and in the backward pass copies the
    whole gradient for each.

    Raises:
        ValueError: parts that do not fit.
    """
    others = {(str(part.dtype), *part.shape[:dim], *part.shape[dim + 1:]) for part in parts}
    if len(others) != 1 or not 0 <= dim < parts[0].ndim:
        raise ValueError(f"cannot concatenate {', '.join(f'{part.dtype} {list(part.shape)}' for part in parts)} "
                         f"along dimension {dim}")
    return Concat(dim)(*parts)


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
        if isinstance(module, BatchNorm):
            module.sync = True
    return net


def stock(net: Module) -> Module:
    """`net` with Jittor's own computation in every module that is a convolution, a linear layer, BatchNorm, ReLU, ReLU6,
    max or average pool, to measure speed against. What a net calls as a function stays ours."""
    for module in net.modules():
        if isinstance(module, Conv2d):
            module.execute = functools.partial(nn.Conv2d.execute, module)
        elif isinstance(module, Linear):
            module.execute = functools.partial(nn.Linear.execute, module)
        elif isinstance(module, BatchNorm):
            module.is_train = module.training  # which a fresh module of our own does not store
            module.execute = functools.partial(nn.BatchNorm.execute, module)
        elif isinstance(module, ReLU):  # ReLU6 is one, too
            module.execute = nn.relu6 if isinstance(module, ReLU6) else nn.relu
        elif isinstance(module, (AvgPool2d, MaxPool2d)):
            module.execute = module.by_jittor
    return net


class Conv2d(nn.Conv2d):
    """Jittor's convolution, which agrees with torch's up to rounding, with a clear shape error.

    On a CPU it is products of matrices (`product.Product`, `folded.Folded`) with a 1x1 kernel, and where there are few
    outputs; with a 1x1 kernel and few outputs one product may do for all images; Jittor's oneDNN 2.2 takes up to sixteen
    times as long.
    With a 3x3 kernel and stride 1 it is `winograd`'s, where that is faster, and a depthwise one has a kernel of our own. On
    a GPU see `convolution`.

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
        own = self._own(x)
        if own and jt.flags.no_grad:
            return epilogue.convolved(own, x, self.weight, self.bias)
        epilogue.forget()
        if own:
            return own(x, self.weight, self.bias)
        y = self._by_others(x)
        if self.bias is None:
            return y
        if jt.flags.no_grad or not cudnn.takes(y, self.bias):  # a sum joins what follows
            return y + spread(self.bias, y)
        return Bias()(y, self.bias)

    def _own(self, x):
        """The operation for all of this convolution, where one of ours is the fastest."""
        if jt.flags.use_cuda or self.dilation != (1, 1) or self.bias is not None and self.bias.dtype != x.dtype:
            return None
        if self.groups > 1:
            depthwise = self.groups == self.in_channels == self.out_channels and x.dtype in ("float32", "float64")
            return Depthwise(self.stride, self.padding) if depthwise else None
        if product.pays(x, self.weight, self.stride, self.padding):
            whole_lines = folded.fits(x, self.weight, self.stride, self.padding)
            return (folded.Folded if whole_lines else product.Product)(self.stride, self.padding)
        if self.kernel_size == (3, 3) and self.stride == (1, 1) and winograd.pays(x, self.weight, self.padding):
            return winograd.Winograd(self.padding[0])
        return None

    def _by_others(self, x):
        if jt.flags.use_cuda:
            if cudnn.takes(x, self.weight):
                return Convolution(self.stride, self.padding, self.dilation)(x, self.weight)
        elif self.groups == 1 and self.kernel_size == (1, 1) and self.padding == (0, 0):
            return self._pointwise(x)
        return nn.conv2d(x, self.weight, None, self.stride, self.padding, self.dilation, self.groups)

    def _pointwise(self, x):
        n, c = x.shape[:2]
        h, w = (-(-side // s) for side, s in zip(x.shape[2:], self.stride))
        if self.stride != (1, 1):
            x = x.reindex([n, c, h, w], ["i0", "i1", f"i2*{self.stride[0]}", f"i3*{self.stride[1]}"])
        weight = self.weight.reshape(self.out_channels, c)
        if h * w == 1:
            return nn.matmul_transpose(x.reshape(n, c), weight).reshape(n, self.out_channels, 1, 1)
        columns = x.transpose(1, 0, 2, 3).reshape(c, n * h * w)
        y = jt.matmul(weight, columns)
        return y.reshape(self.out_channels, n, h, w).transpose(1, 0, 2, 3)


class Linear(nn.Linear):
    """Jittor's linear layer, which agrees with torch's up to rounding.

    On a CPU with AVX-512, Jittor's oneDNN 2.2 takes up to four times as long for x [N, in_features] by the transposed weight
    as for the weight by the transposed x, where the weight is large and N is not: there this does the latter.
    """

    def execute(self, x):
        if jt.flags.use_cuda or not product.linear_pays(x, self.weight):
            return super().execute(x)
        y = product.Linear()(x, self.weight)
        return y if self.bias is None else y + self.bias


def relu(x, inplace=False):
    """max(x, 0), gradient 0 at 0. `inplace` leaves x as it is, but may leave it without a gradient of its own: if x comes
    from a BatchNorm in training, on a CPU, both are one operation then, and of x only jt.grad would tell the difference.
    """
    return _rectified(x, nn.relu, batchnorm.RELU, inplace)


def relu6(x, inplace=False):
    """min(max(x, 0), 6), gradient 0 at 0 and 6; `inplace` as for `relu`."""
    return _rectified(x, nn.relu6, batchnorm.RELU6, inplace)


def _rectified(x, function, rectifier, inplace):
    if jt.flags.use_cuda:
        return function(x)
    if jt.flags.no_grad:
        y = epilogue.rectified(x, rectifier.most)
        return function(x) if y is None else y
    y = batchnorm.rectified(x, rectifier) if inplace else None
    return kernels.Rectified(function, rectifier.linear)(x) if y is None else y


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return jt.sigmoid(x)


class ReLU(Module):
    """`relu` as a module."""

    def __init__(self, inplace=False):
        self.inplace = inplace

    def execute(self, x):
        return relu(x, self.inplace)


class ReLU6(ReLU):
    """`relu6` as a module."""

    def execute(self, x):
        return relu6(x, self.inplace)


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
