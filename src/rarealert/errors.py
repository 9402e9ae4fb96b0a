"""The errors a user can mend: one clear sentence each, never a traceback."""


class RareAlertError(Exception):
    """Something a user can mend; the command prints its sentence and exits with ``exit_code``."""

    exit_code = 1


class BadInputError(RareAlertError):
    """A file, row or field is not what the command can work with.

    The sentence names the file, the row and the field where they are known, and what to do. It
    never quotes case text.
    """

    exit_code = 2
