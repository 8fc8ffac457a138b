"""Data in memory, and the batch plan that both trainers execute.

A trainer copies the uint8 pixels of a split to its device once. Each step then needs only a
`Batch`: which images, and for every output pixel the source row and column, so that random
crop and flip are one gather. Pixels are normalised through a table of 256 values a channel.
Gather and look-up do no arithmetic, so the inputs of both frameworks are equal bit for bit;
`apply` is the same thing in numpy, to compare them with.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Callable, Iterator

import numpy as np
from scipy.special import betaincinv

from .errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    images: uint8 [N,C,H,W], C-contiguous, 0..255. labels: int32 [N].
    Raises UserError for anything else.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
            raise UserError(
                f"images must be C-contiguous uint8 [N,C,H,W], not {images.dtype} "
                f"{list(images.shape)}"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise UserError(f"labels must be int32 [N], not {labels.dtype} {list(labels.shape)}")
        if len(images) != len(labels):
            raise UserError(f"{len(images)} images do not match {len(labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, ready to train on.

    name: "cifar10", "mnist", "fashion-mnist", "folder" or "digits".
    train, val, test: the splits; val may be empty.
    classes: the name of each label, in order.
    mean, std: per channel, of pixel / 255.
    padding, flip: augmentation of the training split: random crop out of an image padded by
        `padding` zero pixels on each side, and horizontal flip with probability 1/2.
    source: one line for people: what data this is, how much, where from.

    Raises UserError for a label outside [0, len(classes)). Both trainers rely on this check:
    Jittor's own loss would silently drop such an image.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    source: str

    def __post_init__(self) -> None:
        shape = self.train.images.shape[1:]
        for name, split in self.splits.items():
            if split.images.shape[1:] != shape:
                raise UserError(
                    f"{self.name}: {name} images are {list(split.images.shape[1:])}, but train "
                    f"images are {list(shape)} (channels, height, width)"
                )
            wrong = split.labels[(split.labels < 0) | (split.labels >= self.num_classes)]
            if len(wrong):
                raise UserError(
                    f"{self.name}: the {name} split has the label {wrong[0]}; allowed are "
                    f"0 to {self.num_classes - 1}"
                )

    @property
    def splits(self) -> dict[str, Split]:
        """train, val and test by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def in_channels(self) -> int:
        """Colour channels: 3, or 1 for grey images."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width in pixels. Raises UserError if they differ."""
        height, width = self.train.images.shape[2:]
        if height != width:
            raise UserError(f"{self.name}: images must be square, not {height}x{width}")
        return height

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @functools.cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of shape, pixels and labels of train, val and test, in this order."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(repr(split.images.shape).encode())
            digest.update(split.images)
            digest.update(split.labels.astype("<i4"))
        return digest.hexdigest()

    def table(self) -> np.ndarray:
        """float32 [C,256]: value v of channel c becomes (v/255 - mean[c]) / std[c].

        Computed in float64 and rounded once, so that normalising is a look-up and not
        arithmetic that each framework would round in its own way.
        """
        mean = np.asarray(self.mean, np.float64)[:, None]
        std = np.asarray(self.std, np.float64)[:, None]
        return ((np.arange(256) / 255 - mean) / std).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Batch:
    """One training step's images, as places in the split.

    indices: int32 [B], image numbers. rows: int32 [B,H], columns: int32 [B,W]: the source row
    and column of every output pixel; outside [0, size) stands for a zero pixel (zero before
    normalisation, which is black, not the mean). cut: None, or for cutout two bool arrays [B,H]
    and [B,W]: a pixel whose row and column are both true becomes 0 after normalisation, the mean.
    mix: for mixup the weight of an image; the image at the same place from the end of the batch
    has the rest. 1 is no mixup.
    """

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    cut: tuple[np.ndarray, np.ndarray] | None = None
    mix: float = 1.0


class BatchPlan:
    """The sequence of batches of every epoch; both trainers execute the same one.

    n: images in the split. batch_size: images a step. image_size: pixels a side.
    padding: crops are shifted by -padding to padding pixels. flip: mirror an image with
    probability 1/2. seed: non-negative integer. cutout: side in pixels of a square whose centre is
    a random pixel and which is blanked in every image (DeVries and Taylor 2017, arXiv:1708.04552);
    0: none. mixup: alpha of the Beta(alpha, alpha) that the weight of a batch is drawn from (Zhang
    et al. 2018, arXiv:1710.09412); 0: none. Raises UserError for values outside these.

    An incomplete last batch is dropped if there is at least one full one: a batch of one
    image would break BatchNorm, and as every epoch is shuffled anew, every image is still
    seen over the epochs. With fewer images than `batch_size`, an epoch is one batch of n.
    """

    def __init__(
        self, n: int, batch_size: int, image_size: int, padding: int, flip: bool, seed: int,
        cutout: int = 0, mixup: float = 0.0,
    ) -> None:
        if n < 1:
            raise UserError(f"there is nothing to train on: the split has {n} images")
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if not 0 <= padding <= image_size:
            raise UserError(f"padding must be 0 to {image_size} (the image size), not {padding}")
        if seed < 0:
            raise UserError(f"the seed must not be negative: {seed}")
        if not 0 <= cutout <= image_size:
            raise UserError(f"cutout must be 0 to {image_size} pixels (the image size), not {cutout}")
        if mixup < 0:
            raise UserError(f"mixup must not be negative: {mixup}")
        self.n = n
        self.batch_size = min(batch_size, n)
        self.image_size = image_size
        self.padding = padding
        self.flip = flip
        self.seed = seed
        self.cutout = cutout
        self.mixup = mixup

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.n // self.batch_size

    def epoch(self, k: int) -> Iterator[Batch]:
        """The batches of epoch `k` (from 0), a pure function of (seed, k).

        So a run resumes at any epoch without stored random state. Each image comes at most
        once. Raises ValueError for a negative k.
        """
        words = random_words(self.seed, k)
        order = permutation(self.n, words)
        spread = np.uint64(2 * self.padding + 1)
        shifts = (words(2 * self.n) % spread).astype(np.int32).reshape(2, self.n) - self.padding
        # Drawn also when unused: with the flip off, order and crops stay the same.
        flipped = (words(self.n) >> np.uint64(63)).astype(bool) & self.flip
        size = np.uint64(self.image_size)
        first = (words(2 * self.n) % size).astype(np.int32).reshape(2, self.n) - self.cutout // 2
        mixes = betaincinv(self.mixup, self.mixup, words(len(self)) / 2.0**64) if self.mixup else None

        line = np.arange(self.image_size, dtype=np.int32)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            down, right = shifts[0, part, None], shifts[1, part, None]
            columns = np.where(flipped[part, None], line[::-1], line)
            cut = None
            if self.cutout:
                cut = tuple((corner <= line) & (line < corner + self.cutout)
                            for corner in first[:, part, None])
            mix = 1.0 if mixes is None else float(mixes[start // self.batch_size])
            yield Batch(order[part], line + down, columns + right, cut, mix)


def evaluation_batches(n: int, batch_size: int, image_size: int) -> Iterator[Batch]:
    """Batches of images 0..n in order, unchanged; the last may be smaller.

    image_size: pixels a side. Raises UserError for batch_size < 1.
    """
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    for start in range(0, n, batch_size):
        indices = np.arange(start, min(start + batch_size, n), dtype=np.int32)
        line = np.tile(np.arange(image_size, dtype=np.int32), (len(indices), 1))
        yield Batch(indices, line, line)


def apply(batch: Batch, images: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The network input of a batch: float32 [B,C,H,W].

    images: uint8 [N,C,H,W]; table: float32 [C,256] of `Data.table`. This is the reference
    that the device code of both trainers equals bit for bit (with mixup up to one unit in
    the last place: a compiler may multiply and add in one rounding).
    """
    channels, height, width = images.shape[1:]
    rows, columns = batch.rows[:, None, :, None], batch.columns[:, None, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    channel = np.arange(channels)[None, :, None, None]
    pixels = images[
        batch.indices[:, None, None, None],
        channel,
        rows.clip(0, height - 1),
        columns.clip(0, width - 1),
    ]
    x = table[channel, np.where(inside, pixels, np.uint8(0))]
    if batch.cut:
        hidden_rows, hidden_columns = batch.cut
        x = np.where(hidden_rows[:, None, :, None] & hidden_columns[:, None, None, :], np.float32(0), x)
    if batch.mix != 1:
        x = x * np.float32(batch.mix) + x[::-1] * np.float32(1 - batch.mix)
    return x


def random_words(seed: int, stream: int) -> Callable[[int], np.ndarray]:
    """A function that draws n random uint64 words [n] from PCG64, seeded by (seed, stream).

    numpy guarantees these words on every machine and in every version (NEP 19); it does not
    guarantee those of the distributions built on them, such as Generator.permutation.
    """
    return np.random.PCG64(np.random.SeedSequence((seed, stream))).random_raw


def permutation(n: int, words: Callable[[int], np.ndarray]) -> np.ndarray:
    """A random order of 0..n-1, int32 [n]."""
    return np.argsort(words(n), kind="stable").astype(np.int32)
