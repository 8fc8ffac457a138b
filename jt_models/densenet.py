"""DenseNet (Huang et al. 2016, "Densely connected convolutional networks", arXiv:1608.06993).

`densenet121/161/169/201` have torchvision's layout and names, so its weights load. Images of up to
64 pixels get the small stem: one 3x3 convolution of stride 1 and no max-pooling.
`densenet_bc_100_12` is the paper's for CIFAR (section 3), with the same names: three blocks of 16
layers, 100 layers in all, and no BatchNorm or ReLU between the 3x3 stem and the first block. The
paper's dropout after each convolution (0.2, without augmentation only) is not built.

The lab's nets have two dense blocks of six layers, growth 32 and 64, all convolutions with bias,
and no BatchNorm before the head. ReLUs behind a BatchNorm are in place here, which changes no number:
- `densenet` (report 001): 3x3 transition and 2x2 average pool, one linear layer. The report prints
  the modules only; the order of its forward is taken from the order of registration.
- `densenet_wide` (report 000, printout): no pool in the transition, head 28672-512-10.
- `densenet_fc128` (report 000, listing): head 7168-128-10. The listing cannot run (`nn.sequential`,
  and a head that does not fit); repaired by the 2x2 average pool that its prose asks for.

`densenet121_mnist` is lab report 004's, repaired: its 58 dense layers sat in plain lists, so that
they were neither counted nor trained. It resizes images to 32x32; its stem convolution has a bias,
and neither BatchNorm nor ReLU follows the last block.
"""
from collections import OrderedDict

import jittor as jt
from . import layers as nn
from .layers import dropout, interpolate

from zoo.catalog import out_size, small_stem


class DenseLayer(nn.Module):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3 (DenseNet-B, section 3): `growth` new feature maps."""

    def __init__(self, channels, growth, bn_size=4):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, bn_size * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth, growth, 3, padding=1, bias=False)

    def execute(self, x):
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.Module):
    """`layers` dense layers, each fed with the concatenation of the input and all before it."""

    def __init__(self, layers, channels, growth):
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth))

    def execute(self, x):
        for layer in self.children():
            x = nn.concat((x, layer(x)), 1)
        return x


def transition(channels):
    """BN-ReLU-conv1x1 that halves the channels (DenseNet-C), then a 2x2 average pool."""
    return nn.Sequential(OrderedDict([
        ("norm", nn.BatchNorm2d(channels)),
        ("relu", nn.ReLU(inplace=True)),
        ("conv", nn.Conv2d(channels, channels // 2, 1, bias=False)),
        ("pool", nn.AvgPool2d(2, stride=2))]))


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, BatchNorm, ReLU, average pool, linear.

    Args:
        stem_norm: BatchNorm and ReLU follow the convolution of the small stem.
    """

    def __init__(self, growth, blocks, stem_channels, num_classes, in_channels, image_size, stem,
                 drop, stem_norm=True):
        super().__init__()
        self.drop = drop
        halves = [(2, 2, 0)] * (len(blocks) - 1)
        channels = stem_channels
        if small_stem(stem, image_size):
            out_size(image_size, *halves)
            layers = [("conv0", nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))]
            if stem_norm:
                layers += [("norm0", nn.BatchNorm2d(channels)), ("relu0", nn.ReLU(inplace=True))]
        else:
            out_size(image_size, (7, 2, 3), (3, 2, 1), *halves)
            layers = [("conv0", nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)),
                      ("norm0", nn.BatchNorm2d(channels)),
                      ("relu0", nn.ReLU(inplace=True)),
                      ("pool0", nn.MaxPool2d(3, stride=2, padding=1))]
        for i, count in enumerate(blocks):
            layers.append((f"denseblock{i + 1}", DenseBlock(count, channels, growth)))
            channels += count * growth
            if i + 1 < len(blocks):
                layers.append((f"transition{i + 1}", transition(channels)))
                channels //= 2
        layers.append(("norm5", nn.BatchNorm2d(channels)))
        self.features = nn.Sequential(OrderedDict(layers))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.constant_(self.classifier.bias, 0)

    def execute(self, x):
        x = self.relu(self.features(x))
        x = jt.flatten(self.avgpool(x), 1)
        return self.classifier(dropout(x, self.drop, self.training))


def densenet121(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """7,978,856 parameters at 224x224 with 1000 classes."""
    return DenseNet(32, (6, 12, 24, 16), 64, num_classes, in_channels, image_size, stem, dropout)


def densenet161(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """28,681,000 parameters at 224x224 with 1000 classes."""
    return DenseNet(48, (6, 12, 36, 24), 96, num_classes, in_channels, image_size, stem, dropout)


def densenet169(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """14,149,480 parameters at 224x224 with 1000 classes."""
    return DenseNet(32, (6, 12, 32, 32), 64, num_classes, in_channels, image_size, stem, dropout)


def densenet201(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """20,013,928 parameters at 224x224 with 1000 classes."""
    return DenseNet(32, (6, 12, 48, 32), 64, num_classes, in_channels, image_size, stem, dropout)


def densenet_bc_100_12(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """769,162 parameters for CIFAR-10; `dropout` acts before the linear layer, as in the others."""
    return DenseNet(12, (16, 16, 16), 24, num_classes, in_channels, image_size, "small", dropout,
                    stem_norm=False)


class DenseBasic(nn.Module):
    """The lab's dense layer: its output is the input with `growth` feature maps appended."""

    def __init__(self, channels, growth):
        super().__init__()
        self.layer = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, growth * 4, 1),
            nn.BatchNorm2d(growth * 4), nn.ReLU(inplace=True), nn.Conv2d(growth * 4, growth, 3, padding=1))

    def execute(self, x):
        return nn.concat((x, self.layer(x)), 1)


class LabDenseBlock(nn.Module):
    """Six `DenseBasic` layers: from `channels` to 7 x `channels` maps, as growth = channels."""

    def __init__(self, channels):
        super().__init__()
        self.denseblock = nn.Sequential(
            *[DenseBasic(channels * (i + 1), channels) for i in range(6)])

    def execute(self, x):
        return self.denseblock(x)


class LabDenseNet(nn.Module):
    """Lab report 001, with its names."""

    def __init__(self, num_classes, in_channels, image_size, drop):
        super().__init__()
        side = out_size(image_size, (7, 2, 3), (2, 2, 0), (2, 2, 0))
        self.drop = drop
        self.conv = nn.Conv2d(in_channels, 32, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(32)
        self.max_pool = nn.MaxPool2d(2, 2)
        self.relu = nn.ReLU()
        self.denseblock1 = LabDenseBlock(32)
        self.bn2 = nn.BatchNorm2d(224)
        self.conv1 = nn.Conv2d(224, 64, 3, padding=1)
        self.avg1 = nn.AvgPool2d(2, 2)
        self.denseblock2 = LabDenseBlock(64)
        self.fc1 = nn.Linear(448 * side * side, num_classes)

    def execute(self, x):
        x = self.relu(self.max_pool(self.bn1(self.conv(x))))
        x = self.denseblock1(x)
        x = self.avg1(self.conv1(self.bn2(x)))
        x = jt.flatten(self.denseblock2(x), 1)
        return self.fc1(dropout(x, self.drop, self.training))


class Transistion(nn.Module):
    """BatchNorm and a 3x3 convolution to 64 maps, with or without a 2x2 average pool (report 000)."""

    def __init__(self, pool):
        super().__init__()
        layers = [nn.BatchNorm2d(224), nn.Conv2d(224, 64, 3, padding=1)]
        self.mytransistion = nn.Sequential(*layers, *([nn.AvgPool2d(2)] if pool else []))

    def execute(self, x):
        return self.mytransistion(x)


class LabDenseNet000(nn.Module):
    """Lab report 000, with its names."""

    def __init__(self, num_classes, in_channels, image_size, pool, hidden, drop):
        super().__init__()
        side = out_size(image_size, (7, 2, 3), (2, 2, 0), *([(2, 2, 0)] if pool else []))
        self.drop = drop
        self.sovleinput = nn.Sequential(
            nn.Conv2d(in_channels, 32, 7, stride=2, padding=3),
            nn.BatchNorm2d(32), nn.MaxPool2d(2), nn.ReLU())
        self.denseblock1 = LabDenseBlock(32)
        self.transistion1 = Transistion(pool)
        self.denseblock2 = LabDenseBlock(64)
        self.fc = nn.Sequential(
            nn.Linear(448 * side * side, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def execute(self, x):
        x = self.denseblock1(self.sovleinput(x))
        x = self.denseblock2(self.transistion1(x))
        return self.fc(dropout(jt.flatten(x, 1), self.drop, self.training))


def densenet(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 001; 1,753,546 parameters for CIFAR-10."""
    return LabDenseNet(num_classes, in_channels, image_size, dropout)


def densenet_wide(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000, printout; 16,367,562 parameters for CIFAR-10."""
    return LabDenseNet000(num_classes, in_channels, image_size, False, 512, dropout)


def densenet_fc128(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000, listing, repaired; 2,600,778 parameters for CIFAR-10."""
    return LabDenseNet000(num_classes, in_channels, image_size, True, 128, dropout)


class MnistDenseNet(nn.Module):
    """Lab report 004, with the parts of its printout."""

    def __init__(self, num_classes, in_channels, dropout):
        super().__init__()
        channels, parts = 64, []
        for count in (6, 12, 24, 16):
            if parts:
                parts.append(transition(channels))
                channels //= 2
            else:
                parts.append(nn.Sequential(
                    nn.Conv2d(in_channels, channels, 7, stride=2, padding=3),
                    nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)))
            parts.append(DenseBlock(count, channels, 32))
            channels += count * 32
        self.feature_extractor = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Linear(channels, num_classes), nn.Dropout(dropout))

    def execute(self, x):
        x = interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
        x = self.avgpool(self.feature_extractor(x))
        return self.classifier(jt.flatten(x, 1))


def densenet121_mnist(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Lab report 004, repaired; 6,955,850 parameters; dropout (lab: 0.2) acts on the logits."""
    return MnistDenseNet(num_classes, in_channels, dropout)
