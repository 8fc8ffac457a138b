"""Image folders: <root>/train/<class>/* and <root>/test/<class>/*.

Every image is decoded once, in parallel, into one uint8 array; the array is kept in the user's
cache folder, so that the next run starts at once.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

from .errors import UserError
from .files import atomic_write, is_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")

# What a file with such a suffix may hold. PIL knows more, and starts Ghostscript for one of them.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")

# Part of the cache key: raise it when the decoded pixels of the same files would change.
_FORMAT = 1


@dataclass(frozen=True)
class Listing:
    """The files of an image folder: train, test as (path, label), sorted; class names."""

    train: tuple[tuple[Path, int], ...]
    test: tuple[tuple[Path, int], ...]
    classes: tuple[str, ...]


def scan(root: Path) -> Listing:
    """List an image folder. Classes are the sorted folder names.

    Names that begin with a dot are skipped, and so are files without an image's suffix (of
    SUFFIXES, in any case). Raises UserError for a missing folder, fewer than two classes, a
    class without images or whose name is no UTF-8, or a test set with other classes than the training
    set.
    """
    names = {split: _class_names(root / split) for split in ("train", "test")}
    if names["train"] != names["test"]:
        odd = sorted(set(names["train"]) ^ set(names["test"]))[0]
        has, lacks = ("train", "test") if odd in names["train"] else ("test", "train")
        raise UserError(
            f"{root / has} has the class folder {odd!r}, which {root / lacks} lacks; both must "
            f"have the same classes"
        )
    train, test = (
        tuple(
            (path, label)
            for label, name in enumerate(names[split])
            for path in _image_files(root / split / name)
        )
        for split in ("train", "test")
    )
    return Listing(train, test, tuple(names["train"]))


def load_images(
    root: Path, listing: Listing, image_size: int | None, warn: Callable[[str], None]
) -> np.ndarray:
    """The pixels of train, then test: uint8 [N,C,S,S], from the cache if it holds them.

    C is 1 if every image is grey (PIL mode L), else 3; transparency is dropped. With an
    `image_size` images are resized to it (PIL bilinear, whatever their shape); without, all
    must be square and equal. Raises UserError naming the file that does not fit or cannot be
    read. A cache that is damaged or cannot be written costs time only; `warn` is told.
    """
    files = [path for path, _ in listing.train + listing.test]
    cache = _cache_file(root, files, image_size)
    images = _read_cache(cache, len(files), warn)
    if images is None:
        images = _decode_all(files, image_size)
        try:
            with atomic_write(cache) as file:
                np.savez(file, images=images, sha256=_digest(images))
        except OSError as problem:
            warn(f"the decoded images cannot be cached in {cache.parent} ({problem}); the next "
                 f"run will decode them again")
    return images


def class_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder`, sorted by name; [] if it has none or does not exist."""
    return [path for path in _entries(folder) if path.is_dir()] if folder.is_dir() else []


def _entries(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted by name, hidden things left out."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as problem:
        raise UserError(f"{folder} cannot be read ({problem.strerror})") from problem


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: an image folder is train/<class>/* and "
                        f"test/<class>/*")
    names = [path.name for path in class_folders(folder)]
    for name in names:
        if not is_text(name):
            raise UserError(f"{folder / name} is no name in UTF-8: rename this class")
    if len(names) < 2:
        raise UserError(f"{folder} must hold at least two class folders, not {len(names)}")
    return names


def _image_files(folder: Path) -> list[Path]:
    files = [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{folder} holds no image (of type {', '.join(SUFFIXES)})")
    return files


def _decode_all(files: list[Path], image_size: int | None) -> np.ndarray:
    first, _ = _decode(files[0], image_size)
    if first.shape[1] != first.shape[2]:
        raise UserError(
            f"{files[0]} is not square ({_size(first)}); pass --image-size to resize all images"
        )
    # Grey images stay equal in all three channels, so one pass decides the channels at its end.
    images = np.empty((len(files), *first.shape), np.uint8)

    def decode_into(place: int) -> bool:
        pixels, grey = _decode(files[place], image_size)
        if pixels.shape != first.shape:
            raise UserError(
                f"image sizes differ: {files[0]} is {_size(first)}, {files[place]} is "
                f"{_size(pixels)}; pass --image-size to resize all images"
            )
        images[place] = pixels
        return grey

    # Threads suffice: PIL decodes without holding the interpreter lock. `map` keeps the order,
    # so of several bad files the first is named, and cancels the rest.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(decode_into, range(len(files)))
        grey = list(tqdm(results, "decoding", len(files), unit="image", leave=False, disable=None))
    return np.ascontiguousarray(images[:, :1]) if all(grey) else images


def _decode(path: Path, image_size: int | None) -> tuple[np.ndarray, bool]:
    """RGB pixels, uint8 [3,H,W], and whether the file is grey."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            mode = image.mode
            colour = image.convert("RGB")
        if image_size is not None:
            colour = colour.resize((image_size, image_size), Image.Resampling.BILINEAR)
    except Exception as problem:  # PIL's decoders raise many types on damaged files
        raise UserError(f"{path} cannot be read as an image ({problem})") from problem
    if mode.startswith(("I", "F")):  # PIL would clip such values to 255, not scale them
        raise UserError(f"{path} has more than 8 bits a channel (PIL mode {mode}); convert it")
    return np.asarray(colour).transpose(2, 0, 1), mode == "L"


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"


def _cache_file(root: Path, files: list[Path], image_size: int | None) -> Path:
    """Where the pixels of exactly these files lie.

    The key holds ctime besides mtime: archives unpack with old mtimes, so another version of
    a data set can agree in every name, size and mtime.
    """
    digest = hashlib.sha256(repr((_FORMAT, image_size)).encode())
    for path in files:
        try:
            found = path.stat()
        except OSError as problem:
            raise UserError(f"{path} cannot be read ({problem.strerror})") from problem
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} cannot be read as an image (it is no regular file)")
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(repr((found.st_size, found.st_mtime_ns, found.st_ctime_ns)).encode())
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "jittor-cnn-zoo" / f"images-{digest.hexdigest()[:32]}.npz"


def _read_cache(cache: Path, count: int, warn: Callable[[str], None]) -> np.ndarray | None:
    try:
        # Opened here, since numpy leaves a damaged file open.
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as stored:
            images, sha256 = stored["images"], stored["sha256"]
        if len(images) != count or not np.array_equal(sha256, _digest(images)):
            raise ValueError("wrong checksum")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as problem:  # zip and npy parsers raise many types on damaged files
        warn(f"the image cache {cache} is damaged ({problem}); decoding the images again")
        return None
    return images


def _digest(images: np.ndarray) -> np.ndarray:
    digest = hashlib.sha256(repr((images.shape, images.dtype.str)).encode())
    digest.update(images)
    return np.frombuffer(digest.digest(), np.uint8)
