"""BatchNorm over the images of all ranks, also on CPUs, where PyTorch's SyncBatchNorm refuses to work."""
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all ranks, and of its gradient."""

    @staticmethod
    def forward(context, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(context, gradient):
        return _Sum.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """As nn.BatchNorm2d (1d) on the batch that all ranks have together, whose parts may differ in size."""

    def _check_input_dim(self, x):
        pass  # the base class leaves it to the forms for 1, 2 and 3 dimensions

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = _Sum.apply(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
        mean = _Sum.apply(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply((centred * centred).sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight / torch.sqrt(variance + self.eps)
        return centred * scale.view(shape) + self.bias.view(shape)


def synchronised(net: nn.Module) -> nn.Module:
    """`net` with every BatchNorm over all ranks; the tensors and their names stay."""
    for name, child in net.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            new = SyncBatchNorm(child.num_features, child.eps, child.momentum)
            new._parameters, new._buffers = child._parameters, child._buffers
            setattr(net, name, new)
        else:
            synchronised(child)
    return net
