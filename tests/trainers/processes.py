"""What /proc tells of other processes."""
from __future__ import annotations

import contextlib
from pathlib import Path


def status(pid) -> tuple[str, int, int] | None:
    """(state, parent, group) of a process, as long as one of its threads lives: till then it holds its locks."""
    place = Path("/proc", str(pid))
    with contextlib.suppress(OSError):
        state, parent, group = (place / "stat").read_text().rpartition(")")[2].split()[:3]
        if state not in "ZX" or len(list((place / "task").iterdir())) > 1:
            return state, int(parent), int(group)
    return None


def command(pid) -> bytes:
    """Its arguments, each with a zero byte after it; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def all_living() -> dict[int, tuple[str, int, int]]:
    """Their status, by number."""
    found = {int(place.name): status(place.name) for place in Path("/proc").glob("[0-9]*")}
    return {pid: known for pid, known in found.items() if known}
