"""Inception-ResNet v1 and v2 (Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact
of residual connections on learning", arXiv:1602.07261), residuals scaled by 0.17, 0.10 and 0.20.

- `inception_resnet_v1`: the paper's v1 (figures 10 to 15): 5, 10 and 5 blocks.
- `inception_resnet_v1_facenet`: facenet-pytorch's layout and names, so its weights load: a sixth C
  block with scale 1 and without ReLU, a 512-d embedding with BatchNorm, then the classes.
- `inception_resnet_v2`: timm's layout and names (10, 20 and 10 blocks, v3's stem), so its weights
  load; Cadene's do through `cadene_key` (those files have 1001 classes, the first of them the
  background). The last C block has scale 1 and no ReLU.
- `inception_resnet_v2_paper`: the paper's v2: v4's stem, 5, 10 and 5 blocks of figures 16 to 19.
  The figures' 1154 and 2048 channels of the residual convolutions are slips: the additions need
  1152 and 2144.

In both the scaled residual is added as it is: its 1x1 convolution has a bias and no BatchNorm.
"""
import jittor as jt
from . import layers as nn

from zoo.catalog import out_size

from .blocks import BasicConv2d, Concat, chain, numbered
from .inception import REDUCTIONS, STEM
from .inception_v4 import flat_pool, pooled, reduction_a, stem_v4


class Residual(Concat):
    """x + scale * (1x1 convolution of the branches' `inner` channels), then ReLU."""

    def __init__(self, channels, inner, scale, activation, *branches):
        super().__init__(numbered(*branches))
        self.scale = scale
        self.conv2d = nn.Conv2d(inner, channels, 1)
        self.relu = nn.ReLU(inplace=True) if activation else nn.Identity()

    def execute(self, x):
        return self.relu(x + self.conv2d(self.concat(x)) * self.scale)


def block35(channels, second, third):
    """Block A (figures 10 and 16): 1x1; 1x1, 3x3; 1x1, 3x3, 3x3."""
    return Residual(
        channels, 64 + third, 0.17, True,
        BasicConv2d(channels, 32, 1),
        chain(channels, (32, 1), (32, 3)),
        chain(channels, (32, 1), (second, 3), (third, 3)))


def block17(channels, second, third):
    """Block B (figures 11 and 17): 1x1; 1x1, 1x7, 7x1."""
    return Residual(
        channels, 2 * third, 0.10, True,
        BasicConv2d(channels, third, 1),
        chain(channels, (128, 1), (second, (1, 7)), (third, (7, 1))))


def block8(channels, second, third, scale=0.20, activation=True):
    """Block C (figures 13 and 19): 1x1; 1x1, 1x3, 3x1."""
    return Residual(
        channels, 192 + third, scale, activation,
        BasicConv2d(channels, 192, 1),
        chain(channels, (192, 1), (second, (1, 3)), (third, (3, 1))))


def reduction_b(channels, second, third):
    """17x17 to 8x8 (figures 12 and 18)."""
    return Concat(numbered(
        chain(channels, (256, 1), (384, 3, 2, 0)),
        chain(channels, (256, 1), (second, 3, 2, 0)),
        chain(channels, (256, 1), (second, 3), (third, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2)))


def repeat(count, block, *widths):
    """`count` blocks of these widths, one after the other."""
    return nn.Sequential(*[block(*widths) for _ in range(count)])


class Stem(nn.Module):
    """What v1 (figure 14) and timm's v2 begin with: 192 channels of 71x71."""

    def __init__(self, in_channels, image_size):
        super().__init__()
        out_size(image_size, *STEM, *REDUCTIONS)
        self.conv2d_1a = BasicConv2d(in_channels, 32, 3, 2, 0)
        self.conv2d_2a = BasicConv2d(32, 32, 3, 1, 0)
        self.conv2d_2b = BasicConv2d(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = BasicConv2d(64, 80, 1)
        self.conv2d_4a = BasicConv2d(80, 192, 3, 1, 0)

    def stem(self, x):
        """The first six layers."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        return self.conv2d_4a(self.conv2d_3b(x))


class TrunkV1(Stem):
    """v1 up to its fifth C block: 1792 channels."""

    def __init__(self, in_channels, image_size):
        super().__init__(in_channels, image_size)
        self.conv2d_4b = BasicConv2d(192, 256, 3, 2, 0)
        self.repeat_1 = repeat(5, block35, 256, 32, 32)
        self.mixed_6a = reduction_a(256, 192, 192, 256, 384)
        self.repeat_2 = repeat(10, block17, 896, 128, 128)
        self.mixed_7a = reduction_b(896, 256, 256)
        self.repeat_3 = repeat(5, block8, 1792, 192, 192)

    def features(self, x):
        x = self.mixed_6a(self.repeat_1(self.conv2d_4b(self.stem(x))))
        return self.repeat_3(self.mixed_7a(self.repeat_2(x)))


class InceptionResNetV1(TrunkV1):
    """The paper's head: average pool, linear."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__(in_channels, image_size)
        self.avgpool_1a = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.last_linear = nn.Linear(1792, num_classes)

    def execute(self, x):
        x = jt.flatten(self.avgpool_1a(self.features(x)), 1)
        return self.last_linear(self.dropout(x))


class FaceNet(TrunkV1):
    """facenet-pytorch's head: a sixth C block, average pool, embedding, its BatchNorm, classes."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__(in_channels, image_size)
        self.block8 = block8(1792, 192, 192, 1.0, False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)
        self.logits = nn.Linear(512, num_classes)

    def execute(self, x):
        x = jt.flatten(self.avgpool_1a(self.block8(self.features(x))), 1)
        return self.logits(self.last_bn(self.last_linear(self.dropout(x))))


class InceptionResNetV2(Stem):
    """timm's net."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__(in_channels, image_size)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        self.mixed_5b = Concat(numbered(
            BasicConv2d(192, 96, 1),
            chain(192, (48, 1), (64, 5)),
            chain(192, (64, 1), (96, 3), (96, 3)),
            pooled(192, 64)))
        self.repeat = repeat(10, block35, 320, 48, 64)
        self.mixed_6a = reduction_a(320, 256, 256, 384, 384)
        self.repeat_1 = repeat(20, block17, 1088, 160, 192)
        self.mixed_7a = reduction_b(1088, 288, 320)
        self.repeat_2 = repeat(9, block8, 2080, 224, 256)
        self.block8 = block8(2080, 224, 256, 1.0, False)
        self.conv2d_7b = BasicConv2d(2080, 1536, 1)
        self.global_pool = flat_pool()
        self.head_drop = nn.Dropout(drop)
        self.classif = nn.Linear(1536, num_classes)

    def execute(self, x):
        x = self.mixed_5b(self.maxpool_5a(self.stem(x)))
        x = self.mixed_6a(self.repeat(x))
        x = self.repeat_2(self.mixed_7a(self.repeat_1(x)))
        x = self.global_pool(self.conv2d_7b(self.block8(x)))
        return self.classif(self.head_drop(x))


class InceptionResNetV2Paper(nn.Module):
    """v4's stem, 5 blocks A, reduction, 10 blocks B, reduction, 5 blocks C (figure 15), linear."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__()
        out_size(image_size, *STEM, *REDUCTIONS)
        self.stem = nn.Sequential(*stem_v4(in_channels))
        self.repeat = repeat(5, block35, 384, 48, 64)
        self.mixed_6a = reduction_a(384, 256, 256, 384, 384)
        self.repeat_1 = repeat(10, block17, 1152, 160, 192)
        self.mixed_7a = reduction_b(1152, 288, 320)
        self.repeat_2 = repeat(5, block8, 2144, 224, 256)
        self.global_pool = flat_pool()
        self.head_drop = nn.Dropout(drop)
        self.classif = nn.Linear(2144, num_classes)

    def execute(self, x):
        x = self.mixed_6a(self.repeat(self.stem(x)))
        x = self.repeat_2(self.mixed_7a(self.repeat_1(x)))
        return self.classif(self.head_drop(self.global_pool(x)))


def cadene_key(name):
    """`inception_resnet_v2`'s name of a weight from its name in Cadene's pretrained-models."""
    return name.replace("last_linear.", "classif.")


FOREIGN_KEYS = {"inception_resnet_v2": cadene_key}


def inception_resnet_v1(num_classes=1000, in_channels=3, image_size=299, dropout=0.0):
    """22,756,328 parameters at 299x299 with 1000 classes; the paper has dropout 0.2."""
    return InceptionResNetV1(num_classes, in_channels, image_size, dropout)


def inception_resnet_v1_facenet(num_classes=8631, in_channels=3, image_size=160, dropout=0.0):
    """27,910,327 parameters at 160x160 with 8631 classes, 23,995,624 with 1000.

    8631 are the identities of VGGFace2, on which facenet-pytorch's better-known weights were
    trained (its CASIA-WebFace weights have 10575). Returns logits. There dropout is 0.6.
    """
    return FaceNet(num_classes, in_channels, image_size, dropout)


def inception_resnet_v2(num_classes=1000, in_channels=3, image_size=299, dropout=0.0):
    """55,843,464 parameters at 299x299 with 1000 classes; the paper has dropout 0.2."""
    return InceptionResNetV2(num_classes, in_channels, image_size, dropout)


def inception_resnet_v2_paper(num_classes=1000, in_channels=3, image_size=299, dropout=0.0):
    """32,433,928 parameters at 299x299 with 1000 classes; the paper has dropout 0.2."""
    return InceptionResNetV2Paper(num_classes, in_channels, image_size, dropout)
