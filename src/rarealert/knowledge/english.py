"""Whether a text is English, by the share of its words that English medical prose uses.

The student, the dictionary of findings and the negation rules are made for English: a risk for a
visit in another language would be meaningless. The vocabulary is that of HPO's definitions, names
and synonyms, about 20,000 words with the function words of a definition, so that clinical
shorthand is judged by its words rather than by the letters of running prose.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from rarealert.knowledge.hpo import data_file
from rarealert.knowledge.names import name_words, singular, word_list
from rarealert.knowledge.recognise import load_everyday_wordings

MIN_SHARE = 0.5
"""Share 0-1 of known words below which a text does not count as English."""

_MIN_WORDS = 3  # a complaint of two words may be a proper name; other scripts need no minimum
_PROSE = re.compile(r'^(?:def|name|synonym): (?:"((?:[^"\\]|\\.)*)"|([^!\n]*))', re.M)
_LETTERS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_EVERYDAY = word_list("everyday")
"""Words of a history that a dictionary of findings does not contain."""

_SHORTHAND = word_list("shorthand")
"""Clinical abbreviations: a note may consist of little else. None is a common word of another
language, so "mi" and "af" are missing."""

_FOREIGN = word_list("foreign")
"""Function words of other languages in HPO's names ("de novo", "café au lait")."""


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    text = data_file("hp.obo").read_text(encoding="utf-8")
    words = {*_EVERYDAY, *map(singular, _SHORTHAND)}
    for quoted, bare in _PROSE.findall(text):
        words.update(name_words(quoted or bare))
    for wording, _ in load_everyday_wordings():
        words.update(name_words(wording))
    return frozenset(words - _FOREIGN)


def is_english(texts: Iterable[str]) -> bool:
    """Whether at least ``MIN_SHARE`` of the words of ``texts`` are known.

    Numbers, units glued to numbers and symbols are no words. A word in another script than the
    Latin one is never known, so a single one makes any text long enough to judge. A text too short
    to judge counts as English.
    """
    vocabulary = _vocabulary()
    known = total = foreign = 0
    for text in texts:
        for match in _LETTERS.finditer(text):
            parts = name_words(match.group())
            total += 1
            foreign += not parts
            known += bool(parts) and all(part in vocabulary for part in parts)
    if total < _MIN_WORDS and not foreign:
        return True
    return known / total >= MIN_SHARE
