"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document
recognition", section II.B), as it is taught today: plain tanh, average pooling without weights,
full connection in the second convolution, and linear outputs in place of radial basis functions.
"""
import torch
from torch import nn

from zoo.catalog import out_size


class LeNet(nn.Module):
    """Two tanh convolutions with average pooling, then 120-84-`num_classes`.

    Images of up to 28 pixels are padded by 2, as the paper pads MNIST's 28x28 to 32x32.
    """

    def __init__(self, num_classes, in_channels, image_size, dropout):
        super().__init__()
        padding = 2 if image_size <= 28 else 0
        side = out_size(image_size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=padding), nn.Tanh(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 120), nn.Tanh(),
            nn.Linear(120, 84), nn.Tanh(),
            nn.Dropout(dropout), nn.Linear(84, num_classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(torch.flatten(x, 1))


def lenet(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Classic LeNet-5; 61,706 parameters for MNIST."""
    return LeNet(num_classes, in_channels, image_size, dropout)
