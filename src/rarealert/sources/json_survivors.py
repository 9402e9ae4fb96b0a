"""Elements of a JSON document that is cut or damaged: those before the damage and behind it."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_SEPARATORS = re.compile(r"[\s,]*")
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
_LOOKS = 8  # at damage: how often the text may be read over in all before the rest is given up


@dataclass(frozen=True)
class Element:
    """An element, or in its place the text that is lost; ``tail`` where nothing follows it."""

    key: str | None = None
    value: dict[str, Any] | None = None
    lost: str | None = None
    tail: bool = False


def decoded(content: bytes) -> str:
    """``content`` as UTF-8, in which every byte that is none becomes a lone surrogate."""
    return content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


class _Unnumbered(str):
    """A text whose lines nobody counts: an error of ``json`` would, from the start, every time."""

    def count(self, *_: object) -> int:
        return 0

    def rfind(self, *_: object) -> int:
        return 0


def survivors(
    text: str, at: int, begin: re.Pattern[str], close: str, accept: Callable[[dict[str, Any]], bool]
) -> Iterator[Element]:
    """The objects in ``text`` from ``at`` until ``close``, an array's or an object's bracket.

    ``begin`` matches what stands before an object, up to it, with its name as group ``key`` where
    it has one. Behind damage the next object that begins so, and that ``accept`` takes, is where
    reading goes on. An object that holds what is not UTF-8 is lost.
    """
    text = _Unnumbered(text)
    left = _LOOKS * len(text) + 1_000
    while True:
        at = _end_of_separators(text, at)
        if text.startswith(close, at):
            return
        lost_from = at
        for match in begin.finditer(text, at):
            value, end = _object(text, match.end())
            behind = match.start() > lost_from
            if value is not None and (accept(value) or not behind):
                if behind:
                    yield Element(lost=text[lost_from : match.start()])
                yield Element(match.groupdict().get("key"), value)
                at = end
                break
            left -= end - match.start()
            if left < 0:
                yield Element(lost=text[lost_from:], tail=True)
                return
        else:
            yield Element(lost=text[lost_from:], tail=True)
            return


def _end_of_separators(text: str, at: int) -> int:
    match = _SEPARATORS.match(text, at)
    return match.end() if match else at


def _object(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The object at ``at`` and its end; ``None`` and how far was read, where there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        return None, max(error.pos, at)
    except (RecursionError, ValueError):
        return None, at + (len(text) - at) // _LOOKS
    whole = isinstance(value, dict) and not _NOT_UTF8.search(text, at, end)
    return value if whole else None, end
