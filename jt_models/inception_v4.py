"""Inception v4 (Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact of residual
connections on learning", arXiv:1602.07261), in timm's and Cadene's layout and names, so that their
weights load (Cadene's files have 1001 classes, the first of them the background). Average pools
inside blocks do not count the padding.
"""
from . import layers as nn

from zoo.catalog import out_size

from .blocks import BasicConv2d, Concat, chain, numbered
from .inception import REDUCTIONS, STEM


def pooled(channels, out):
    """Average pool that does not count the padding, 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
                         BasicConv2d(channels, out, 1))


def stem_v4(in_channels):
    """Figure 3: 299x299 to 384 channels of 35x35."""
    return [
        BasicConv2d(in_channels, 32, 3, 2, 0),
        BasicConv2d(32, 32, 3, 1, 0),
        BasicConv2d(32, 64, 3),
        Concat({"maxpool": nn.MaxPool2d(3, stride=2), "conv": BasicConv2d(64, 96, 3, 2, 0)}),
        Concat(numbered(
            chain(160, (64, 1), (96, 3, 1, 0)),
            chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0)))),
        Concat({"conv": BasicConv2d(192, 192, 3, 2, 0), "maxpool": nn.MaxPool2d(3, stride=2)})]


def reduction_a(channels, first, second, third, single):
    """35x35 to 17x17 (figure 7; the widths are table 1's k, l, m, n)."""
    return Concat(numbered(
        BasicConv2d(channels, single, 3, 2, 0),
        chain(channels, (first, 1), (second, 3), (third, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2)))


def inception_a():
    """Figure 4."""
    return Concat(numbered(
        BasicConv2d(384, 96, 1),
        chain(384, (64, 1), (96, 3)),
        chain(384, (64, 1), (96, 3), (96, 3)),
        pooled(384, 96)))


def inception_b():
    """Figure 5."""
    return Concat(numbered(
        BasicConv2d(1024, 384, 1),
        chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        pooled(1024, 128)))


def reduction_b():
    """Figure 8."""
    return Concat(numbered(
        chain(1024, (192, 1), (192, 3, 2, 0)),
        chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2)))


class InceptionC(nn.Module):
    """Figure 6."""

    def __init__(self):
        super().__init__()
        self.branch0 = BasicConv2d(1536, 256, 1)
        self.branch1_0 = BasicConv2d(1536, 384, 1)
        self.branch1_1a = BasicConv2d(384, 256, (1, 3))
        self.branch1_1b = BasicConv2d(384, 256, (3, 1))
        self.branch2_0 = BasicConv2d(1536, 384, 1)
        self.branch2_1 = BasicConv2d(384, 448, (3, 1))
        self.branch2_2 = BasicConv2d(448, 512, (1, 3))
        self.branch2_3a = BasicConv2d(512, 256, (1, 3))
        self.branch2_3b = BasicConv2d(512, 256, (3, 1))
        self.branch3 = pooled(1536, 256)

    def execute(self, x):
        x1 = self.branch1_0(x)
        x2 = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        return nn.concat(
            (self.branch0(x), self.branch1_1a(x1), self.branch1_1b(x1), self.branch2_3a(x2),
             self.branch2_3b(x2), self.branch3(x)), 1)


def flat_pool():
    """Average over the whole grid, flattened."""
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())


class InceptionV4(nn.Module):
    """Stem, 4 blocks A, reduction, 7 blocks B, reduction, 3 blocks C (figure 9), linear."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__()
        out_size(image_size, *STEM, *REDUCTIONS)
        self.features = nn.Sequential(
            *stem_v4(in_channels),
            *[inception_a() for _ in range(4)], reduction_a(384, 192, 224, 256, 384),
            *[inception_b() for _ in range(7)], reduction_b(),
            *[InceptionC() for _ in range(3)])
        self.global_pool = flat_pool()
        self.head_drop = nn.Dropout(drop)
        self.last_linear = nn.Linear(1536, num_classes)

    def execute(self, x):
        return self.last_linear(self.head_drop(self.global_pool(self.features(x))))


def inception_v4(num_classes=1000, in_channels=3, image_size=299, dropout=0.0):
    """42,679,816 parameters at 299x299 with 1000 classes; the paper has dropout 0.2."""
    return InceptionV4(num_classes, in_channels, image_size, dropout)
