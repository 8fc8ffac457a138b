"""Normalisation with PyTorch's semantics (see `layers`)."""
from __future__ import annotations

import jittor as jt
from jittor.nn import Module

from . import batchnorm, cudnn, epilogue, init
from .arithmetic import constant, spread, total


class BatchNorm(Module):
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
        by_cudnn = jt.flags.use_cuda and self._has_kernel(x)
        if not self.training and by_cudnn:
            return cudnn.FixedBatchNorm(self.eps)(x, self.weight, self.bias, self.running_mean, self.running_var)
        if not self.training:
            scale = self.weight / jt.sqrt(self.running_var + constant(self.eps, x))
            shift = self.bias - self.running_mean * scale
            y = epilogue.normalised(x, scale, shift) if jt.flags.no_grad else None
            return y if y is not None else x * spread(scale, x) + spread(shift, x)
        count = x.numel() // x.shape[1]
        if self.sync:
            count = self._all(jt.array([float(count)]))
        elif count == 1:
            raise ValueError("expected more than 1 value per channel when training, "
                             f"got input size {list(x.shape)}")
        if by_cudnn:
            norm = cudnn.BatchNorm(self.eps, self.momentum)
            y = norm(x, self.weight, self.bias, self.running_mean, self.running_var)
            self._count(*norm.running)
            return y
        if self._has_kernel(x):
            self.num_batches_tracked += 1
            return batchnorm.normalised(x, self.weight, self.bias, (self.running_mean, self.running_var), self.eps,
                                        self.momentum)
        # sum / int: Jittor's mean multiplies its gradient by float32(1 / n).
        mean = self._all(total(x, self.axes)) / count
        centred = x - spread(mean, x)
        variance = self._all(total(centred * centred, self.axes)) / count
        scale = self.weight / jt.sqrt(variance + constant(self.eps, x))
        self._track(mean.detach(), variance.detach() * constant(count / (count - 1), x))
        return centred * spread(scale, x) + spread(self.bias, x)

    def _has_kernel(self, x):
        if x.ndim != 4 or self.sync:
            return False
        values = x, self.weight, self.bias, self.running_mean, self.running_var
        return cudnn.takes(*values) or not jt.flags.use_cuda and all(v.dtype == "float64" for v in values)

    def _all(self, v):
        return v.mpi_all_reduce("add") if self.sync else v

    def _track(self, mean, unbiased_variance):
        momentum = constant(self.momentum, mean)
        self._count(*(running + (new - running) * momentum for running, new in
                      ((self.running_mean, mean), (self.running_var, unbiased_variance))))

    def _count(self, mean, variance):
        self.running_mean.update(mean)
        self.running_var.update(variance)
        self.num_batches_tracked += 1


class BatchNorm1d(BatchNorm):
    """`BatchNorm` over [N, C]."""
    axes = [0]


class BatchNorm2d(BatchNorm):
    """`BatchNorm` over [N, C, H, W]."""
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
