"""Sentences of a text as tokens with their places and the signs between them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rarealert.knowledge.names import name_words, word_list

_TICKS = {
    "-": "negative",
    "\u2013": "negative",
    "\u2212": "negative",
    "+": "positive",
    "?": "query",
}
_TOKEN = re.compile(
    r"(?<![^\s(\[,:;/-])\?(?=\s*\w)"  # "?seizures"
    r"|[+\u2212\u2013-]ve\b"
    r"|(?<=[(\[])[+\u2212\u2013-]{1,2}(?=[)\]])"  # "fever (-)"
    r"|(?<=\s)[+-](?=[a-z])"  # "-fever +rash"
    r"|\w+(?:['\u2019][st]\b)?"
)
_SENTENCE_END = re.compile(r"(?<=\S)[.!](?=\s|$)|(?<=[^\s(\[,:;/-])\?(?=\s|$)|[;\n]")
_DASH = re.compile(r"\s[-\u2013\u2014]+\s|\u2014|\s--?\s")
_NEXT_LETTER = re.compile(r"[^\S\n]*([^\W\d_])")
_CONTINUES = word_list("continues")
_WRAPPED_CHARACTERS = 60  # a line that is wrapped is long, an item of a list is not


@dataclass(frozen=True, slots=True)
class Token:
    """A normalised word, its place in the text, and the signs between it and the word before."""

    word: str
    start: int
    end: int
    gap: str
    after_comma: bool
    after_bracket: bool
    after_dash: bool


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence; ``opens_list`` if it is a line that ends in a colon.

    ``new_paragraph`` if a blank line, or nothing, precedes it.
    """

    tokens: tuple[Token, ...]
    opens_list: bool
    new_paragraph: bool


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of ``text`` that have words."""
    start, blank = 0, True
    for end in (*_sentence_ends(text), len(text)):
        tokens = tuple(_tokens(text, start, end))
        piece = text[start:end]
        blank = blank or (piece.startswith("\n") and not piece.strip())
        if tokens:
            rest = text[tokens[-1].end : end].strip()
            yield Sentence(tokens, rest == ":" and text[end : end + 1] == "\n", blank)
            blank = False
        start = end


def _tokens(text: str, start: int, end: int) -> Iterator[Token]:
    last = start
    for match in _TOKEN.finditer(text, start, end):
        found = match[0]
        sign = _TICKS.get(found[0])
        words = (sign,) if sign else name_words(found)
        if words:
            gap = text[last : match.start()]
            if gap == " ":
                yield Token(" ".join(words), match.start(), match.end(), gap, False, False, False)
            else:
                yield Token(
                    " ".join(words),
                    match.start(),
                    match.end(),
                    gap,
                    "," in gap,
                    any(sign in gap for sign in "()[]"),
                    _DASH.search(gap) is not None,
                )
            last = match.end()


def _sentence_ends(text: str) -> Iterator[int]:
    """Places where sentences end; the end of a line ends one unless the line is wrapped.

    After a wrapped line comes a lower-case letter, and it ends in a comma, in a word such as "of",
    or far to the right. So a list with one finding a line stays a list: "no fever", "cough".
    """
    line_start = 0
    for match in _SENTENCE_END.finditer(text):
        if match[0] == "\n":
            line = text[line_start : match.start()].rstrip()
            line_start = match.end()
            after = _NEXT_LETTER.match(text, line_start)
            if after and after[1].islower() and _is_wrapped(line):
                continue
        yield match.start()


def _is_wrapped(line: str) -> bool:
    last = line.rsplit(None, 1)[-1].lower() if line else ""
    return not last.endswith(":") and (
        last.endswith(",")
        or not _CONTINUES.isdisjoint(name_words(last))
        or len(line) >= _WRAPPED_CHARACTERS
    )
