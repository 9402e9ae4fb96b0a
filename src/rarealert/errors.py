"""Errors that a user can fix: the command prints one clear message instead of a traceback."""


class RareAlertError(Exception):
    """An error that a user can fix; the command prints its message and exits with ``exit_code``."""

    exit_code = 1


class BadInputError(RareAlertError):
    """A file, row or field is not valid input.

    The message names the file, the row and the field where they are known, what was expected,
    and what to do. It never quotes case text.
    """

    exit_code = 2
