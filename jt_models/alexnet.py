"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional
neural networks") and its descendants.

- `alexnet`: torchvision's layout and names, so its weights load: the single tower of Krizhevsky
  2014 ("One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997).
- `alexnet_paper`: the paper's two towers as two groups in the 2nd, 4th and 5th convolution, with
  its local response normalisation and its initial weights.
- `alexnet_single`: the same as one tower, the list of study notes 003.
- `alexnet_mnist`: lab report 004, whose first convolution has stride 1.

An 11x11 convolution of stride 4 makes 55x55 of 227x227 without padding or of 224x224 with padding
2, never of the 224x224 without padding that the notes give: padding 2 here. The notes' 13x13 after
the 2nd convolution is the size after its pool. But for `alexnet_mnist`, the last feature maps are
pooled to 6x6 (which they have at 224x224), and dropout precedes the first two linear layers, both
as in torchvision; the paper drops these layers' outputs. `hidden` is the width of these two.
"""
from collections import OrderedDict

import jittor as jt
from . import layers as nn

from zoo.catalog import out_size

# (kernel, stride, padding) of the layers that change the image size.
SIZES = ((11, 4, 2), (3, 2, 0), (3, 2, 0), (3, 2, 0))
SIZES_MNIST = ((11, 1, 6), (3, 2, 0), (3, 2, 0), (3, 2, 0))


def lrn():
    """Local response normalisation, section 3.3: k 2, n 5, alpha 1e-4, beta 0.75.

    Over all channels, of both towers. The layer divides alpha by n, the paper does not: 5e-4 here.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet(nn.Module):
    """`features`, average pool to 6x6, and three linear layers."""

    def __init__(self, features, num_classes, image_size, dropout, hidden):
        super().__init__()
        out_size(image_size, *SIZES)
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, hidden), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes))

    def execute(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(jt.flatten(x, 1))


def alexnet(num_classes=1000, in_channels=3, image_size=224, dropout=0.0, hidden=4096):
    """61,100,840 parameters at 224x224 with 1000 classes; torchvision's dropout is 0.5."""
    features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2))
    return AlexNet(features, num_classes, image_size, dropout, hidden)


def alexnet2012(num_classes, in_channels, image_size, dropout, hidden, groups):
    """The paper's net (figure 2) with `groups` towers, and its initial weights (section 5)."""
    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4, padding=2), nn.ReLU(inplace=True), lrn(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(inplace=True), lrn(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2))
    net = AlexNet(features, num_classes, image_size, dropout, hidden)
    # Section 5: bias 1 gives the ReLUs after these layers positive inputs early in training.
    for layer, bias in ((features[0], 0), (features[4], 1), (features[8], 0), (features[10], 1),
                        (features[12], 1), (net.classifier[1], 1), (net.classifier[4], 1),
                        (net.classifier[6], 0)):
        nn.init.normal_(layer.weight, 0, 0.01)
        nn.init.constant_(layer.bias, bias)
    return net


def alexnet_paper(num_classes=1000, in_channels=3, image_size=224, dropout=0.0, hidden=4096):
    """60,965,224 parameters at 224x224 with 1000 classes; the paper's dropout is 0.5."""
    return alexnet2012(num_classes, in_channels, image_size, dropout, hidden, 2)


def alexnet_single(num_classes=1000, in_channels=3, image_size=224, dropout=0.0, hidden=4096):
    """62,378,344 parameters at 224x224 with 1000 classes; the paper's dropout is 0.5."""
    return alexnet2012(num_classes, in_channels, image_size, dropout, hidden, 1)


class MnistAlexNet(nn.Module):
    """Lab report 004, with the names of its printout.

    The normalisation after the first two pools and the dropout after the first two linear layers
    are its prose's; the printout hides what is inside each part.
    """

    def __init__(self, num_classes, in_channels, image_size, dropout, hidden):
        super().__init__()
        side = out_size(image_size, *SIZES_MNIST)
        self.features = nn.Sequential(OrderedDict([
            ("Conv1", nn.Sequential(nn.Conv2d(in_channels, 96, 11, padding=6), nn.ReLU())),
            ("Pool1", nn.Sequential(nn.MaxPool2d(3, stride=2), lrn())),
            ("Conv2", nn.Sequential(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU())),
            ("Pool2", nn.Sequential(nn.MaxPool2d(3, stride=2), lrn())),
            ("Conv3", nn.Sequential(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU())),
            ("Conv4", nn.Sequential(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU())),
            ("Conv5", nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU())),
            ("Pool5", nn.Sequential(nn.MaxPool2d(3, stride=2)))]))
        self.classifier = nn.Sequential(OrderedDict([
            ("FC6", nn.Sequential(
                nn.Linear(256 * side * side, hidden), nn.ReLU(), nn.Dropout(dropout))),
            ("FC7", nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout))),
            ("FC8", nn.Sequential(nn.Linear(hidden, num_classes)))]))

    def execute(self, x):
        x = self.features(x)
        return self.classifier(jt.flatten(x, 1))


def alexnet_mnist(num_classes=10, in_channels=1, image_size=28, dropout=0.0, hidden=4096):
    """Lab report 004; 24,744,650 parameters for MNIST; the lab's dropout is 0.2."""
    return MnistAlexNet(num_classes, in_channels, image_size, dropout, hidden)
