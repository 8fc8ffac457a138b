"""What Jittor needs of this machine, and what of it is there: `python -m jt_models.runtime`."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from . import onednn, runtime
from .cuda import overlay
from .cuda.overlay import Unsuitable


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda_case(nvcc: str | None) -> tuple[str, str | None]:
    """(finding, remedy) of the diagnosis, where there is a GPU."""
    if not nvcc:
        return "no CUDA toolkit: Jittor runs on the CPU", "install a CUDA toolkit (nvcc)"
    try:
        how = "with an overlay of our own" if overlay.needed(nvcc) else "as Jittor finds it"
        return f"{nvcc}, release {'.'.join(map(str, overlay.release(nvcc)))}, {how}", None
    except Unsuitable as reason:
        return (f"{reason}: Jittor runs on the CPU",
                "install PyTorch with CUDA 13 (pip install torch), or set nvcc_path=")


def diagnose() -> list[tuple[str, str, str | None]]:
    """What Jittor needs, as (subject, finding, remedy); remedy is None where all is well."""
    rows = []

    def row(subject, finding, remedy=None):
        rows.append((subject, finding, remedy))

    python_ok = (3, 9) <= sys.version_info[:2] <= (3, 12)
    row("Python", platform.python_version(), None if python_ok else "use Python 3.9 to 3.12")
    found = _version("jittor")
    row("Jittor", found or "not installed",
        None if found == runtime.JITTOR else f"pip install jittor=={runtime.JITTOR}")
    numpy = _version("numpy")
    row("NumPy", numpy or "not installed",
        None if numpy and numpy.startswith("1.") else 'pip install "numpy<2"')
    torch = _version("torch")
    row("PyTorch", torch or "not installed (needed for the reference and the parity checks)")
    path = runtime.compiler()
    if path is None:
        row("C++ compiler", f"{os.environ.get('cc_path') or 'g++'} is not on PATH",
            "install g++ (Debian, Ubuntu: apt install g++) or set cc_path")
    else:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True)
        row("C++ compiler", f"{path}: {(shown.stdout or shown.stderr).splitlines()[0]}")
    header = runtime.python_header()
    row("Python headers", str(header.parent) if header.is_file() else f"{header} is missing",
        None if header.is_file() else "install the headers (Debian, Ubuntu: apt install "
        f"python{sys.version_info[0]}.{sys.version_info[1]}-dev)")
    home = runtime.jittor_home()
    laid_out = onednn.place(home)
    if os.environ.get("use_mkl") == "0":
        row("oneDNN", "off by use_mkl=0: convolutions are many times slower", "unset use_mkl")
    elif onednn.is_complete(laid_out):
        row("oneDNN", str(laid_out))
    elif onednn.wheel():
        row("oneDNN", f"wheel {onednn.WHEELS[1]}, laid out at the first import")
    else:
        row("oneDNN", "not here; Jittor will download it at its first import",
            f"without a network: pip install {'==2021.2.0 '.join(onednn.WHEELS)}==2021.2.0 "
            "(Linux x86-64), or set use_mkl=0")
    devices, nvcc = runtime.nvidia_devices(), shutil.which("nvcc")
    row("NVIDIA driver", f"{devices} GPU(s)" if devices else "none: Jittor runs on the CPU")
    if not devices and nvcc:
        row("CUDA", f"{nvcc} is ignored: there is no driver")
    elif devices:
        row("CUDA", *_cuda_case(os.environ.get("nvcc_path", runtime.cuda_toolkit())))
    cache = home / ".cache" / "jittor"
    nearest = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free / 2**30
    writable = os.access(nearest, os.W_OK)
    row("Cache folder", f"{cache} ({free:.1f} GiB free)",
        None if writable and free > 1 else "Jittor needs about 1 GiB that it can write to: "
        "free some, or set JITTOR_HOME to another folder")
    return rows


def main() -> int:
    """Print the diagnosis; returns 0 if nothing needs a remedy, else 1."""
    from rich.console import Console
    from rich.table import Table
    table = Table(title="Jittor on this machine")
    for heading in ("", "subject", "finding", "what to do"):
        table.add_column(heading, overflow="fold")
    rows = diagnose()
    for subject, finding, remedy in rows:
        table.add_row("ok" if remedy is None else "!!", subject, finding, remedy or "")
    Console().print(table)
    return int(any(remedy for _, _, remedy in rows))
