"""Squeeze-and-excitation networks (Hu et al. 2017, arXiv:1709.01507), reduction 16.

`se_resnet18/34/50/101/152` have the layout and names of timm's legacy_seresnet nets (of which 50
and deeper are Cadene's), so their weights load. Like those, the bottleneck strides in its first
1x1 convolution, the stem's max-pool rounds up in place of padding, and the basic block has a ReLU
before SE, which figure 3 of the paper has not. Images of up to 64 pixels get the small stem: one
3x3 convolution of stride 1 and no max-pooling.

`se_bn_inception` is BN-Inception with SE after every inception block (figure 2).

`se_resnet20_cifar` is `resnet20_cifar` with SE at the end of each block's branch (figure 3), and nothing else changed.

Of the lab reports:
- `se_resnet18_lab` (report 001): a 7x7 stem of stride 2 without max-pool; each basic block scales
  its output before the addition.
- `se_resnet18_preact` (report 000): pre-activation blocks, 3x3 stem. As printed, there is no
  BatchNorm and ReLU before the last pool; a shortcut convolution has no BatchNorm and starts from
  the activated tensor, an identity shortcut from the raw one. Repaired: pooling was fixed to
  32x32 images.
"""
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, dropout, relu, sigmoid

from zoo.catalog import out_size, small_stem

from .bn_inception import BNInception
from .resnet import BasicBlock, Bottleneck, four_stages, initialise
from .resnet_cifar import CifarResNet, subsample


class SE(nn.Module):
    """Weights each channel by a gate in (0, 1) computed from all channel means (section 3)."""

    def __init__(self, channels):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x):
        return x * sigmoid(self.fc2(relu(self.fc1(self.avg_pool(x)))))


class SEResNetBlock(BasicBlock):
    """ResNet's basic block with SE before the addition, and a ReLU before SE (as timm's)."""

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__(inplanes, planes, stride, downsample)
        self.se_module = SE(planes)

    def residual(self, x):
        """The branch beside the shortcut."""
        return self.se_module(self.relu(super().residual(x)))


class SEResNetBottleneck(Bottleneck):
    """ResNet's bottleneck with SE before the addition, the stride in the first 1x1."""

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__(inplanes, planes, 1, downsample)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False)
        self.se_module = SE(planes * self.expansion)

    def residual(self, x):
        """The branch beside the shortcut."""
        return self.se_module(super().residual(x))


class SEResNet(nn.Module):
    """Stem, four stages of `layers` blocks, average pool, linear."""

    def __init__(self, block, layers, num_classes, in_channels, image_size, stem, drop):
        super().__init__()
        self.drop = drop
        if small_stem(stem, image_size):
            conv = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.pool0 = nn.Identity()
        else:
            # A 3x3 pool that rounds up leaves what a 2x2 pool that rounds down does.
            out_size(image_size, (7, 2, 3), (2, 2, 0))
            conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.pool0 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.layer0 = nn.Sequential(OrderedDict([
            ("conv1", conv), ("bn1", nn.BatchNorm2d(64)), ("relu1", nn.ReLU(inplace=True))]))
        self.layer1, self.layer2, self.layer3, self.layer4 = four_stages(block, layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.last_linear = nn.Linear(512 * block.expansion, num_classes)
        initialise(self)

    def forward(self, x):
        x = self.pool0(self.layer0(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avgpool(x), 1)
        return self.last_linear(dropout(x, self.drop, self.training))


def se_resnet18(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """11,778,592 parameters at 224x224 with 1000 classes; dropout in timm: 0.2."""
    return SEResNet(SEResNetBlock, [2, 2, 2, 2], num_classes, in_channels, image_size,
                    stem, dropout)


def se_resnet34(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """21,958,868 parameters at 224x224 with 1000 classes; dropout in timm: 0.2."""
    return SEResNet(SEResNetBlock, [3, 4, 6, 3], num_classes, in_channels, image_size,
                    stem, dropout)


def se_resnet50(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """28,088,024 parameters at 224x224 with 1000 classes; dropout in timm: 0.2."""
    return SEResNet(SEResNetBottleneck, [3, 4, 6, 3], num_classes, in_channels, image_size,
                    stem, dropout)


def se_resnet101(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """49,326,872 parameters at 224x224 with 1000 classes; dropout in timm: 0.2."""
    return SEResNet(SEResNetBottleneck, [3, 4, 23, 3], num_classes, in_channels, image_size,
                    stem, dropout)


def se_resnet152(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """66,821,848 parameters at 224x224 with 1000 classes; dropout in timm: 0.2."""
    return SEResNet(SEResNetBottleneck, [3, 8, 36, 3], num_classes, in_channels, image_size,
                    stem, dropout)


def se_bn_inception(num_classes=1000, in_channels=3, image_size=224, conv_bias=True, dropout=0.0):
    """bn_inception with SE; 11,941,638 parameters at 224x224 with 1000 classes."""
    return BNInception(num_classes, in_channels, image_size, conv_bias, dropout, SE)


class SEBasicBlock(BasicBlock):
    """ResNet's basic block with SE before the addition (figure 3; report 001)."""

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__(inplanes, planes, stride, downsample)
        self.se = SE(planes)

    def residual(self, x):
        """The branch beside the shortcut."""
        return self.se(super().residual(x))


class SEPaddedBlock(SEBasicBlock):
    """The block of ResNets for 32x32 images, whose shortcut has no parameters, with SE before the addition."""
    shortcut = staticmethod(subsample)


class SEPreActBlock(nn.Module):
    """Pre-activation block (He et al. 2016, arXiv:1603.05027) with SE, as report 000 prints it."""

    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.prepare = nn.Sequential(nn.BatchNorm2d(inplanes), nn.ReLU())
        self.myconv1 = nn.Sequential(
            nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(planes), nn.ReLU())
        self.myconv2 = nn.Sequential(nn.Conv2d(planes, planes, 3, padding=1, bias=False))
        self.shortcut = None
        if stride != 1 or inplanes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False))
        self.fc1 = nn.Conv2d(planes, planes // 16, 1)
        self.fc2 = nn.Conv2d(planes // 16, planes, 1)

    def forward(self, x):
        out = self.prepare(x)
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.myconv2(self.myconv1(out))
        gate = sigmoid(self.fc2(relu(self.fc1(adaptive_avg_pool2d(out, 1)))))
        return out * gate + x


class LabSEResNet(nn.Module):
    """SE-ResNet-18 of lab report 001, with its names."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = four_stages(SEBasicBlock, [2] * 4)
        self.avg_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x):
        x = self.relu(self.bn(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avg_pool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


class LabSEPreAct(nn.Module):
    """Pre-activation SE-ResNet-18 of lab report 000, with its names."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        planes = (64, 128, 256, 512)
        self.layer1, self.layer2, self.layer3, self.layer4 = [nn.Sequential(
            SEPreActBlock(planes[max(i - 1, 0)], planes[i], 1 if i == 0 else 2),
            SEPreActBlock(planes[i], planes[i], 1)) for i in range(4)]
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(adaptive_avg_pool2d(x, 1), 1)
        return self.linear(dropout(x, self.drop, self.training))


def se_resnet18_lab(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 001; 11,270,722 parameters for CIFAR-10, at any image size."""
    return LabSEResNet(num_classes, in_channels, dropout)


def se_resnet18_preact(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000; 11,260,354 parameters for CIFAR-10, at any image size."""
    return LabSEPreAct(num_classes, in_channels, dropout)


def se_resnet20_cifar(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """resnet20_cifar with SE; 272,095 parameters for CIFAR-10, at any image size."""
    return CifarResNet(SEPaddedBlock, 3, num_classes, in_channels, dropout)
