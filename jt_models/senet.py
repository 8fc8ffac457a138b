"""Squeeze-and-excitation ResNets (Hu et al. 2017, "Squeeze-and-excitation networks",
arXiv:1709.01507), reduction 16, in the two forms of the lab reports.

- `se_resnet18_lab` (report 001): a 7x7 stem of stride 2 without max-pool; each basic block scales
  its output before the addition.
- `se_resnet18_preact` (report 000): pre-activation blocks, 3x3 stem. As printed, there is no
  BatchNorm and ReLU before the last pool; a shortcut convolution has no BatchNorm and starts from
  the activated tensor, an identity shortcut from the raw one. Repaired: pooling was fixed to
  32x32 images.
"""
import jittor as jt
from . import layers as nn
from .layers import adaptive_avg_pool2d, dropout, relu, sigmoid


class SE(nn.Module):
    """Weights each channel by a gate in (0, 1) computed from all channel means (section 3)."""

    def __init__(self, channels):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def execute(self, x):
        return x * sigmoid(self.fc2(relu(self.fc1(self.avg_pool(x)))))


class SEBasicBlock(nn.Module):
    """ResNet's basic block with SE before the addition (report 001)."""

    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))
        self.se = SE(planes)

    def execute(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.se(self.bn2(self.conv2(out)))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(out + x)


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

    def execute(self, x):
        out = self.prepare(x)
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.myconv2(self.myconv1(out))
        gate = sigmoid(self.fc2(relu(self.fc1(adaptive_avg_pool2d(out, 1)))))
        return out * gate + x


def stages(block):
    """Four stages of two blocks with 64, 128, 256, 512 planes."""
    planes = (64, 128, 256, 512)
    return [nn.Sequential(block(planes[max(i - 1, 0)], planes[i], 1 if i == 0 else 2),
                          block(planes[i], planes[i], 1)) for i in range(4)]


class LabSEResNet(nn.Module):
    """SE-ResNet-18 of lab report 001, with its names."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(SEBasicBlock)
        self.avg_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)

    def execute(self, x):
        x = self.relu(self.bn(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = jt.flatten(self.avg_pool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


class LabSEPreAct(nn.Module):
    """Pre-activation SE-ResNet-18 of lab report 000, with its names."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(SEPreActBlock)
        self.linear = nn.Linear(512, num_classes)

    def execute(self, x):
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = jt.flatten(adaptive_avg_pool2d(x, 1), 1)
        return self.linear(dropout(x, self.drop, self.training))


def se_resnet18_lab(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 001; 11,270,722 parameters for CIFAR-10, at any image size."""
    return LabSEResNet(num_classes, in_channels, dropout)


def se_resnet18_preact(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000; 11,260,354 parameters for CIFAR-10, at any image size."""
    return LabSEPreAct(num_classes, in_channels, dropout)
