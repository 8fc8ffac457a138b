"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Bad input: one sentence that names the value and what is allowed.

    The scripts print it as ``error: ...`` and exit with 2; anything else is a bug.
    """
