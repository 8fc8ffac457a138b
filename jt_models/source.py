"""The text of compiled operations."""
from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

import jittor as jt

from training.processor import has_avx512


# Defines how many bytes a vector of this processor has; with less than AVX2 the compiler makes several of one.
BYTES = """
#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32
#endif
"""


def vector_bytes() -> int:
    """What BYTES is where kernels are compiled for this processor, as Jittor does."""
    return 64 if has_avx512() else 32


@functools.lru_cache
def filled(source: str, **words) -> str:
    """`source` with each of these words replaced by the text of its value, in this order."""
    for word, value in words.items():
        source = source.replace(word, str(value))
    return source


@functools.lru_cache
def included(name: str, text: str) -> str:
    """A line that includes `text` from a file in Jittor's cache, where its compilers look for headers: what stands in an
    operation itself is part of a key, which Jittor puts together at each call."""
    folder, content = Path(jt.compiler.cache_path), text.encode()
    path = folder / f"jt_models_{name}_{hashlib.sha256(content).hexdigest()[:16]}.h"
    if not path.is_file():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    return f'#include "{path.name}"'


def linked(options: str):
    """Context in which operations are compiled with these options of the linker."""
    return jt.flag_scope(compile_options={f"FLAGS: {options} ": 1})


def sizes(kernel, stride, padding) -> str:
    """Lines that define these sizes, down and across, for a compiler."""
    values = zip(("KH", "KW", "STEP_H", "STEP_W", "PAD_H", "PAD_W"), (*kernel, *stride, *padding))
    return "".join(f"#define {name} {value}\n" for name, value in values)
