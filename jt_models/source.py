"""The text of compiled operations."""
from __future__ import annotations

import functools

import jittor as jt


# Defines how many bytes a vector of this processor has; with less than AVX2 the compiler makes several of one.
BYTES = """
#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32
#endif
"""


@functools.lru_cache
def filled(source: str, **words) -> str:
    """`source` with each of these words replaced by the text of its value, in this order."""
    for word, value in words.items():
        source = source.replace(word, str(value))
    return source


def linked(options: str):
    """Context in which operations are compiled with these options of the linker."""
    return jt.flag_scope(compile_options={f"FLAGS: {options} ": 1})


def sizes(kernel, stride, padding) -> str:
    """Lines that define these sizes, down and across, for a compiler."""
    values = zip(("KH", "KW", "STEP_H", "STEP_W", "PAD_H", "PAD_W"), (*kernel, *stride, *padding))
    return "".join(f"#define {name} {value}\n" for name, value in values)
