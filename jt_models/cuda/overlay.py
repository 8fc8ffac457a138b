"""A CUDA home in which stock Jittor 1.3.11.0 compiles with CUDA 12 or 13 and cuDNN 9.

It consists of links to a toolkit (`nvcc`) and to the `nvidia-*` wheels that PyTorch installs, and of what
Jittor misses there:

    bin/nvcc           a file, since Jittor follows links to find its CUDA home; C++17, which CUB 3 demands
    bin/python-config  of this Python, which a virtual environment has none of
    include/           headers with what CUDA 13, cuDNN 9 and CUB 3 have removed (each says what)
    lib64/             libraries without version numbers, and the names of cuDNN 8 for those of cuDNN 9
                       (Jittor/jittor#666)
    cutt/              the transposition that Jittor would download as cuTT

Jittor and the toolkit are not touched.
"""
from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from training.files import atomic_folder

HERE = Path(__file__).parent
HEADERS = ("cublas_v2.h", "cublasLt.h", "cudnn_v9.h", "curand.h", "cufft.h", "cusparse.h")
LIBRARIES = ("cudart", "cublas", "cublasLt", "cudnn", "cudnn_ops", "cudnn_cnn", "curand", "cufft", "cusparse")
_NVCC = """#!/bin/sh
for word do
    shift
    [ "$word" = -std=c++14 ] && word=-std=c++17
    set -- "$@" "$word"
done
exec {nvcc} "$@"
"""
_PYTHON_CONFIG = """#!/bin/sh
case "$1" in
    --includes) echo {includes} ;;
    --extension-suffix) echo {suffix} ;;
    *) exit 1 ;;
esac
"""


class Unsuitable(Exception):
    """Jittor cannot use CUDA here; the message says why."""


@functools.cache  # asked several times at each start of Jittor
def _said(nvcc: str | Path, *arguments: str) -> str:
    """What a CUDA compiler prints when it is called so. Raises Unsuitable if it does not run."""
    try:
        done = subprocess.run([nvcc, *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsuitable(f"{nvcc} does not run ({error})") from error
    return done.stdout + done.stderr


def release(nvcc: str | Path) -> tuple[int, int]:
    """(major, minor) of a CUDA compiler. Raises Unsuitable if it does not tell."""
    found = re.search(r"release (\d+)\.(\d+)", _said(nvcc, "--version"))
    if not found:
        raise Unsuitable(f"{nvcc} does not tell its release")
    return int(found[1]), int(found[2])


def toolkit(nvcc: str | Path) -> Path:
    """The toolkit of a CUDA compiler, which may be a link to it or a script that calls it. Raises Unsuitable
    if it does not tell."""
    shown = _said(nvcc, "--dryrun", "-c", "-x", "cu", os.devnull)
    found = re.search(r"^#\$ TOP=(.+)$", shown, re.MULTILINE)
    if not found:
        raise Unsuitable(f"{nvcc} does not tell where its toolkit is")
    return Path(found[1]).resolve()


def cudnn(*folders: Path) -> int | None:
    """The major version of the cuDNN whose headers lie in one of these folders, or None."""
    for folder in folders:
        for name in ("cudnn_version.h", "cudnn.h"):
            if (folder / name).is_file():
                found = re.search(r"#define CUDNN_MAJOR (\d+)", (folder / name).read_text(errors="replace"))
                if found:
                    return int(found[1])
    return None


def wheels() -> list[Path]:
    """Folders with `include` and `lib` of the NVIDIA wheels that this Python can import."""
    found = [place for path in map(Path, sys.path) for place in sorted(path.glob("nvidia/*"))]
    return [place for place in dict.fromkeys(found) if (place / "lib").is_dir()]


def needed(nvcc: str | Path) -> bool:
    """Whether Jittor needs an overlay for this compiler; it supports CUDA 11, and CUDA 12 with cuDNN 8.

    Raises:
        Unsuitable: it needs one, and something for it is missing.
    """
    major, _ = release(nvcc)
    home = toolkit(nvcc)
    machine = platform.machine()
    if major < 12 or major == 12 and (cudnn(
            home / "include", home / "targets" / f"{machine}-linux" / "include", Path("/usr/include"),
            Path(f"/usr/include/{machine}-linux-gnu")) or 9) < 9:
        return False
    roots = (*wheels(), home)
    missing = [name for name in HEADERS if not any((root / "include" / name).is_file() for root in roots)]
    there = {path.name.partition(".so")[0] for root in roots for path in _libraries(root)}
    missing += [f"lib{name}.so" for name in LIBRARIES if f"lib{name}" not in there]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise Unsuitable(f"neither {home} nor PyTorch's nvidia wheels have {', '.join(missing[:3])}{more}")
    return True


def build(cache: Path, nvcc: str | Path) -> Path:
    """The overlay for this compiler, Python and these wheels: built below `cache` once, under a name that
    changes with any of them. It is complete or absent, also when two processes build it.

    Raises:
        Unsuitable: the compiler does not run.
        OSError: `cache` cannot be written.
    """
    home = toolkit(nvcc)
    roots = wheels()
    own = sorted(path for path in HERE.rglob("*") if path.suffix in (".h", ".cu", ".cuh", ".py"))
    libraries = [str(path.resolve()) for root in (*roots, home) for path in _libraries(root)]
    key = repr((release(nvcc), str(home), libraries, _python(), [path.read_bytes() for path in own]))
    # No hyphen: where "-dc" is anywhere in a command, Jittor links device code.
    target = cache / f"cuda_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    with atomic_folder(target) as staging:
        _fill(staging, home, roots)
    return target


def variables(overlay: Path) -> dict[str, str]:
    """What Jittor must find in the environment to use an overlay and to download nothing."""
    return {"nvcc_path": f"{overlay}/bin/nvcc", "python_config_path": f"{overlay}/bin/python-config",
            "use_cutt": "1", "cutt_include_path": f"{overlay}/cutt", "cutt_lib_path": f"{overlay}/cutt",
            "use_cutlass": "0", "use_nccl": "0"}


def _libraries(root: Path) -> list[Path]:
    return sorted(path for folder in ("lib", "lib64") for path in (root / folder).glob("lib*"))


def _python() -> tuple[str, str]:
    """(folder of Python.h, what names of extension modules end in)."""
    return sysconfig.get_paths()["include"], sysconfig.get_config_var("EXT_SUFFIX")


def _fill(overlay: Path, home: Path, roots: list[Path]) -> None:
    shutil.copytree(HERE / "include", overlay / "include")
    shutil.copytree(HERE / "cutt", overlay / "cutt")
    for name in ("bin", "lib64"):
        (overlay / name).mkdir()
    (overlay / "include" / "toolkit").symlink_to(home / "include")
    # The wheels first: in one process PyTorch and Jittor must share one CUDA runtime.
    for root in (*roots, home):
        for header in sorted((root / "include").glob("*")):
            _link(overlay / "include" / header.name, header)
        for library in _libraries(root):
            _link(overlay / "lib64" / library.name, library)
            stem, version, _ = library.name.partition(".so.")
            if version:
                _link(overlay / "lib64" / f"{stem}.so", Path(library.name))
    for part in ("ops", "cnn"):
        for pass_ in ("infer", "train"):
            _link(overlay / "lib64" / f"libcudnn_{part}_{pass_}.so", Path(f"libcudnn_{part}.so"))
    includes, suffix = _python()
    nvcc = home / "bin" / "nvcc"
    for name, text in (("nvcc", _NVCC.format(nvcc=shlex.quote(str(nvcc)))),
                       ("python-config", _PYTHON_CONFIG.format(includes=shlex.quote(f"-I{includes}"),
                                                               suffix=suffix))):
        (overlay / "bin" / name).write_text(text)
        (overlay / "bin" / name).chmod(0o755)
    # PTX for the oldest devices of CUDA 13, which the driver translates for newer ones.
    done = subprocess.run([f"{overlay}/bin/nvcc", "-arch=sm_75", "-O2", "-shared", "-Xcompiler", "-fPIC",
                           "--cudart=shared", f"-I{overlay}/include", f"-L{overlay}/lib64",
                           f"{overlay}/cutt/cutt.cu", "-o", f"{overlay}/cutt/libcutt.so"],
                          capture_output=True, text=True)
    if done.returncode:
        raise Unsuitable(f"{nvcc} does not compile ({(done.stderr or done.stdout).strip().splitlines()[:1]})")


def _link(link: Path, to: Path) -> None:
    if not os.path.lexists(link):
        link.symlink_to(to)
