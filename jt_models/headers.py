"""Jittor's headers, compiled once: a kernel is some lines below sixty headers, and to read these is most of its
compilation (g++'s "Using Precompiled Headers")."""
from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import jittor as jt

# Nothing that kernels do not include themselves: one that forgets a header must fail wherever it is compiled.
_HEADER = """#define JIT 1
#include <cmath>
#include "var.h"
#include "fused_op.h"
#include "ops/op_register.h"
"""


def precompile() -> None:
    """Have the kernels that this process compiles begin with precompiled headers. Where the compiler is not g++, or
    does not do it, all stays as it was."""
    flags = jt.flags.cc_flags
    if jt.flags.cc_type != "g++":
        return
    header = Path(jt.flags.cache_path, "headers", _digest(flags), "kernel.h")
    header.parent.mkdir(parents=True, exist_ok=True)
    compiled = Path(f"{header}.gch")
    if not compiled.is_file() and not _compile(header, compiled, flags):
        return
    jt.flags.cc_flags = f'{flags} -include "{header}" '


def compiler(flags: str) -> list[str]:
    """The compiler as utils/asm_tuner.py calls it: with debug lines, and without what is meant for the linker."""
    kept = [flag for flag in shlex.split(flags) if not flag.startswith(("-l", "-L", "-Wl", "-shared"))]
    return [jt.flags.cc_path, *kept, "-g"]


def _digest(flags: str) -> str:
    """Names the headers as they are: g++ does not look whether one has changed since it was precompiled."""
    source = Path(jt.flags.jittor_path, "src")
    found = sorted((str(path), path.stat().st_mtime_ns) for path in source.rglob("*.h"))
    return hashlib.sha256(repr((flags, _HEADER, found)).encode()).hexdigest()[:16]


def _compile(header: Path, compiled: Path, flags: str) -> bool:
    """Both files, each complete or absent: another process may do the same at this time."""
    with tempfile.TemporaryDirectory(dir=header.parent) as folder:
        text, result = Path(folder, header.name), Path(folder, compiled.name)
        text.write_text(_HEADER)
        command = [*compiler(flags), "-x"]
        trial = [*command, "c++", "-Winvalid-pch", "-Werror", "-include", text, "-S", os.devnull, "-o", os.devnull]
        for one in ([*command, "c++-header", text, "-o", result], trial):
            if subprocess.run(one, capture_output=True).returncode:
                return False
        os.replace(text, header)
        os.replace(result, compiled)
        return True
