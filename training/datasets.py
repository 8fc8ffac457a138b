"""The data sets: from a name and a folder to `Data` in memory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image

from . import downloads, folder
from .data import Data, Split, permutation, random_words
from .errors import UserError

DATASETS = ("auto", "cifar10", "mnist", "fashion-mnist", "folder", "digits")

# The random stream of the validation split; epochs use the streams 0, 1, 2, ... of one seed.
_VALIDATION_STREAM = 0x76616C6964

_NOTICE = """
{line}
  NOT CIFAR-10: this run uses scikit-learn's handwritten digits instead.

  Why: {reason}.

  These are 1797 small grey images, far easier than CIFAR-10, so that
  accuracies say nothing about it. To get the real thing, either
    - run again with a network connection (170 MB), or
    - put cifar-10-python.tar.gz into {data_dir}
      (from https://www.cs.toronto.edu/~kriz/cifar.html), or
    - give --data-dir a folder with train/<class>/* and test/<class>/*.
  With --dataset digits this notice goes away.
{line}
"""


@dataclass(frozen=True, eq=False)
class _Source:
    """What a reader delivers, before resizing and the validation split."""

    name: str
    title: str  # for people
    origin: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    augmented: bool
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # None: compute them


def print_warning(message: str) -> None:
    """Print to stderr."""
    print(message, file=sys.stderr)


def load(
    dataset: str,
    data_dir: str | Path,
    val_fraction: float,
    seed: int,
    image_size: int | None = None,
    augment: bool = True,
    warn: Callable[[str], None] = print_warning,
) -> Data:
    """Load a data set and split off its validation images.

    dataset: one of DATASETS.
        "cifar10", "mnist", "fashion-mnist": from `data_dir` in torchvision's layout,
            downloaded there if missing or damaged.
        "folder": the images in <data_dir>/train/<class>/ and <data_dir>/test/<class>/.
        "digits": scikit-learn's 1797 handwritten digits, 8x8, enlarged to 32x32 (bicubic);
            the first 1437 train, the last 360 test. Needs no network.
        "auto": "folder" if <data_dir>/train has class folders, else "cifar10", else "digits"
            with a notice through `warn`.
    val_fraction: in [0, 1); this part of the training set, chosen by `seed` (the same on every
        machine), becomes the validation split. 0 makes it empty.
    image_size: resize every image to this many pixels a side (bilinear).
    augment: False switches crop and flip off. Digits and MNIST have none: a mirrored 3 is
        not a 3.
    warn: takes a message for people.

    Raises UserError for bad arguments and for data that is missing or damaged.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r}: use {', '.join(DATASETS)}")
    if not 0 <= val_fraction < 1:
        raise UserError(f"the validation fraction must be in [0, 1), not {val_fraction}")
    if seed < 0:
        raise UserError(f"the seed must not be negative: {seed}")
    if image_size is not None and image_size < 1:
        raise UserError(f"the image size must be at least 1, not {image_size}")

    source = _read(dataset, Path(os.path.expanduser(data_dir)), image_size, warn)
    train, test = (_resized(split, image_size) for split in (source.train, source.test))
    train, val = _split_off(train, val_fraction, seed)
    mean, std = source.mean_std or channel_statistics(train.images)
    channels, height, width = train.images.shape[1:]
    augmented = augment and source.augmented
    return Data(
        name=source.name,
        train=train,
        val=val,
        test=test,
        classes=source.classes,
        mean=mean,
        std=std,
        padding=height // 8 if augmented else 0,
        flip=augmented,
        source=f"{source.title}: {len(train)} train, {len(val)} validation, {len(test)} test "
        f"images {channels}x{height}x{width}, {len(source.classes)} classes, {source.origin}",
    )


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixel / 255 per channel; images: uint8 [N,C,H,W].

    Exact sums of integers, then float64, so every machine finds the same. The deviation is at
    least one grey level (1/255): a constant image must not divide by zero.
    """
    means, stds = [], []
    values = np.arange(256)
    for channel in range(images.shape[1]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(images), 4096):  # bincount copies its input into int64
            part = images[start : start + 4096, channel]
            histogram += np.bincount(part.ravel(), minlength=256)
        count = int(histogram.sum())
        total = int((histogram * values).sum())
        squares = int((histogram * values**2).sum())
        means.append(total / count / 255)
        stds.append(max((count * squares - total**2) ** 0.5 / count, 1.0) / 255)
    return tuple(means), tuple(stds)


def _read(
    dataset: str, data_dir: Path, image_size: int | None, warn: Callable[[str], None]
) -> _Source:
    if dataset in downloads.KNOWN:
        return _read_torchvision(dataset, data_dir)
    if dataset == "digits":
        return _read_digits()
    if dataset == "folder" or folder.class_folders(data_dir / "train"):
        return _read_folder(data_dir, image_size, warn)
    try:
        return _read_torchvision("cifar10", data_dir)
    except UserError as reason:
        digits = _read_digits()
        warn(_NOTICE.format(line="=" * 76, reason=reason, data_dir=data_dir))
        return digits


def _read_torchvision(name: str, data_dir: Path) -> _Source:
    known = downloads.KNOWN[name]
    train, test, classes = downloads.read(name, data_dir)
    return _Source(
        name, known.title, f"from {data_dir}", train, test, classes, known.augmented,
        known.mean_std,
    )


def _read_folder(
    data_dir: Path, image_size: int | None, warn: Callable[[str], None]
) -> _Source:
    listing = folder.scan(data_dir)
    images = folder.load_images(data_dir, listing, image_size, warn)
    labels = np.array([label for _, label in listing.train + listing.test], np.int32)
    cut = len(listing.train)
    return _Source(
        name="folder",
        title="image folder",
        origin=f"from {data_dir}",
        train=Split(images[:cut], labels[:cut]),
        test=Split(images[cut:], labels[cut:]),
        classes=listing.classes,
        augmented=True,
    )


def _read_digits() -> _Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise UserError(f"the digits need scikit-learn ({problem})") from problem
    digits = load_digits()
    levels = digits.images.astype(np.int64)  # 0..16
    pixels = ((levels * 255 + 8) // 16).astype(np.uint8)[:, None]
    images = _resize(pixels, 32, Image.Resampling.BICUBIC)
    labels = digits.target.astype(np.int32)
    return _Source(
        name="digits",
        title="handwritten digits",
        origin="from scikit-learn, 8x8 enlarged",
        train=Split(images[:1437], labels[:1437]),
        test=Split(images[1437:], labels[1437:]),
        classes=tuple(map(str, range(10))),
        augmented=False,
    )


def _split_off(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """(train, validation): a seeded choice of round(fraction * N) images validates.

    Both keep the order of the files, so a fraction of 0 changes nothing, whatever the seed.
    """
    n = len(split)
    count = round(fraction * n)
    if count == n:
        raise UserError(f"a validation fraction of {fraction} leaves no training image of {n}")
    order = permutation(n, random_words(seed, _VALIDATION_STREAM))
    val, train = np.sort(order[:count]), np.sort(order[count:])
    return (
        Split(split.images[train], split.labels[train]),
        Split(split.images[val], split.labels[val]),
    )


def _resized(split: Split, size: int | None) -> Split:
    if size is None or split.images.shape[2:] == (size, size):
        return split
    return Split(_resize(split.images, size, Image.Resampling.BILINEAR), split.labels)


def _resize(images: np.ndarray, size: int, method: Image.Resampling) -> np.ndarray:
    """uint8 [N,C,H,W] to [N,C,size,size], plane by plane through PIL."""
    n, channels = images.shape[:2]
    result = np.empty((n, channels, size, size), np.uint8)
    for before, after in zip(images.reshape(-1, *images.shape[2:]), result.reshape(-1, size, size)):
        after[...] = Image.fromarray(before).resize((size, size), method)
    return result
