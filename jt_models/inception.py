"""Inception v2 and v3 (Szegedy et al. 2015, "Rethinking the Inception architecture for computer
vision", arXiv:1512.00567).

- `inception_v2`: table 1 of the paper, modules of figures 5, 6 (n = 7), 7 and 10. The
  table gives the stem and each stage's input (35x35x288, 17x17x768, 8x8x1280, 8x8x2048) but no
  branch widths; here they are those of v3, and 192 for the 1x1 before the first reduction's 384.
- `inception_v3`: torchvision's layout and names, so its weights load.
"""
import jittor as jt
from . import layers as nn
from .layers import adaptive_avg_pool2d, avg_pool2d, max_pool2d

from zoo.catalog import out_size

from .blocks import BasicConv2d, check_transform, half_range
from .bn_inception import Block, Reduction

HALF = (3, 2, 0)
STEM = (HALF, (3, 1, 0), HALF, (3, 1, 0), HALF)  # 299 -> 35, also in v4 and Inception-ResNet
REDUCTIONS = (HALF, HALF)  # 35 -> 8


class InceptionA(nn.Module):
    """35x35 blocks: figure 5, but with the first 3x3 pair as one 5x5."""

    def __init__(self, channels, pool_features):
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 64, 1)
        self.branch5x5_1 = BasicConv2d(channels, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(channels, pool_features, 1)

    def execute(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(avg_pool2d(x, 3, stride=1, padding=1))
        return nn.concat(
            (self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, pool), 1)


class InceptionB(nn.Module):
    """Reduction 35x35 to 17x17 (figure 10, without the 1x1 before the single 3x3)."""

    def __init__(self, channels):
        super().__init__()
        self.branch3x3 = BasicConv2d(channels, 384, 3, 2, 0)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, 2, 0)

    def execute(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return nn.concat((self.branch3x3(x), double, max_pool2d(x, 3, stride=2)), 1)


class InceptionC(nn.Module):
    """17x17 blocks (figure 6): 7x7 convolutions as 1x7 and 7x1."""

    def __init__(self, channels, inner):
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 192, 1)
        self.branch7x7_1 = BasicConv2d(channels, inner, 1)
        self.branch7x7_2 = BasicConv2d(inner, inner, (1, 7))
        self.branch7x7_3 = BasicConv2d(inner, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(channels, inner, 1)
        self.branch7x7dbl_2 = BasicConv2d(inner, inner, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(inner, inner, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(inner, inner, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(inner, 192, (1, 7))
        self.branch_pool = BasicConv2d(channels, 192, 1)

    def execute(self, x):
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(avg_pool2d(x, 3, stride=1, padding=1))
        return nn.concat((self.branch1x1(x), single, double, pool), 1)


class InceptionD(nn.Module):
    """Reduction 17x17 to 8x8."""

    def __init__(self, channels):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, 2, 0)
        self.branch7x7x3_1 = BasicConv2d(channels, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, 2, 0)

    def execute(self, x):
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return nn.concat((self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(wide),
                             max_pool2d(x, 3, stride=2)), 1)


class InceptionE(nn.Module):
    """8x8 blocks (figure 7): the last convolutions stand side by side, 1x3 and 3x1."""

    def __init__(self, channels):
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 320, 1)
        self.branch3x3_1 = BasicConv2d(channels, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(channels, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(channels, 192, 1)

    def execute(self, x):
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pool = self.branch_pool(avg_pool2d(x, 3, stride=1, padding=1))
        return nn.concat(
            (self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single),
             self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), pool), 1)


class InceptionAux(nn.Module):
    """Auxiliary head on the 17x17 grid (section 4, figure 8).

    On smaller grids, where torchvision's raises, it pools to the 5x5 that its convolution needs.
    """

    def __init__(self, channels, num_classes, drop):
        super().__init__()
        self.conv0 = BasicConv2d(channels, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5, 1, 0)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.fc = nn.Linear(768, num_classes)

    def execute(self, x):
        x = avg_pool2d(x, 5, stride=3) if x.shape[2] >= 17 else adaptive_avg_pool2d(x, 5)
        x = self.conv1(self.conv0(x))
        return self.fc(self.dropout(jt.flatten(self.avgpool(x), 1)))


def initialise(net):
    """Normal weights of deviation 0.1, as torchvision's. (The 0.01 that it names for the auxiliary
    head's 5x5 convolution never reaches that layer, and so is left out.)"""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.1)


class InceptionV2(nn.Module):
    """Stem, 3 blocks of figure 5, 5 of figure 6, 2 of figure 7, figure 10 between, linear."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__()
        out_size(image_size, *STEM, *REDUCTIONS)
        self.stem = nn.Sequential(
            BasicConv2d(in_channels, 32, 3, 2, 0),
            BasicConv2d(32, 32, 3, 1, 0),
            BasicConv2d(32, 64, 3),
            nn.MaxPool2d(3, stride=2),
            BasicConv2d(64, 80, 3, 1, 0),
            BasicConv2d(80, 192, 3, 2, 0),
            BasicConv2d(192, 288, 3))
        self.mixed5 = nn.Sequential(*[
            Block(BasicConv2d, nn.AvgPool2d(3, stride=1, padding=1), 288, 64, 48, 64, 64, 96, 64)
            for _ in range(3)])
        self.mixed6 = nn.Sequential(
            Reduction(BasicConv2d, 0, 288, 192, 384, 64, 96),
            *[InceptionC(768, inner) for inner in (128, 160, 160, 160, 192)])
        self.mixed7 = nn.Sequential(
            Reduction(BasicConv2d, 0, 768, 192, 320, 192, 192), InceptionE(1280), InceptionE(2048))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.fc = nn.Linear(2048, num_classes)
        initialise(self)

    def execute(self, x):
        x = self.mixed7(self.mixed6(self.mixed5(self.stem(x))))
        return self.fc(self.dropout(jt.flatten(self.avgpool(x), 1)))


class InceptionV3(nn.Module):
    """torchvision's net; in training (logits, aux)."""
    aux_weight = 0.4

    def __init__(self, num_classes, in_channels, image_size, aux, transform_input, drop, drop_aux):
        super().__init__()
        out_size(image_size, *STEM, *REDUCTIONS)
        check_transform(transform_input, in_channels)
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = BasicConv2d(in_channels, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, 1, 0)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = InceptionAux(768, num_classes, drop_aux) if aux else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.fc = nn.Linear(2048, num_classes)
        initialise(self)
        if aux:
            nn.init.normal_(self.AuxLogits.fc.weight, 0.0, 0.001)

    def execute(self, x):
        if self.transform_input:
            x = half_range(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x6 = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.avgpool(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x6))))
        x = self.fc(self.dropout(jt.flatten(x, 1)))
        if self.training and self.AuxLogits is not None:
            return x, self.AuxLogits(x6)
        return x


def inception_v2(num_classes=1000, in_channels=3, image_size=299, dropout=0.0):
    """25,493,448 parameters at 299x299 with 1000 classes; branch widths are ours (see the file)."""
    return InceptionV2(num_classes, in_channels, image_size, dropout)


def inception_v3(num_classes=1000, in_channels=3, image_size=299, aux=True, transform_input=False,
                 dropout=0.0, dropout_aux=0.0):
    """27,161,264 parameters at 299x299 with 1000 classes, 23,834,568 without the auxiliary head.

    `transform_input` takes images normalised with ImageNet's statistics to those of torchvision's
    weights. torchvision has dropout 0.5, and none in the head.
    """
    return InceptionV3(num_classes, in_channels, image_size, aux, transform_input, dropout,
                       dropout_aux)
