"""The mean of the risk under the model's own token probabilities.

A model that says 20 for most cases still prefers 20 by different margins; weighting each possible
number by its probability recovers the grades (Liu et al., G-Eval, EMNLP 2023).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_RISK = re.compile(r'"risk"\s*:\s*(\d{1,3})')
_MAX = 100


class Token(NamedTuple):
    """One token of a reply with the log-probabilities of itself and of its alternatives.

    These are as the server sent them, ``{"token", "logprob"}`` each: of hundreds of tokens, those
    of the risk alone are looked at. So a log-probability may be anything, such as null.
    """

    text: str
    logprob: Any
    alternatives: Sequence[Mapping[str, Any]]


def expected_risk(content: str, tokens: Sequence[Token]) -> float | None:
    """The expected value, 0 to 100, of the number after ``"risk":``; ``None`` without a basis.

    Exact where one token holds the number. Where digits are tokens of their own, what would have
    followed another first digit is unknown, and counts with the mean of what could.
    """
    written = "".join(token.text for token in tokens)
    found = list(_RISK.finditer(written))
    if not found or written.strip() != content.strip():  # servers trim what the model wrote
        return None
    start, stop = found[-1].span(1)
    total, path, prefix, at = 0.0, 1.0, "", 0
    for token in tokens:
        begin, at = at, at + len(token.text)
        if at <= start or begin >= stop:
            continue
        lead = token.text[: max(0, start - begin)]
        tail = token.text[max(0, stop - begin) :]
        own = token.text[len(lead) : len(token.text) - len(tail)]
        options = _options(token, lead, prefix)
        mass = sum(options.values())
        if not mass or own not in options:
            return None
        still_open = stop - min(at, stop)
        for text, chance in options.items():
            if text != own:
                value = _value(prefix + text, still_open if text else 0)
                total += path * chance / mass * value
        path *= options[own] / mass
        prefix += own
    return min(_MAX, total + path * int(prefix)) if prefix else None


def _options(token: Token, lead: str, prefix: str) -> dict[str, float]:
    """Digit strings that could stand here, with probabilities; "" ends the number."""
    said = dict(_numbered(token))
    options: dict[str, float] = {}
    for text, logprob in said.items():
        if not text.startswith(lead):
            continue
        rest = text[len(lead) :]
        digits = re.match(r"\d*", rest)
        number = digits.group(0) if digits else ""
        if not number and not prefix:
            continue
        if prefix + number and int(prefix + number) <= _MAX:
            options[number] = options.get(number, 0.0) + math.exp(logprob)
    return options


def _numbered(token: Token) -> Iterator[tuple[str, float]]:
    """Texts with their log-probabilities, the token's own last; others than numbers are no basis.

    Servers round: a little above 0 is 0.
    """
    for one in (*token.alternatives, {"token": token.text, "logprob": token.logprob}):
        text, logprob = one.get("token"), one.get("logprob")
        if isinstance(text, str) and isinstance(logprob, int | float) and not math.isnan(logprob):
            yield text, min(0.0, logprob)


def _value(digits: str, still_open: int) -> float:
    """The number, with the mean of what ``still_open`` further digits can be."""
    base = 10**still_open
    return float(min(_MAX, int(digits) * base + (base - 1) / 2))
