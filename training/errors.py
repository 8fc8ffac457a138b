"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: one sentence that names the value and what is allowed.

    The scripts print it as ``error: ...`` and exit with 2; anything else is a bug.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """"; did you mean 'x'?" for the known name that is nearest, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
