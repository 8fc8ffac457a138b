"""Files that are either complete or absent."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator

from .errors import UserError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` only when the block ends without an exception.

    Missing parent folders are made. Until the end the bytes lie in a hidden file beside
    `path` (a rename is atomic only within one file system); an exception removes that file
    and leaves an older `path` as it was. Raises OSError where nothing can be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private (0600) and the result should follow the umask.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name without its bytes
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
    finally:
        with contextlib.suppress(OSError):  # gone after the rename
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path` only when the block ends without an exception; until then it has a
    hidden name beside it. Where another process was faster, its folder stays: they must be the same. Raises
    OSError where nothing can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
    try:
        yield staging
        staging.chmod(0o755)
        try:
            staging.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def existing_parent(path: Path) -> Path:
    """The nearest thing above `path` that exists; `path` itself where nothing is above."""
    return next((p for p in Path(path).absolute().parents if p.exists()), Path(path))


def check_writable(path: Path, file: bool = False) -> None:
    """Bad places are found before the work begins: UserError if nothing can be made at `path`, or, where a
    `file` is to be made, if it is a folder (as the empty name is)."""
    if file and Path(path).is_dir():
        raise UserError(f"{str(path)!r} cannot be written: it is a folder, not the name of a file")
    parent = existing_parent(path)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{path} cannot be written: {parent} is no folder that can be written to")


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; that of a file may hold any bytes."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def read_json(path: Path, pipe: bool = False):
    """The content of a JSON file.

    Args:
        pipe: whether it may be a pipe, for which a reader waits.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or such as nothing here writes: a name that comes twice, a number that is
            not finite or an integer beyond 64 bits, text that is no Unicode, nesting too deep to be parsed.
    """
    if not pipe and Path(path).exists() and not Path(path).is_file():
        raise ValueError("it is no regular file")
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_once,
                           parse_float=_finite, parse_int=_integer, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it holds {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:40]}, which is no finite number")
    return value


def _integer(text: str) -> int:
    if len(text) > 18:
        raise ValueError(f"it holds the number {text[:40]}, which is too long")
    return int(text)


def csv_text(rows: Iterable[Iterable]) -> str:
    """Rows as a CSV file holds them, with a line feed after each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, content) -> None:
    """Write plain data as JSON, atomically. Raises ValueError for a number that is not finite."""
    text = json.dumps(content, indent=1, default=str, allow_nan=False)
    write_text(path, text + "\n")
