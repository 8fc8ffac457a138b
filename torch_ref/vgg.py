"""VGG (Simonyan, Zisserman 2014, "Very deep convolutional networks for large-scale image
recognition", arXiv:1409.1556): all columns of its table 1, each also with BatchNorm (`_bn`, after
every convolution). Columns A, B, D, E have torchvision's layout and names, so its weights load.

Images of up to 64 pixels, or stem="small", get a small head, usual for CIFAR, on the same
convolutions: average pool to 1x1 and 512-512-512-`num_classes`, where the native one pools to 7x7
and has 25088-4096-4096-`num_classes`. The smallest image is 32x32 with either head.

`vgg_mnist` is lab report 004's: two blocks of two convolutions.
"""
import torch
from torch import nn

from zoo.catalog import out_size, small_stem

from .alexnet import lrn

# Convolutions in each of the five blocks: the columns of table 1.
A = (1, 1, 2, 2, 2)
B = (2, 2, 2, 2, 2)
C = D = (2, 2, 3, 3, 3)
E = (2, 2, 4, 4, 4)


def make_layers(column, in_channels, batch_norm, pointwise=False, local_norm=False):
    """The five blocks.

    Args:
        pointwise: the third convolution of a block is 1x1 (column C).
        local_norm: response normalisation after the first ReLU (column A-LRN).
    """
    layers = []
    for width, count in zip((64, 128, 256, 512, 512), column):
        for i in range(count):
            kernel = 1 if pointwise and i == 2 else 3
            layers.append(nn.Conv2d(in_channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            in_channels = width
            if local_norm:
                layers.append(lrn())
                local_norm = False
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """`features`, average pool, and three linear layers with dropout after the first two."""

    def __init__(self, features, num_classes, image_size, stem, dropout):
        super().__init__()
        out_size(image_size, *[(2, 2, 0)] * 5)
        small = small_stem(stem, image_size)
        side, width = (1, 512) if small else (7, 4096)
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((side, side))
        self.classifier = nn.Sequential(
            nn.Linear(512 * side * side, width), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(width, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.constant_(module.bias, 0)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.constant_(module.bias, 0)

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def vgg11(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column A; 132,863,336 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(A, in_channels, False)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg11_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column A with BatchNorm; 132,868,840 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(A, in_channels, True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg11_lrn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column A-LRN; 132,863,336 parameters at 224x224; dropout in the paper: 0.5."""
    features = make_layers(A, in_channels, False, local_norm=True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg11_lrn_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column A-LRN with BatchNorm; 132,868,840 parameters at 224x224; dropout in the paper: 0.5."""
    features = make_layers(A, in_channels, True, local_norm=True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg13(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column B; 133,047,848 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(B, in_channels, False)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg13_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column B with BatchNorm; 133,053,736 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(B, in_channels, True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg16_1x1(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column C; 133,638,952 parameters at 224x224; dropout in the paper: 0.5."""
    features = make_layers(C, in_channels, False, pointwise=True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg16_1x1_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column C with BatchNorm; 133,647,400 parameters at 224x224; dropout in the paper: 0.5."""
    features = make_layers(C, in_channels, True, pointwise=True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg16(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column D; 138,357,544 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(D, in_channels, False)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg16_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column D with BatchNorm; 138,365,992 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(D, in_channels, True)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg19(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column E; 143,667,240 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(E, in_channels, False)
    return VGG(features, num_classes, image_size, stem, dropout)


def vgg19_bn(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """Column E with BatchNorm; 143,678,248 parameters at 224x224; dropout in torchvision: 0.5."""
    features = make_layers(E, in_channels, True)
    return VGG(features, num_classes, image_size, stem, dropout)


class MnistVGG(nn.Module):
    """Lab report 004: two blocks, then 512-512-`num_classes`."""

    def __init__(self, num_classes, in_channels, image_size, dropout):
        super().__init__()
        side = out_size(image_size, (2, 2, 0), (2, 2, 0))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, stride=2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, stride=2))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(128 * side * side, 512), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(512, 512), nn.ReLU(),
            nn.Linear(512, num_classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(torch.flatten(x, 1))


def vgg_mnist(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Lab report 004; 3,738,570 parameters for MNIST; the lab's dropout is 0.4."""
    return MnistVGG(num_classes, in_channels, image_size, dropout)
