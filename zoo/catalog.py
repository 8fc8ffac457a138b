"""The catalogue: every net's name, family file, native input and source. One table for both zoos."""
from __future__ import annotations

import difflib
import importlib
import inspect
import numbers
from dataclasses import dataclass


@dataclass(frozen=True)
class Net:
    """One net of the zoo.

    Attributes:
        family: file of the constructor, in `jt_models/` and `torch_ref/` alike.
        channels, size: native input, `channels` x `size` x `size`.
        classes: number of classes of the native net.
        source: where the structure comes from.
        smallest: smallest height and width, in pixels, that it can be built and trained for.
        layouts: libraries whose weights of this net load under its name.
    """
    family: str
    channels: int
    size: int
    classes: int
    source: str
    smallest: int = 1
    layouts: tuple[str, ...] = ()


_VGG = "Simonyan and Zisserman 2014, arXiv:1409.1556"
_GOOGLENET = "Szegedy et al. 2014, arXiv:1409.4842"
_BN_INCEPTION = "Ioffe and Szegedy 2015, arXiv:1502.03167, figure 5"
_RETHINKING = "Szegedy et al. 2015, arXiv:1512.00567"
_INCEPTION_V4 = "Szegedy et al. 2016, arXiv:1602.07261"
_RESNET = "He et al. 2015, arXiv:1512.03385"
_DENSENET = "Huang et al. 2016, arXiv:1608.06993"
_SENET = "Hu et al. 2017, arXiv:1709.01507"

_TORCHVISION = ("torchvision",)

NETS = {
    "cnn": Net("cnn", 3, 32, 10, "lab report 002", 16),
    "cnn_pad2": Net("cnn", 3, 32, 10, "lab report 001", 12),
    "cnn_1x1": Net("cnn", 3, 32, 10, "lab report 000", 16),
    "lenet": Net("lenet", 1, 28, 10, "LeCun et al. 1998, LeNet-5", 12),
    "lenet_bn": Net("lenet", 1, 28, 10, "lab report 004", 12),
    "alexnet": Net("alexnet", 3, 224, 1000, "Krizhevsky 2014, arXiv:1404.5997", 63, _TORCHVISION),
    "alexnet_paper": Net("alexnet", 3, 224, 1000, "Krizhevsky et al. 2012, two towers", 63),
    "alexnet_single": Net("alexnet", 3, 224, 1000, "study notes 003, one tower", 63),
    "alexnet_mnist": Net("alexnet", 1, 28, 10, "lab report 004", 13),
    "vgg11": Net("vgg", 3, 224, 1000, f"{_VGG}, A", 32, _TORCHVISION),
    "vgg11_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, A", 32, _TORCHVISION),
    "vgg11_lrn": Net("vgg", 3, 224, 1000, f"{_VGG}, A-LRN", 32),
    "vgg11_lrn_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, A-LRN", 32),
    "vgg13": Net("vgg", 3, 224, 1000, f"{_VGG}, B", 32, _TORCHVISION),
    "vgg13_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, B", 32, _TORCHVISION),
    "vgg16_1x1": Net("vgg", 3, 224, 1000, f"{_VGG}, C", 32),
    "vgg16_1x1_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, C", 32),
    "vgg16": Net("vgg", 3, 224, 1000, f"{_VGG}, D", 32, _TORCHVISION),
    "vgg16_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, D", 32, _TORCHVISION),
    "vgg19": Net("vgg", 3, 224, 1000, f"{_VGG}, E", 32, _TORCHVISION),
    "vgg19_bn": Net("vgg", 3, 224, 1000, f"{_VGG}, E", 32, _TORCHVISION),
    "vgg_mnist": Net("vgg", 1, 28, 10, "lab report 004", 4),
    "googlenet": Net("googlenet", 3, 224, 1000, _GOOGLENET, 2, _TORCHVISION),
    "googlenet_paper": Net("googlenet", 3, 224, 1000, f"{_GOOGLENET}, table 1", 6),
    "bn_inception": Net("bn_inception", 3, 224, 1000, _BN_INCEPTION, 31, ("Cadene",)),
    "inception_v2": Net("inception", 3, 299, 1000, f"{_RETHINKING}, table 1", 75),
    "inception_v3": Net("inception", 3, 299, 1000, _RETHINKING, 75, _TORCHVISION),
    "inception_v4": Net("inception_v4", 3, 299, 1000, _INCEPTION_V4, 75, ("timm", "Cadene")),
    "inception_resnet_v1": Net("inception_resnet", 3, 299, 1000, _INCEPTION_V4, 75),
    "inception_resnet_v1_facenet": Net("inception_resnet", 3, 160, 8631, _INCEPTION_V4, 75,
                                       ("facenet-pytorch",)),
    "inception_resnet_v2": Net("inception_resnet", 3, 299, 1000, _INCEPTION_V4, 75, ("timm", "Cadene")),
    "inception_resnet_v2_paper": Net("inception_resnet", 3, 299, 1000, _INCEPTION_V4, 75),
    "resnet18": Net("resnet", 3, 224, 1000, _RESNET, 1, _TORCHVISION),
    "resnet34": Net("resnet", 3, 224, 1000, _RESNET, 1, _TORCHVISION),
    "resnet50": Net("resnet", 3, 224, 1000, _RESNET, 1, _TORCHVISION),
    "resnet101": Net("resnet", 3, 224, 1000, _RESNET, 1, _TORCHVISION),
    "resnet152": Net("resnet", 3, 224, 1000, _RESNET, 1, _TORCHVISION),
    "plain18": Net("resnet", 3, 224, 1000, f"{_RESNET}, without shortcuts"),
    "plain34": Net("resnet", 3, 224, 1000, f"{_RESNET}, without shortcuts"),
    "resnet20_cifar": Net("resnet_cifar", 3, 32, 10, f"{_RESNET}, section 4.2"),
    "resnet56_cifar": Net("resnet_cifar", 3, 32, 10, f"{_RESNET}, section 4.2"),
    "plain20_cifar": Net("resnet_cifar", 3, 32, 10, f"{_RESNET}, section 4.2"),
    "plain56_cifar": Net("resnet_cifar", 3, 32, 10, f"{_RESNET}, section 4.2"),
    "resnet18_lab": Net("resnet", 3, 32, 10, "lab report 000, repaired"),
    "resnet18_mnist": Net("resnet", 1, 28, 10, "lab report 004"),
    "densenet": Net("densenet", 3, 32, 10, "lab report 001", 7),
    "densenet_wide": Net("densenet", 3, 32, 10, "lab report 000, printout", 3),
    "densenet_fc128": Net("densenet", 3, 32, 10, "lab report 000, listing, repaired", 7),
    "densenet121": Net("densenet", 3, 224, 1000, _DENSENET, 8, _TORCHVISION),
    "densenet161": Net("densenet", 3, 224, 1000, _DENSENET, 8, _TORCHVISION),
    "densenet169": Net("densenet", 3, 224, 1000, _DENSENET, 8, _TORCHVISION),
    "densenet201": Net("densenet", 3, 224, 1000, _DENSENET, 8, _TORCHVISION),
    "densenet_bc_100_12": Net("densenet", 3, 32, 10, f"{_DENSENET}, section 3", 4),
    "densenet121_mnist": Net("densenet", 1, 28, 10, "lab report 004, repaired"),
    "se_resnet18": Net("senet", 3, 224, 1000, _SENET, 1, ("timm",)),
    "se_resnet34": Net("senet", 3, 224, 1000, _SENET, 1, ("timm",)),
    "se_resnet50": Net("senet", 3, 224, 1000, _SENET, 1, ("timm", "Cadene")),
    "se_resnet101": Net("senet", 3, 224, 1000, _SENET, 1, ("timm", "Cadene")),
    "se_resnet152": Net("senet", 3, 224, 1000, _SENET, 1, ("timm", "Cadene")),
    "se_bn_inception": Net("senet", 3, 224, 1000, _SENET, 31),
    "se_resnet20_cifar": Net("senet", 3, 32, 10, f"{_SENET}, on {_RESNET}, section 4.2"),
    "se_resnet18_lab": Net("senet", 3, 32, 10, "lab report 001"),
    "se_resnet18_preact": Net("senet", 3, 32, 10, "lab report 000"),
    "mobilenet": Net("mobilenet", 3, 224, 1000, "Howard et al. 2017, arXiv:1704.04861", 1,
                     ("timm",)),
    "mobilenet_slim": Net("mobilenet", 3, 32, 10, "lab report 002, block assumed"),
    "mobilenet_mnist": Net("mobilenet", 1, 28, 10, "lab report 004", 13),
}


def lookup(name: str) -> Net:
    """The catalogue's entry for `name`. Raises ValueError with the nearest names if there is none."""
    if name not in NETS:
        near = difflib.get_close_matches(str(name), NETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(NETS)}"
        raise ValueError(f"unknown net {name!r}; {hint}")
    return NETS[name]


def input_size(name: str, image_size: int) -> int:
    """Height and width that images of `image_size` pixels are resized to for this net: their own, or
    the smallest that it takes."""
    return max(image_size, lookup(name).smallest)


def _positive(what: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, not {value!r}")


class Zoo:
    """The nets of one package (`jt_models` or `torch_ref`), built by name."""

    def __init__(self, package: str):
        self._package = package

    def _family(self, name: str):
        return importlib.import_module(f"{self._package}.{lookup(name).family}")

    def names(self) -> list[str]:
        """Names of all nets, in the catalogue's order; equal in both zoos."""
        return list(NETS)

    def create(self, name: str, num_classes: int = 1000, in_channels: int = 3,
               image_size: int | None = None, **net_options):
        """Build a net with fresh weights, in training mode.

        Args:
            name: one of `names()`.
            num_classes: length of the output vector.
            in_channels: channels of the input, which is [N, in_channels, image_size, image_size].
            image_size: input height and width in pixels; None: the net's native size. Up to 64
                pixels many nets get their small-image stem (see each family's file).
            **net_options: options of the net itself (see its docstring): `dropout` (probability, at
                the place or places where its source has it; off by default, so that two
                frameworks can be compared), `stem` ("imagenet" or "small"), `aux` (False: without
                auxiliary heads), ...

        Returns:
            A module that maps float32 [N, in_channels, image_size, image_size] to [N, num_classes];
            with auxiliary heads, in training mode, to a tuple of that and their outputs.

        Raises:
            ValueError: unknown name or option, or a value that the net cannot be built with.
        """
        net = lookup(name)
        image_size = net.size if image_size is None else image_size
        _positive("num_classes", num_classes)
        _positive("in_channels", in_channels)
        _positive("image_size", image_size)
        if image_size < net.smallest:
            raise ValueError(f"an image of {image_size}x{image_size} pixels is too small for "
                             f"{name}, which needs {net.smallest}x{net.smallest}")
        constructor = getattr(self._family(name), name)
        allowed = list(inspect.signature(constructor).parameters)[3:]
        unknown = sorted(set(net_options) - set(allowed))
        if unknown:
            raise ValueError(f"{name} has no option {unknown[0]!r}; it has: {', '.join(allowed)}")
        for option in ("dropout", "dropout_aux"):
            value = net_options.get(option, 0.0)
            if not 0 <= value < 1:
                raise ValueError(f"{option} must lie in [0, 1), not {value!r}")
        return constructor(num_classes, in_channels, image_size, **net_options)

    def own_key(self, name: str, key: str) -> str:
        """Our name of a weight of the net `name`, from its name in a layout that `Net.layouts`
        lists. A key that needs no renaming is returned unchanged."""
        rename = getattr(self._family(name), "FOREIGN_KEYS", {}).get(name)
        return rename(key) if rename else key


SMALL_IMAGE = 64


def small_stem(stem: str | None, image_size: int) -> bool:
    """Whether a net gets its small-image form: `stem` says so, or is None and the image has at most
    64 pixels a side.

    Raises:
        ValueError: `stem` is none of None, "imagenet", "small".
    """
    if stem not in (None, "imagenet", "small"):
        raise ValueError(f"stem must be 'imagenet' or 'small', not {stem!r}")
    return stem == "small" or (stem is None and image_size <= SMALL_IMAGE)


def out_size(size: int, *layers: tuple[int, int, int]) -> int:
    """Height (or width) after convolutions or pools given as (kernel, stride, padding).

    Raises:
        ValueError: nothing is left of an image of `size` pixels.
    """
    left = size
    for kernel, stride, padding in layers:
        left = (left + 2 * padding - kernel) // stride + 1
        if left < 1:
            raise ValueError(f"an image of {size}x{size} pixels is too small for this net")
    return left
