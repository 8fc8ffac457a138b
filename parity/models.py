"""Models by name: `my_file.py:Net`, `package.module:Net`, and the pairs of our own zoo."""
from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.errors import UserError, did_you_mean
from zoo.catalog import NETS, input_size, lookup

# Image size and batch of our nets. Odd sizes, so that every stride meets a border; small ones, since
# float64 runs in Jittor's plain loops. With few values per channel the last BatchNorms are so steep
# that PyTorch's own float64 gradients move by 3e-11 when the input moves by 1e-15 (densenet161,
# batch 4; 4e-13 with 8) and its float32 ones by 1e-3 (inception_v2; 3e-4 with 8): hence eight images
# for the deepest nets without residual branches.
SIZE, BATCH = 33, 4
SIZES = {"se_resnet18_preact": 17, "densenet_bc_100_12": 17, "googlenet": 65, "googlenet_paper": 65,
         "bn_inception": 65, "se_bn_inception": 65,
         **dict.fromkeys(("inception_v2", "inception_v3", "inception_v4"), 107)}
BATCHES = {"googlenet_paper": 2, "mobilenet_mnist": 2, "densenet121_mnist": 8, "densenet121": 8,
           "densenet161": 8, "densenet169": 8, "densenet201": 8, "inception_v2": 8, "inception_v3": 8,
           "inception_v4": 8,
           **dict.fromkeys(("alexnet", "alexnet_paper", "alexnet_single"), 2)}

AXES, LARGEST, BELOW = 8, 2**28, 2**31  # of an input: the most sizes and numbers, and the bound of whole ones


@dataclass(frozen=True)
class Source:
    """How to build a pair of models.

    Attributes:
        jittor, torch: `file.py:Name` or `package.module:Name` of a class or function.
        arguments: keywords that both are called with.
    """
    jittor: str
    torch: str
    arguments: dict = field(default_factory=dict)

    def build(self, seed: int = 0):
        """(Jittor model, PyTorch model), their first weights drawn from `seed`.

        Raises:
            UserError: one cannot be imported or built.
        """
        import jt_models  # noqa: F401  (PyTorch and Jittor in the one order in which both work)
        import jittor as jt
        import torch
        torch.manual_seed(seed)
        jt.set_global_seed(seed)
        return build(self.jittor, self.arguments), build(self.torch, self.arguments)

    def resolved(self) -> Source:
        """The same with whole paths, to be built from another folder."""
        def whole(spec):
            place, _, name = spec.rpartition(":")
            return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else spec
        return Source(whole(self.jittor), whole(self.torch), self.arguments)


def build(spec: str, arguments: dict):
    """A model from `file.py:Name` or `package.module:Name`.

    Raises:
        UserError: nothing of this name, or it cannot be called with these arguments.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UserError(f"{spec!r} is no model: use FILE.py:NAME or PACKAGE.MODULE:NAME")
    module = import_module(place)
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, value in vars(module).items() if inspect.isclass(value) and n[0] != "_"]
        hint = did_you_mean(name, vars(module)) or f"; it has {', '.join(names[:8]) or 'none'}"
        raise UserError(f"{place} has no class or function {name!r}{hint}")
    try:
        return found(**arguments)
    except Exception as error:  # whatever a user's constructor may raise
        raise UserError(f"{spec} cannot be built with {arguments}: {type(error).__name__}: "
                        f"{error}") from error


def import_module(place: str):
    """The module `file.py` or `package.module`. Raises UserError if it cannot be imported."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).resolve()
        if not path.is_file():
            raise UserError(f"no such file: {place}")
        name = str(path)  # two files of one name may be compared
        if name in sys.modules:
            return sys.modules[name]
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))  # for what it imports from its folder
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except UserError:
        raise
    except Exception as error:  # whatever a user's file may raise
        raise UserError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error


def nets(names: list[str]) -> list[str]:
    """These nets of ours, each once, or every one for ["all"]. Raises UserError for an unknown one."""
    if names == ["all"]:
        return list(NETS)
    for name in names:
        try:
            lookup(name)
        except ValueError as error:
            raise UserError(str(error)) from error
    return list(dict.fromkeys(names))


def zoo(name: str, seed: int = 0):
    """(source, images float32 [N, C, H, W]) of one of our nets, at a size for checks."""
    net = NETS[name]
    size = SIZES.get(name, input_size(name, min(net.size, SIZE)))
    # The ImageNet stem; VGG has none, and its ImageNet head is 120 million weights more. AlexNet's is 55
    # million, of which 20 copies are alive in a run of steps.
    stem = "stem" in options(name) and net.family != "vgg"
    arguments = {"name": name, "num_classes": 10, "in_channels": net.channels, "image_size": size,
                 **({"stem": "imagenet"} if stem else {}),
                 **({"hidden": 256} if "hidden" in options(name) else {})}
    shape = (BATCHES.get(name, BATCH), net.channels, size, size)
    x = np.random.default_rng(seed).standard_normal(shape).astype("float32")
    return Source("jt_models:create", "torch_ref:create", arguments), x


def options(name: str) -> set[str]:
    """What the constructor of one of our nets can be told."""
    family = importlib.import_module(f"torch_ref.{NETS[name].family}")
    return set(inspect.signature(getattr(family, name)).parameters)


def random_inputs(shapes: list[str], seed: int) -> tuple[np.ndarray, ...]:
    """Arrays for `NxCxHxW` (standard normal, float32) or `NxL:K` (whole numbers below K, int64).

    Raises:
        UserError: anything else, or an input too large to be run.
    """
    rng = np.random.default_rng(seed)
    found = []
    for text in shapes:
        match = re.fullmatch(r"([1-9]\d{0,30}(?:x[1-9]\d{0,30})*)(?::([1-9]\d{0,30}))?", text)
        shape = tuple(map(int, match[1].split("x"))) if match else ()
        below = int(match[2] or 1) if match else 1
        if not match or len(shape) > AXES or math.prod(shape) > LARGEST or below > BELOW:
            raise UserError(f"--input {text!r:.99}: use sizes such as 2x3x32x32, or 2x16:100 for whole "
                            f"numbers below 100; at most {AXES} sizes, {LARGEST} numbers in all, "
                            f"below {BELOW}")
        found.append(rng.integers(0, below, shape) if match[2]
                     else rng.standard_normal(shape).astype("float32"))
    return tuple(found)
