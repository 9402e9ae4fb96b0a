"""What of a visit can be read and told: words, fields of a bounded length, names of files."""

import re

from rarealert.cases.case import TEXT_FIELDS, Case

MAX_TEXT = 20_000
"""Characters of one field, as in ``Case``."""

_LETTER = re.compile(r"[^\W\d_]")

NO_WORD = "holds no word to read"
"""Why a visit without one is refused: digits and signs would get a risk out of nothing."""


def wordless_field(case: Case) -> str | None:
    """The first text field of a visit none of whose fields holds a letter, else ``None``."""
    told = {name: text for name in TEXT_FIELDS if (text := getattr(case, name))}
    if any(_LETTER.search(text) for text in told.values()):
        return None
    return next(iter(told))


def tellable(name: str) -> str:
    """The name of a file, where its bytes are no UTF-8 or can't be printed as an escape of them."""
    if name.isprintable():
        return name
    shown = name.encode("ascii", "backslashreplace").decode()
    return "".join(char if char.isprintable() else "?" for char in shown)
