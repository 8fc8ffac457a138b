"""ResNet for 32x32 images (He et al. 2015, arXiv:1512.03385, section 4.2), and the same nets
without shortcuts: a 3x3 stem and three stages of n blocks with 16, 32 and 64 planes, 6n + 2 layers.

Where the shape changes, the shortcut has no parameters (option A): every second pixel, and zeros
for the new channels, here after the old ones (the paper leaves their place open). Names and initial
weights are those of torchvision's ResNet.
"""
import jittor as jt
from . import layers as nn
from .layers import dropout

from .resnet import BasicBlock, PlainBlock, initialise, make_layer


class Subsample(nn.Module):
    """Every second pixel, and as many zero channels again: option A for twice the planes."""

    def execute(self, x):
        x = x[:, :, ::2, ::2]
        return nn.concat((x, jt.zeros_like(x)), 1)


def subsample(inplanes, planes, stride):
    """`Subsample`; the shape only ever changes by half the size and twice the planes."""
    return Subsample()


class PaddedBlock(BasicBlock):
    """Two 3x3 convolutions, and a shortcut without parameters."""
    shortcut = staticmethod(subsample)


class CifarResNet(nn.Module):
    """Stem, three stages of `blocks` blocks, average pool, linear."""

    def __init__(self, block, blocks, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = make_layer(block, 16, 16, blocks, 1)
        self.layer2 = make_layer(block, 16, 32, blocks, 2)
        self.layer3 = make_layer(block, 32, 64, blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, num_classes)
        initialise(self)

    def execute(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = jt.flatten(self.avgpool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


def resnet20_cifar(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """269,722 parameters for CIFAR-10, at any image size."""
    return CifarResNet(PaddedBlock, 3, num_classes, in_channels, dropout)


def resnet56_cifar(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """853,018 parameters for CIFAR-10, at any image size."""
    return CifarResNet(PaddedBlock, 9, num_classes, in_channels, dropout)


def plain20_cifar(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """resnet20_cifar without shortcuts; 269,722 parameters for CIFAR-10, at any image size."""
    return CifarResNet(PlainBlock, 3, num_classes, in_channels, dropout)


def plain56_cifar(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """resnet56_cifar without shortcuts; 853,018 parameters for CIFAR-10, at any image size."""
    return CifarResNet(PlainBlock, 9, num_classes, in_channels, dropout)
