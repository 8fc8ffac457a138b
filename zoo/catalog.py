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
    """
    family: str
    channels: int
    size: int
    classes: int
    source: str


_RESNET = "He et al. 2015, arXiv:1512.03385, in torchvision's layout"
_DENSENET = "Huang et al. 2016, arXiv:1608.06993, in torchvision's layout"

NETS = {
    "cnn": Net("cnn", 3, 32, 10, "lab report 002"),
    "cnn_pad2": Net("cnn", 3, 32, 10, "lab report 001"),
    "cnn_1x1": Net("cnn", 3, 32, 10, "lab report 000"),
    "lenet": Net("lenet", 1, 28, 10, "LeCun et al. 1998, LeNet-5"),
    "resnet18": Net("resnet", 3, 224, 1000, _RESNET),
    "resnet34": Net("resnet", 3, 224, 1000, _RESNET),
    "resnet50": Net("resnet", 3, 224, 1000, _RESNET),
    "resnet101": Net("resnet", 3, 224, 1000, _RESNET),
    "resnet152": Net("resnet", 3, 224, 1000, _RESNET),
    "resnet18_lab": Net("resnet", 3, 32, 10, "lab report 000, repaired"),
    "densenet": Net("densenet", 3, 32, 10, "lab report 001"),
    "densenet_wide": Net("densenet", 3, 32, 10, "lab report 000, printout"),
    "densenet_fc128": Net("densenet", 3, 32, 10, "lab report 000, listing, repaired"),
    "densenet121": Net("densenet", 3, 224, 1000, _DENSENET),
    "densenet161": Net("densenet", 3, 224, 1000, _DENSENET),
    "densenet169": Net("densenet", 3, 224, 1000, _DENSENET),
    "densenet201": Net("densenet", 3, 224, 1000, _DENSENET),
    "se_resnet18_lab": Net("senet", 3, 32, 10, "lab report 001"),
    "se_resnet18_preact": Net("senet", 3, 32, 10, "lab report 000"),
}


def lookup(name: str) -> Net:
    """The catalogue's entry for `name`. Raises ValueError with the nearest names if there is none."""
    if name not in NETS:
        near = difflib.get_close_matches(str(name), NETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(NETS)}"
        raise ValueError(f"unknown net {name!r}; {hint}")
    return NETS[name]


def _positive(what: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, not {value!r}")


class Zoo:
    """The nets of one package (`jt_models` or `torch_ref`), built by name."""

    def __init__(self, package: str):
        self._package = package

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
            image_size: input height and width in pixels; None: the net's native size. The nets of
                torchvision get their small-image stem up to 64 pixels (see each family's file).
            **net_options: options of the net itself: `dropout` (probability, before the last
                linear layer, or before the two-layer head of densenet_wide and densenet_fc128)
                and, for the torchvision nets, `stem` ("imagenet" or "small").

        Returns:
            A module that maps float32 [N, in_channels, image_size, image_size] to [N, num_classes].

        Raises:
            ValueError: unknown name or option, or a value that the net cannot be built with.
        """
        net = lookup(name)
        image_size = net.size if image_size is None else image_size
        _positive("num_classes", num_classes)
        _positive("in_channels", in_channels)
        _positive("image_size", image_size)
        family = importlib.import_module(f"{self._package}.{net.family}")
        constructor = getattr(family, name)
        allowed = list(inspect.signature(constructor).parameters)[3:]
        unknown = sorted(set(net_options) - set(allowed))
        if unknown:
            raise ValueError(f"{name} has no option {unknown[0]!r}; it has: {', '.join(allowed)}")
        dropout = net_options.get("dropout", 0.0)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {dropout!r}")
        return constructor(num_classes, in_channels, image_size, **net_options)


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
