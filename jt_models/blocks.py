"""What the Inception families share: convolution with BatchNorm, chains of them, parallel branches.

Names are torchvision's and timm's (`conv`, `bn`), so that weights load by name.
"""
from . import layers as nn


def same(kernel):
    """Padding that keeps the image's size at stride 1."""
    return tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2


class BasicConv2d(nn.Module):
    """Convolution, BatchNorm, ReLU; padding None keeps the size at stride 1."""

    def __init__(self, in_channels, channels, kernel, stride=1, padding=None, bias=False, eps=1e-3):
        super().__init__()
        padding = same(kernel) if padding is None else padding
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=padding,
                              bias=bias)
        self.bn = nn.BatchNorm2d(channels, eps=eps)
        self.relu = nn.ReLU(inplace=True)

    def execute(self, x):
        return self.relu(self.bn(self.conv(x)))


def chain(in_channels, *convs, conv=BasicConv2d):
    """Convolutions one after the other, each given as (channels, kernel[, stride, padding])."""
    layers = []
    for channels, *shape in convs:
        layers.append(conv(in_channels, channels, *shape))
        in_channels = channels
    return nn.Sequential(*layers)


class Concat(nn.Module):
    """Concatenation of the outputs of parallel branches, a dict from name to module."""

    def __init__(self, branches):
        super().__init__()
        self.names = list(branches)
        for name in self.names:
            self.add_module(name, branches[name])

    def concat(self, x):
        """All branches on the same input."""
        return nn.concat([getattr(self, name)(x) for name in self.names], 1)

    def execute(self, x):
        return self.concat(x)


def numbered(*branches):
    """Parallel branches with timm's names, branch0, branch1, ..."""
    return {f"branch{i}": branch for i, branch in enumerate(branches)}


def half_range(x):
    """From ImageNet's mean and deviation to 0.5 and 0.5 (torchvision's `transform_input`)."""
    statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    return nn.concat([x[:, i:i + 1] * (deviation / 0.5) + (mean - 0.5) / 0.5
                         for i, (mean, deviation) in enumerate(statistics)], 1)


def check_transform(transform_input, in_channels):
    """Raises ValueError where `half_range` would not fit."""
    if transform_input and in_channels != 3:
        raise ValueError(f"transform_input needs 3 channels, not {in_channels}")
