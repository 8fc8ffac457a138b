"""GoogLeNet (Szegedy et al. 2014, "Going deeper with convolutions", arXiv:1409.4842), also called
Inception v1, in two forms.

- `googlenet` has torchvision's layout and names, so its weights load: BatchNorm instead of
  response normalisation, 3x3 convolutions in the "5x5" branches, a 2x2 fourth pool, and auxiliary
  heads that pool to 4x4 at any image size.
- `googlenet_paper` is table 1 as the released Caffe model (bvlc_googlenet) has it: real 5x5s,
  biases, no BatchNorm, response normalisation after the first pool and before the second, pools
  with ceil_mode, auxiliary heads on a 5x5 average pool of stride 3. The names stay torchvision's.
  Slips in the table: conv1 has 9.4K weights and 118M operations (not 2.7K and 34M); the
  parameters of 4c and 5a and the operations of 5a do not follow from their widths either. Built
  are the widths.

Images of up to 64 pixels get the small stem: a 3x3 convolution of stride 1 as `conv1`, and no
pooling in `maxpool1` and `maxpool2`.
"""
import torch
from torch import nn

from zoo.catalog import out_size, small_stem

from .blocks import BasicConv2d, Concat, chain, check_transform, half_range


# Input channels, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (table 1).
WIDTHS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}

# Sizes after pools with ceil_mode are those of a kernel one smaller without it.
CEIL_POOL = (2, 2, 0)
IMAGENET_STEM = ((7, 2, 3), CEIL_POOL, CEIL_POOL)


class ConvReLU(nn.Module):
    """Convolution with bias, ReLU; the size stays at stride 1."""

    def __init__(self, in_channels, channels, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.conv(x))


class Inception(Concat):
    """Figure 2(b): 1x1; 1x1, 3x3; 1x1, "5x5" of size `kernel`; 3x3 max-pool, 1x1."""

    def __init__(self, channels, ch1, red3, ch3, red5, ch5, proj, conv, kernel):
        super().__init__({
            "branch1": conv(channels, ch1, 1),
            "branch2": chain(channels, (red3, 1), (ch3, 3), conv=conv),
            "branch3": chain(channels, (red5, 1), (ch5, kernel), conv=conv),
            "branch4": nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
                                     conv(channels, proj, 1))})


class InceptionAux(nn.Module):
    """Auxiliary head (section 5): `pool` to `grid` x `grid`, 1x1 convolution, two linear layers."""

    def __init__(self, channels, num_classes, conv, pool, grid, drop):
        super().__init__()
        self.pool = pool
        self.conv = conv(channels, 128, 1)
        self.fc1 = nn.Linear(128 * grid * grid, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(drop)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x):
        x = torch.flatten(self.conv(self.pool(x)), 1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Stem, nine Inception blocks, average pool, linear; in training (logits, aux2, aux1)."""
    aux_weight = 0.3
    conv = BasicConv2d
    kernel = 3
    last_pool = 2

    def __init__(self, num_classes, in_channels, image_size, stem, aux, transform_input, drop,
                 drop_aux):
        super().__init__()
        check_transform(transform_input, in_channels)
        self.transform_input = transform_input
        small = small_stem(stem, image_size)
        before = (CEIL_POOL,) if small else (*IMAGENET_STEM, CEIL_POOL)
        out_size(image_size, *before, (self.last_pool - 1, 2, 0))
        self.conv1 = self.conv(in_channels, 64, 3) if small else self.conv(in_channels, 64, 7, 2)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = self.conv(64, 64, 1)
        self.conv3 = self.conv(64, 192, 3)
        self.maxpool2 = nn.Identity() if small else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(self.last_pool, stride=2, ceil_mode=True)
        for name, widths in WIDTHS.items():
            self.add_module(f"inception{name}", Inception(*widths, self.conv, self.kernel))
        self.aux1 = self.aux2 = None
        if aux:
            self.aux1 = self.aux_head(512, num_classes, image_size, before, drop_aux)
            self.aux2 = self.aux_head(528, num_classes, image_size, before, drop_aux)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(drop)
        self.fc = nn.Linear(1024, num_classes)
        self.initialise()

    def aux_head(self, channels, num_classes, image_size, before, drop):
        """An auxiliary head; `before`: the strided layers between the image and it."""
        return InceptionAux(channels, num_classes, self.conv, nn.AdaptiveAvgPool2d((4, 4)), 4, drop)

    def initialise(self):
        """As torchvision's."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, 0.0, 0.01)

    def forward(self, x):
        if self.transform_input:
            x = half_range(x)
        x = self.conv3(self.conv2(self.maxpool1(self.conv1(x))))
        x = self.inception3b(self.inception3a(self.maxpool2(x)))
        x4a = self.inception4a(self.maxpool3(x))
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        x = self.maxpool4(self.inception4e(x4d))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        x = self.fc(self.dropout(torch.flatten(x, 1)))
        if self.training and self.aux1 is not None:
            return x, self.aux2(x4d), self.aux1(x4a)
        return x


class GoogLeNetPaper(GoogLeNet):
    """The paper's form, see the file's docstring."""
    conv = ConvReLU
    kernel = 5
    last_pool = 3

    def __init__(self, num_classes, in_channels, image_size, stem, aux, drop, drop_aux):
        super().__init__(num_classes, in_channels, image_size, stem, aux, False, drop, drop_aux)
        self.maxpool1 = nn.Sequential(self.maxpool1, nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0))
        self.maxpool2 = nn.Sequential(nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0), self.maxpool2)

    def aux_head(self, channels, num_classes, image_size, before, drop):
        """As the base class's, with the paper's pool."""
        # With ceil_mode, 5x5 windows at stride 3 are as many as 3x3 windows without it.
        grid = out_size(image_size, *before, (3, 3, 0))
        pool = nn.AvgPool2d(5, stride=3, ceil_mode=True)
        return InceptionAux(channels, num_classes, self.conv, pool, grid, drop)

    def initialise(self):
        """As the Caffe model's: variance 1 / fan-in (there uniform, here normal), biases 0.2, but 0
        in classifiers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kernel = module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, 0.0, (module.in_channels * kernel) ** -0.5)
                nn.init.constant_(module.bias, 0.2)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, module.in_features ** -0.5)
                nn.init.constant_(module.bias, 0.0)
        for head in (self.aux1, self.aux2):
            if head is not None:
                nn.init.constant_(head.fc1.bias, 0.2)


def googlenet(num_classes=1000, in_channels=3, image_size=224, stem=None, aux=True,
              transform_input=False, dropout=0.0, dropout_aux=0.0):
    """13,004,888 parameters at 224x224 with 1000 classes, 6,624,904 without the auxiliary heads.

    `transform_input` takes images normalised with ImageNet's statistics to those of torchvision's
    weights. torchvision has dropout 0.2 and dropout_aux 0.7.
    """
    return GoogLeNet(num_classes, in_channels, image_size, stem, aux, transform_input, dropout,
                     dropout_aux)


def googlenet_paper(num_classes=1000, in_channels=3, image_size=224, stem=None, aux=True,
                    dropout=0.0, dropout_aux=0.0):
    """13,378,280 parameters at 224x224 with 1000 classes, 6,998,552 without the auxiliary heads.

    The heads' first linear layers depend on the image size. The paper has dropout 0.4 and
    dropout_aux 0.7.
    """
    return GoogLeNetPaper(num_classes, in_channels, image_size, stem, aux, dropout, dropout_aux)
