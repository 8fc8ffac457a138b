"""What Linux tells of the processor."""
from __future__ import annotations

import contextlib
import functools
import platform


@functools.cache
def _told() -> dict[str, str]:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        return dict(map(str.strip, line.split(":", 1)) for line in info if ":" in line)
    return {}


def has_avx512() -> bool:
    """Whether it has vectors of 64 bytes."""
    return "avx512f" in _told().get("flags", "").split()


def name() -> str:
    """Its name, and whether it has AVX-512: in virtual machines that name may stand for several processors."""
    found = _told().get("model name") or platform.processor() or platform.machine()
    return f"{found}, AVX-512" if has_avx512() else found
