"""ResNet (He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385).

`resnet18/34/50/101/152` have torchvision's layout and names, so its weights load; like
torchvision's, the bottleneck strides in its 3x3 convolution, where the paper strides in the first
1x1. Images of up to 64 pixels get the small stem, usual for CIFAR (lab report 002): one 3x3
convolution of stride 1 and no max-pooling, in place of 7x7, stride 2 and a pool of stride 2.
`plain18/34` are the same nets without shortcuts (section 3.3, figure 3 middle).

`resnet18_lab` is the net of lab report 000 as printed, with its two bugs repaired: both 64-channel
blocks were one module (shared weights), and the 1x1 shortcut convolutions were made anew, with
random weights, at each call of forward. What is unusual but printed stays: every convolution has
a bias, and ReLU follows the additions only.

`resnet18_mnist` is the net of lab report 004: bias in every convolution, the shortcut ones (1x1
with BatchNorm) included. Its printout shows no ReLU outside the unnamed Sequentials; they are taken
to be where the paper has them. The prose's narrowing second blocks ("128 and 64") are a slip: its
printout keeps the width.
"""
import jittor as jt
from . import layers as nn
from .layers import dropout, relu

from zoo.catalog import small_stem


def projection(inplanes, planes, stride):
    """The shortcut where the shape changes: 1x1 convolution and BatchNorm (option B)."""
    return nn.Sequential(
        nn.Conv2d(inplanes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (section 3.3 of the paper, figure 5 left)."""
    expansion = 1
    shortcut = staticmethod(projection)

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def residual(self, x):
        """The branch beside the shortcut."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(out))

    def execute(self, x):
        out = self.residual(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(out + x)


class PlainBlock(BasicBlock):
    """Two 3x3 convolutions and no shortcut."""
    shortcut = None

    def execute(self, x):
        return self.relu(self.residual(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions (figure 5 right), the stride in the 3x3."""
    expansion = 4
    shortcut = staticmethod(projection)

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def residual(self, x):
        """The branch beside the shortcut."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))

    def execute(self, x):
        out = self.residual(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(out + x)


def initialise(net):
    """Initial weights as torchvision's: variance 2 / fan-out in convolutions (He et al. 2015,
    arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def make_layer(block, inplanes, planes, blocks, stride):
    """A stage: `blocks` blocks, of which the first has the stride and, if the shape changes, the
    block's kind of shortcut."""
    outplanes = planes * block.expansion
    downsample = None
    if block.shortcut is not None and (stride != 1 or inplanes != outplanes):
        downsample = block.shortcut(inplanes, outplanes, stride)
    layers = [block(inplanes, planes, stride, downsample)]
    layers += [block(outplanes, planes) for _ in range(1, blocks)]
    return nn.Sequential(*layers)


def four_stages(block, layers):
    """layer1 to layer4, with 64, 128, 256, 512 planes; the first keeps the image size."""
    wide = block.expansion
    return (make_layer(block, 64, 64, layers[0], 1),
            make_layer(block, 64 * wide, 128, layers[1], 2),
            make_layer(block, 128 * wide, 256, layers[2], 2),
            make_layer(block, 256 * wide, 512, layers[3], 2))


class ResNet(nn.Module):
    """Stem, four stages of `layers` blocks with 64, 128, 256, 512 planes, average pool, linear."""

    def __init__(self, block, layers, num_classes, in_channels, image_size, stem, drop):
        super().__init__()
        self.drop = drop
        if small_stem(stem, image_size):
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = four_stages(block, layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialise(self)

    def execute(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = jt.flatten(self.avgpool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


def resnet18(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """11,689,512 parameters at 224x224 with 1000 classes."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes, in_channels, image_size, stem, dropout)


def resnet34(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """21,797,672 parameters at 224x224 with 1000 classes."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes, in_channels, image_size, stem, dropout)


def resnet50(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """25,557,032 parameters at 224x224 with 1000 classes."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, in_channels, image_size, stem, dropout)


def resnet101(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """44,549,160 parameters at 224x224 with 1000 classes."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, in_channels, image_size, stem, dropout)


def resnet152(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """60,192,808 parameters at 224x224 with 1000 classes."""
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes, in_channels, image_size, stem, dropout)


def plain18(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """resnet18 without shortcuts; 11,515,688 parameters at 224x224 with 1000 classes."""
    return ResNet(PlainBlock, [2, 2, 2, 2], num_classes, in_channels, image_size, stem, dropout)


def plain34(num_classes=1000, in_channels=3, image_size=224, stem=None, dropout=0.0):
    """resnet34 without shortcuts; 21,623,848 parameters at 224x224 with 1000 classes."""
    return ResNet(PlainBlock, [3, 4, 6, 3], num_classes, in_channels, image_size, stem, dropout)


class Reslink(nn.Module):
    """The lab's shortcut: one 1x1 convolution of stride 2, with bias and without BatchNorm."""

    def __init__(self, inchannel, outchannel):
        super().__init__()
        self.link = nn.Conv2d(inchannel, outchannel, 1, stride=2)

    def execute(self, x):
        return self.link(x)


def lab_block(inchannel, outchannel, stride=1):
    """conv, BatchNorm, conv, BatchNorm: the lab's residual branch, without a ReLU inside."""
    return nn.Sequential(
        nn.Conv2d(inchannel, outchannel, 3, stride=stride, padding=1),
        nn.BatchNorm2d(outchannel),
        nn.Conv2d(outchannel, outchannel, 3, padding=1),
        nn.BatchNorm2d(outchannel))


class LabResNet(nn.Module):
    """ResNet-18 of lab report 000, repaired (see the file's docstring)."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.drop = drop
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.MaxPool2d(3, stride=2, padding=1))
        self.layer1 = lab_block(64, 64)
        self.layer1p2 = lab_block(64, 64)
        self.reslink2 = Reslink(64, 128)
        self.layer2 = lab_block(64, 128, 2)
        self.layer2p2 = lab_block(128, 128)
        self.reslink3 = Reslink(128, 256)
        self.layer3 = lab_block(128, 256, 2)
        self.layer3p2 = lab_block(256, 256)
        self.reslink4 = Reslink(256, 512)
        self.layer4 = lab_block(256, 512, 2)
        self.layer4p2 = lab_block(512, 512)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)

    def execute(self, x):
        x = self.conv1(x)
        x = relu(self.layer1(x) + x)
        x = relu(self.layer1p2(x) + x)
        x = relu(self.layer2(x) + self.reslink2(x))
        x = relu(self.layer2p2(x) + x)
        x = relu(self.layer3(x) + self.reslink3(x))
        x = relu(self.layer3p2(x) + x)
        x = relu(self.layer4(x) + self.reslink4(x))
        x = relu(self.layer4p2(x) + x)
        x = jt.flatten(self.avgpool(x), 1)
        return self.fc(dropout(x, self.drop, self.training))


def resnet18_lab(num_classes=10, in_channels=3, image_size=32, dropout=0.0):
    """Lab report 000, repaired; 11,184,650 parameters for CIFAR-10, at any image size."""
    return LabResNet(num_classes, in_channels, dropout)


def conv_bn(inchannel, outchannel, kernel, stride=1):
    """Convolution with bias, and BatchNorm: a Sequential of lab report 004's printout."""
    return nn.Sequential(
        nn.Conv2d(inchannel, outchannel, kernel, stride=stride, padding=kernel // 2),
        nn.BatchNorm2d(outchannel))


class MnistBlock(nn.Module):
    """Lab report 004's ResNetBlock: two `conv_bn`, and a third as shortcut if the shape changes."""

    def __init__(self, inchannel, outchannel, stride=1):
        super().__init__()
        self.conv1 = conv_bn(inchannel, outchannel, 3, stride)
        self.conv2 = conv_bn(outchannel, outchannel, 3)
        self.downsample = None
        if stride != 1 or inchannel != outchannel:
            self.downsample = conv_bn(inchannel, outchannel, 1, stride)

    def execute(self, x):
        out = self.conv2(relu(self.conv1(x)))
        if self.downsample is not None:
            x = self.downsample(x)
        return relu(out + x)


class MnistResNet(nn.Module):
    """ResNet-18 of lab report 004."""

    def __init__(self, num_classes, in_channels, drop):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3)
        self.bn = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(MnistBlock(64, 64), MnistBlock(64, 64))
        self.layer2 = nn.Sequential(MnistBlock(64, 128, 2), MnistBlock(128, 128))
        self.layer3 = nn.Sequential(MnistBlock(128, 256, 2), MnistBlock(256, 256))
        self.layer4 = nn.Sequential(MnistBlock(256, 512, 2), MnistBlock(512, 512))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)
        self.dropout = nn.Dropout(drop)

    def execute(self, x):
        x = self.maxpool(relu(self.bn(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.dropout(self.fc(jt.flatten(self.avgpool(x), 1)))


def resnet18_mnist(num_classes=10, in_channels=1, image_size=28, dropout=0.0):
    """Lab report 004; 11,180,170 parameters for MNIST; dropout (lab: 0.1) acts on the logits."""
    return MnistResNet(num_classes, in_channels, dropout)
