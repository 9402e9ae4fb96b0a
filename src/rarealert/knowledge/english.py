"""Is a text English? The share of its words that English medical prose uses.

The student, the findings' dictionary and the negation rules know English alone: a visit in another
language would get a risk that rests on nothing. The vocabulary is that of HPO's definitions, names
and synonyms, some 20,000 words with the function words that a definition needs, so clinical
shorthand is judged by its own words rather than by the letters of running prose.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from rarealert.knowledge.hpo import data_file
from rarealert.knowledge.names import name_words, singular, word_set
from rarealert.knowledge.recognise import load_everyday_wordings

MIN_SHARE = 0.5
"""Share 0-1 of known words below which a text is not called English."""

_MIN_WORDS = 3  # a complaint of two words may be a name of its own; other scripts need no minimum
_PROSE = re.compile(r'^(?:def|name|synonym): (?:"((?:[^"\\]|\\.)*)"|([^!\n]*))', re.M)
_LETTERS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_EVERYDAY = word_set(
    """i me my we our you your he him his she her hers it its they them their who whom what which
    this that these those am is are was were be been being have has had having do does did doing
    will would shall should can could may might must not no nor and or but if then else when while
    because so than too very just only also again further once here there where why how all any
    both each few more most other some such own same s t don now about above after against at
    before below between by down during for from in into of off on out over through to under until
    up with without as an a the today yesterday tomorrow day days week weeks month months year
    years old ago since started came come comes feel feels felt get gets got go goes went told says
    said mother father brother sister wife husband son daughter family work works worked working
    school home lives live lived smoke smokes smoker smoking drink drinks alcohol tobacco never
    takes take took taking sometimes often always usually last night morning evening denies denied
    reports reported complains presents presented noticed worse better good bad well tired bpm mmhg
    kg cm mg hr bp rr temp pt yo"""
)
"""Words of a history that a dictionary of findings has no use for."""

_SHORTHAND = word_set(
    """abdo afebrile bid bmi ckd copd ctab cva cvs cxr doe dx ecg ekg ent gcs gerd gord hpc hrs hs
    htn hx ibs ihd jvp lrti msk nad neuro nkda ntnd oe perrla pmh pmhx prn qds qid resp ros rrr rx
    sats snt sob soboe spo sx tds tia tid tx urti uti wk wks wnl yrs"""
)
"""What clinicians write for words: a note may consist of little else. None is a common word of
another language, so "mi" and "af" are missing."""

_FOREIGN = word_set(
    """da de del der di du een el en et fa het ho il ist la las le lo los mi mit na que se un una
    und van zu"""
)
"""Small words of other languages that HPO's names hold ("de novo", "café au lait")."""


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    text = data_file("hp.obo").read_text(encoding="utf-8")
    words = {*_EVERYDAY, *map(singular, _SHORTHAND)}
    for quoted, bare in _PROSE.findall(text):
        words.update(name_words(quoted or bare))
    for wording, _ in load_everyday_wordings():
        words.update(name_words(wording))
    return frozenset(words - _FOREIGN)


def english_share(texts: Iterable[str]) -> float | None:
    """Share 0-1 of the words of ``texts`` that are known; ``None`` where there are too few to say.

    Numbers, units glued to numbers and symbols count as no words. A word in another script than
    the Latin one is never known, so three of them suffice in any text.
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
        return None
    return known / total


def is_english(texts: Iterable[str]) -> bool:
    """Whether enough words are known; a text too short to judge is taken for English."""
    share = english_share(texts)
    return share is None or share >= MIN_SHARE
