"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document
recognition", section II.B), as it is taught today: plain tanh, average pooling without weights,
full connection in the second convolution, and linear outputs in place of radial basis functions.

`lenet_bn` is lab report 004's: sigmoid, BatchNorm (before the first sigmoid, after the second),
max-pooling, ReLU between the linear layers. Its prose has 32x32 images and no padding, its printout
28x28 and a first convolution that keeps the size; the padding rule below gives both.
"""
import jittor as jt
from . import layers as nn

from zoo.catalog import out_size


def padding_and_side(image_size):
    """Padding of the first convolution, and side of the last feature maps.

    Images of up to 28 pixels are padded by 2, as the paper pads MNIST's 28x28 to 32x32.
    """
    padding = 2 if image_size <= 28 else 0
    return padding, out_size(image_size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0))


class LeNet(nn.Module):
    """Two tanh convolutions with average pooling, then 120-84-`num_classes`."""

    def __init__(self, num_classes, in_channels, image_size, dropout):
        super().__init__()
        padding, side = padding_and_side(image_size)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=padding), nn.Tanh(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 120), nn.Tanh(),
            nn.Linear(120, 84), nn.Tanh(),
            nn.Dropout(dropout), nn.Linear(84, num_classes))

    def execute(self, x):
        x = self.features(x)
        return self.classifier(jt.flatten(x, 1))


class LeNetBN(nn.Module):
    """Lab report 004: sigmoid convolutions with BatchNorm and max-pooling."""

    def __init__(self, num_classes, in_channels, image_size, dropout):
        super().__init__()
        padding, side = padding_and_side(image_size)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=padding), nn.BatchNorm2d(6), nn.Sigmoid(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.BatchNorm2d(16), nn.MaxPool2d(2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, num_classes), nn.Dropout(dropout))

    def execute(self, x):
        x = self.features(x)
        return self.classifier(jt.flatten(x, 1))


def lenet(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Classic LeNet-5; 61,706 parameters for MNIST."""
    return LeNet(num_classes, in_channels, image_size, dropout)


def lenet_bn(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Lab report 004; 61,750 parameters for MNIST; dropout (lab: 0.1) acts on the logits."""
    return LeNetBN(num_classes, in_channels, image_size, dropout)
