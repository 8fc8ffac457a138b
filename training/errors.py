"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable

_LONGEST = 2000


def escaped(text: str) -> str:
    """Text of which no line break, terminal code or lone surrogate is left: they become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(ValueError):
    """Bad input: one sentence that names the value and what is allowed.

    The scripts print it as ``error: ...`` and exit with 2; anything else is a bug. Line breaks and terminal
    codes in names that come from a file are shown as escapes, and what is endless is cut.
    """

    def __str__(self) -> str:
        text = escaped(super().__str__())
        return text if len(text) < _LONGEST else f"{text[:_LONGEST - 10]} ..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """"; did you mean 'x'?" for the known name that is nearest, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
