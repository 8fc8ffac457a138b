"""BN-Inception (Ioffe and Szegedy 2015, "Batch normalization", arXiv:1502.03167, figure 5).

Widths of the branches as in the figure; they sum to 608, 608 and 1056 channels after 4c, 4d and 4e,
where the figure itself prints 576, 576 and 1024. The released Caffe model has 96 instead of 128 in
the pool projections of 4c and 4d. 5b pools by maximum. Cadene's `bninception` weights load through
`cadene_key`.

The stride-2 blocks join convolutions padded by one and an unpadded pool with ceil_mode. The two
agree on even grids only, so an image of n pixels fits where ceil(n / 2) // 4 is a multiple of 4:
31 to 38, 63 to 70, 95 to 102, ..., 223 to 230.
"""
import torch
from torch import nn

from .blocks import BasicConv2d, Concat, chain

# Input channels, 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection.
WIDTHS = {
    "3a": (192, 64, 64, 64, 64, 96, 32),
    "3b": (256, 64, 64, 96, 64, 96, 64),
    "3c": (320, 128, 160, 64, 96),
    "4a": (576, 224, 64, 96, 96, 128, 128),
    "4b": (576, 192, 96, 128, 96, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 128),
    "4d": (608, 96, 128, 192, 160, 192, 128),
    "4e": (608, 128, 192, 192, 256),
    "5a": (1056, 352, 192, 320, 160, 224, 128),
    "5b": (1024, 352, 192, 320, 192, 224, 128),
}


class SEConcat(Concat):
    """Parallel branches with `channels` outputs in all, then the module se(channels), if any."""

    def __init__(self, branches, channels, se):
        super().__init__(branches)
        self.se = None if se is None else se(channels)

    def forward(self, x):
        x = self.concat(x)
        return x if self.se is None else self.se(x)


class Block(SEConcat):
    """1x1; 1x1, 3x3; 1x1, 3x3, 3x3; `pool`, 1x1 (also figure 5 of arXiv:1512.00567)."""

    def __init__(self, conv, pool, channels, ch1, red3, ch3, red_double, double, proj, se=None):
        super().__init__({
            "branch1": conv(channels, ch1, 1),
            "branch2": chain(channels, (red3, 1), (ch3, 3), conv=conv),
            "branch3": chain(channels, (red_double, 1), (double, 3), (double, 3), conv=conv),
            "branch4": nn.Sequential(pool, conv(channels, proj, 1)),
        }, ch1 + ch3 + double + proj, se)


class Reduction(SEConcat):
    """1x1, 3x3/2; 1x1, 3x3, 3x3/2; max-pool/2 (also figure 10 of arXiv:1512.00567).

    With `padding` 0 the pool drops incomplete windows, as such convolutions do.
    """

    def __init__(self, conv, padding, channels, red3, ch3, red_double, double, se=None):
        super().__init__({
            "branch2": chain(channels, (red3, 1), (ch3, 3, 2, padding), conv=conv),
            "branch3": chain(channels, (red_double, 1), (double, 3), (double, 3, 2, padding),
                             conv=conv),
            "branch4": nn.MaxPool2d(3, stride=2, ceil_mode=padding > 0),
        }, ch3 + double + channels, se)


class BNInception(nn.Module):
    """Stem, ten blocks, average pool, linear; `se`: from channels to each block's `se`, or None."""

    def __init__(self, num_classes, in_channels, image_size, conv_bias, drop, se=None):
        super().__init__()
        if image_size < 31 or (image_size + 1) // 2 // 4 % 4:
            raise ValueError(f"images of {image_size}x{image_size} pixels do not fit this net; "
                             "31 to 38, 63 to 70, 95 to 102, ..., 223 to 230, ... do")

        def conv(channels, out, kernel, stride=1, padding=None):
            return BasicConv2d(channels, out, kernel, stride, padding, conv_bias, 1e-5)

        self.conv1 = conv(in_channels, 64, 7, 2)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = chain(64, (64, 1), (192, 3), conv=conv)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for name, widths in WIDTHS.items():
            if len(widths) == 5:
                block = Reduction(conv, 1, *widths, se=se)
            elif name == "5b":
                block = Block(conv, nn.MaxPool2d(3, stride=1, padding=1), *widths, se=se)
            else:
                block = Block(conv, nn.AvgPool2d(3, stride=1, padding=1), *widths, se=se)
            self.add_module(f"inc{name}", block)
        self.avg = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        x = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        x = self.inc3c(self.inc3b(self.inc3a(x)))
        x = self.inc4e(self.inc4d(self.inc4c(self.inc4b(self.inc4a(x)))))
        x = self.avg(self.inc5b(self.inc5a(x)))
        return self.fc(self.dropout(torch.flatten(x, 1)))


CADENE = {
    "conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2.0", "conv2_3x3": "conv2.1",
    "1x1": "branch1", "3x3_reduce": "branch2.0", "3x3": "branch2.1",
    "double_3x3_reduce": "branch3.0", "double_3x3_1": "branch3.1", "double_3x3_2": "branch3.2",
    "pool_proj": "branch4.1",
}


def cadene_key(name):
    """Our name of a weight from its name in Cadene's pretrained-models for PyTorch; a name that
    those do not have is returned unchanged."""
    layer, _, weight = name.rpartition(".")
    if layer == "last_linear":
        return f"fc.{weight}"
    part = "bn" if layer.endswith("_bn") else "conv"
    layer = layer[:-3] if part == "bn" else layer
    block = ""
    if layer.startswith("inception_"):
        _, block, layer = layer.split("_", 2)
        block = f"inc{block}."
    return f"{block}{CADENE[layer]}.{part}.{weight}" if layer in CADENE else name


FOREIGN_KEYS = {"bn_inception": cadene_key}


def bn_inception(num_classes=1000, in_channels=3, image_size=224, conv_bias=True, dropout=0.0):
    """11,295,240 parameters at 224x224 with 1000 classes.

    `conv_bias=False` drops the biases, which the BatchNorm behind them makes redundant. The paper
    trains without dropout or with little of it.
    """
    return BNInception(num_classes, in_channels, image_size, conv_bias, dropout)
