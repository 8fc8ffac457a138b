"""The text of compiled operations."""
from __future__ import annotations

import functools


@functools.lru_cache
def filled(source: str, **words) -> str:
    """`source` with each of these words replaced by the text of its value, in this order."""
    for word, value in words.items():
        source = source.replace(word, str(value))
    return source
