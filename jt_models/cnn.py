"""The small CNNs of the lab reports on CIFAR-10: two 5x5 convolutions with pooling, three linear layers.

`cnn` (report 002) and `cnn_1x1` (report 000) have no padding, although the comments in both say
padding 2; `cnn_pad2` (report 001) pads its first convolution by 2. `cnn_1x1` has a third, 1x1
convolution; the report's 19x19 convolution `short_cut1`, declared and never called, is left out.
"""
import jittor as jt
from . import layers as nn
from .layers import dropout, relu

from zoo.catalog import out_size


class CNN(nn.Module):
    """conv1, pool, conv2, pool, (conv3,) fc1, fc2, fc3, with a ReLU after all but the last.

    The size of fc1 follows the image: 16x5x5 at 32x32 pixels without padding, as in the reports.
    """

    def __init__(self, num_classes, in_channels, image_size, padding, pointwise, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 16, 1) if pointwise else None
        side = out_size(image_size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0))
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def execute(self, x):
        x = self.pool(relu(self.conv1(x)))
        x = self.pool(relu(self.conv2(x)))
        if self.conv3 is not None:
            x = relu(self.conv3(x))
        x = jt.flatten(x, 1)
        x = relu(self.fc1(x))
        x = relu(self.fc2(x))
        return self.fc3(dropout(x, self.drop, self.training))


def cnn(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 002: no padding; 62,006 parameters for CIFAR-10."""
    return CNN(num_classes, in_channels, image_size, 0, False, dropout)


def cnn_pad2(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 001: padding 2 in the first convolution; 83,126 parameters for CIFAR-10."""
    return CNN(num_classes, in_channels, image_size, 2, False, dropout)


def cnn_1x1(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000: a third, 1x1 convolution; 62,278 parameters for CIFAR-10."""
    return CNN(num_classes, in_channels, image_size, 0, True, dropout)
