"""CIFAR-10, MNIST and Fashion-MNIST, read and downloaded through torchvision."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .data import Split
from .errors import UserError
from .torchvision_ops import declare_missing_ops

# A firewall that swallows packets must not hang the program.
_TIMEOUT_S = 15


@dataclass(frozen=True)
class Known:
    """What is known of a data set before it is read.

    class_name: in torchvision.datasets. title: for people. archives: the files to fetch by
    hand without a network, a pattern below the data folder. augmented: whether training crops
    and flips. mean_std: the usual statistics of pixel / 255, per channel.
    """

    class_name: str
    title: str
    archives: str
    augmented: bool
    mean_std: tuple[tuple[float, ...], tuple[float, ...]]


KNOWN = {
    "cifar10": Known(
        "CIFAR10", "CIFAR-10", "cifar-10-python.tar.gz", True,
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    "mnist": Known("MNIST", "MNIST", "MNIST/raw/*.gz", False, ((0.1307,), (0.3081,))),
    "fashion-mnist": Known(
        "FashionMNIST", "Fashion-MNIST", "FashionMNIST/raw/*.gz", True, ((0.2860,), (0.3530,)),
    ),
}


def read(name: str, data_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """(train, test, classes) of a data set of KNOWN, from `data_dir` in torchvision's layout.

    Downloads it there if it is missing or damaged. Raises UserError if that fails, if a label
    is no class or if torchvision cannot be imported.
    """
    known = KNOWN[name]
    try:
        declare_missing_ops()
        import torchvision.datasets
    except (ImportError, OSError, RuntimeError) as problem:
        raise UserError(
            f"{known.title} needs torchvision, which cannot be imported ({_brief(problem)})"
        ) from problem
    dataset = getattr(torchvision.datasets, known.class_name)

    try:
        return _read(dataset, data_dir)
    except Exception:  # torchvision's parsers raise many types on damaged files
        pass
    try:
        _download(dataset, data_dir, known.archives)
        return _read(dataset, data_dir)
    except (OSError, RuntimeError, http.client.HTTPException, EOFError, tarfile.TarError,
            zlib.error) as problem:
        raise UserError(
            f"{known.title} is missing or damaged in {data_dir} and cannot be downloaded "
            f"({_brief(problem)}); without a network, put {known.archives} there"
        ) from problem


def _read(dataset: type, data_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
    train, test = (dataset(data_dir, train=part, download=False) for part in (True, False))
    return _split(train), _split(test), tuple(train.classes)


def _split(dataset) -> Split:
    """The pixels of a torchvision data set, which are [N,H,W,C] or [N,H,W] there."""
    targets = np.asarray(dataset.targets)
    with np.errstate(invalid="ignore"):
        labels = targets.astype(np.int32)
    if wrong := targets[labels != targets].tolist():  # 2**32, say, would become class 0
        raise UserError(f"{type(dataset).__name__} has the label {wrong[0]}, which is no class")
    images = np.asarray(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(np.ascontiguousarray(images), labels)


def _download(dataset: type, data_dir: Path, archives: str) -> None:
    """Let torchvision download (and check by MD5) into a folder of its own; then move it.

    torchvision takes an unpacked MNIST file for good if it exists at all, so a download that
    was interrupted in place would break every later run. Archives that already lie in
    `data_dir` are used instead of the network.
    """
    made = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as temporary:
            for archive in data_dir.glob(archives):
                copy = Path(temporary) / archive.relative_to(data_dir)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(archive, copy)
            with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the caller
                dataset(temporary, download=True)
            for file in [path for path in Path(temporary).rglob("*") if path.is_file()]:
                target = data_dir / file.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    finally:
        socket.setdefaulttimeout(timeout)
        if made:
            with contextlib.suppress(OSError):  # not empty: the download succeeded
                data_dir.rmdir()


def _brief(problem: BaseException) -> str:
    """An exception in one line of bounded length, without a full stop."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".")
