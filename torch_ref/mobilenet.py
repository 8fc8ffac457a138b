"""MobileNet (Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile
vision applications", arXiv:1704.04861).

- `mobilenet` has the layout and names of timm's mobilenetv1_100, so its weights load; like timm's
  it has ReLU6, where the paper has ReLU. Table 1 of the paper prints stride 2 for the last
  depthwise convolution; the sizes around it need 1, here and in timm. Images of up to 64 pixels get
  the small stem: stride 1 in place of 2.
- `mobilenet_slim` (report 002): a stem and eight blocks. The report prints neither block nor
  forward. Assumed: no bias, BatchNorm and ReLU after each convolution of a block (section 3.1),
  nothing after the stem.
- `mobilenet_mnist` (report 004): the image is first enlarged eightfold; seven blocks. The prose's
  sizes (1792, 896, 112, and 512 inputs of the linear layer) are slips; the printout's 224, 112, 14
  and 2048 hold.
"""
import torch
from torch import nn
from torch.nn.functional import dropout

from zoo.catalog import out_size, small_stem

# Output channels, number of blocks, stride of the first one: the stages of table 1.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class DepthwiseSeparable(nn.Module):
    """3x3 convolution of each channel, then 1x1 convolution across channels (figure 3 right)."""

    def __init__(self, channels, out_channels, stride, activation=nn.ReLU6):
        super().__init__()
        self.conv_dw = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv_pw = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act = activation(inplace=True)

    def forward(self, x):
        x = self.act(self.bn1(self.conv_dw(x)))
        return self.act(self.bn2(self.conv_pw(x)))


class MobileNet(nn.Module):
    """Stem, five stages of depthwise separable blocks, average pool, linear (table 1)."""

    def __init__(self, num_classes, in_channels, image_size, stem, drop):
        super().__init__()
        small = small_stem(stem, image_size)
        self.drop = drop
        self.conv_stem = nn.Conv2d(
            in_channels, 32, 3, stride=1 if small else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act = nn.ReLU6(inplace=True)
        stages, channels = [], 32
        for width, count, stride in STAGES:
            first = DepthwiseSeparable(channels, width, stride)
            stages.append(nn.Sequential(
                first, *[DepthwiseSeparable(width, width, 1) for _ in range(1, count)]))
            channels = width
        self.blocks = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)
        bound = num_classes ** -0.5  # as timm's
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.constant_(self.classifier.bias, 0)

    def forward(self, x):
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        x = torch.flatten(self.avgpool(x), 1)
        return self.classifier(dropout(x, self.drop, self.training))


def mobilenet(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """4,231,976 parameters at 224x224 with 1000 classes; no dropout in timm."""
    return MobileNet(num_classes, in_channels, image_size, stem, dropout)


class SlimMobileNet(nn.Module):
    """Lab report 002, with its names."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.dwconv1 = DepthwiseSeparable(32, 32, 1, nn.ReLU)
        self.dwconv2 = DepthwiseSeparable(32, 64, 2, nn.ReLU)
        self.dwconv3 = DepthwiseSeparable(64, 128, 1, nn.ReLU)
        self.dwconv4 = DepthwiseSeparable(128, 128, 2, nn.ReLU)
        self.dwconv5 = DepthwiseSeparable(128, 256, 1, nn.ReLU)
        self.dwconv6 = DepthwiseSeparable(256, 256, 2, nn.ReLU)
        self.dwconv7 = DepthwiseSeparable(256, 512, 1, nn.ReLU)
        self.dwconv8 = DepthwiseSeparable(512, 512, 2, nn.ReLU)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x):
        x = self.dwconv2(self.dwconv1(self.conv1(x)))
        x = self.dwconv4(self.dwconv3(x))
        x = self.dwconv6(self.dwconv5(x))
        x = self.dwconv8(self.dwconv7(x))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


def mobilenet_slim(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 002, as assumed above; 544,426 parameters for CIFAR-10, at any image size."""
    return SlimMobileNet(num_classes, in_channels, dropout)


class MnistMobileNet(nn.Module):
    """Lab report 004; the blocks' inner names are those of `mobilenet`."""

    def __init__(self, num_classes, in_channels, image_size, dropout):
        super().__init__()
        # Eight times the image, halved three times; then the last stride of 2 and the pool.
        side = out_size(image_size, (3, 2, 1), (7, 7, 0))
        self.model = nn.Sequential(
            nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False),
            nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
            DepthwiseSeparable(32, 64, 1),
            DepthwiseSeparable(64, 128, 2),
            DepthwiseSeparable(128, 128, 1),
            DepthwiseSeparable(128, 256, 2),
            DepthwiseSeparable(256, 256, 1),
            DepthwiseSeparable(256, 512, 2),
            DepthwiseSeparable(512, 512, 1),
            nn.AvgPool2d(7),
            nn.Flatten(),
            nn.Linear(512 * side * side, num_classes),
            nn.Dropout(dropout))

    def forward(self, x):
        return self.model(x)


def mobilenet_mnist(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Lab report 004; 557,834 parameters for MNIST; dropout (lab: 0.4) acts on the logits."""
    return MnistMobileNet(num_classes, in_channels, image_size, dropout)
