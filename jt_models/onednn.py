"""oneDNN 2.2, which Jittor would download, from two wheels of the package registry."""
from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from training.files import atomic_folder

WHEELS = ("onednn-devel-cpu-gomp", "onednn-cpu-gomp")  # headers, library
# Jittor's own name: a folder of this name is what keeps it from downloading.
FOLDER = "dnnl_lnx_2.2.0_cpu_gomp"


def place(home: Path) -> Path:
    """Where Jittor expects it, if `home` is Jittor's."""
    return home / ".cache" / "jittor" / "mkl" / FOLDER


def is_complete(target: Path) -> bool:
    return (target / "lib" / "libmkldnn.so").is_file()


def wheel() -> tuple[Path, Path] | None:
    """The installed wheels' (include folder, libdnnl.so.2), or None if they are not there."""
    found = []
    for name, tail in zip(WHEELS, ("include/dnnl.h", "lib/libdnnl.so.2")):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            return None
        paths = [Path(f.locate()).resolve() for f in files]
        found += [path for path in paths if path.as_posix().endswith("/" + tail)][:1]
    if len(found) != 2 or not all(path.is_file() for path in found):
        return None
    header, library = found
    return header.parent, library


def install(target: Path) -> bool:
    """Lay the wheels' oneDNN out as Jittor expects it in `target`, atomically.

    Copies rather than links: Jittor's cache is shared by environments that come and go.
    Returns False when the wheels are not installed.
    """
    there = wheel()
    if there is None:
        return False
    include, library = there
    with atomic_folder(target) as staging:
        (staging / "include").mkdir()
        for header in [*include.glob("dnnl*"), *include.glob("mkldnn*")]:
            shutil.copy2(header, staging / "include")
        shutil.copytree(include / "oneapi", staging / "include" / "oneapi")
        (staging / "lib").mkdir()
        shutil.copy2(library, staging / "lib" / "libdnnl.so.2")
        for name in ("libmkldnn.so", "libdnnl.so"):
            (staging / "lib" / name).symlink_to("libdnnl.so.2")
        if target.is_dir() and not is_complete(target):
            shutil.rmtree(target)  # half-made by an interrupted download
    return True


def choose(home: Path) -> str:
    """Make it ready for Jittor, whose home is `home`; returns in words which one Jittor will use."""
    if os.environ.get("use_mkl") == "0":
        return "oneDNN off (use_mkl=0)"
    target = place(home)
    if is_complete(target):
        return "oneDNN"
    if platform.system() == "Linux" and platform.machine() == "x86_64" and install(target):
        return "oneDNN from the wheel"
    return "oneDNN that Jittor downloads"


@functools.lru_cache
def linker_options() -> str | None:
    """What links an operation to the oneDNN that Jittor has loaded; None if that is not where this module lays it."""
    import jittor
    import jittor_utils
    target = place(Path(jittor_utils.home()))
    return f'-L"{target / "lib"}" -lmkldnn' if jittor.compile_extern.mkl_ops and is_complete(target) else None
