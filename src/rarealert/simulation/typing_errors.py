"""Typing errors of hurried writers."""

import random
import re

_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")


def with_typing_errors(text: str, every: float, rng: random.Random) -> str:
    """The text with two letters swapped, one lost or one doubled in a word of ``every``."""

    def mistyped(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() * every >= 1:
            return word
        at = rng.randrange(1, len(word) - 2)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        lost = word[:at] + word[at + 1 :]
        doubled = word[:at] + word[at] + word[at:]
        return rng.choice((swapped, lost, doubled))

    return _LONG_WORD.sub(mistyped, text)
