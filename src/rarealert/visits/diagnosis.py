"""Names of diagnoses: the key that groups a disease, and whether a visit names its diagnosis."""

import re
from collections.abc import Iterable

from rarealert.knowledge.names import name_words, normalise_name

_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]")
# a full stop ends a name only after a whole word: "H. pylori gastritis" is no disease called H
_TAIL = re.compile(
    r"\s*(?:[,;:]|(?:(?<=[^\W\d_]{4})|\s)\.(?=\s)|"
    r"\s(?:with|without|secondary to|due to|caused by|associated with|complicated by|"
    r"complicating|following|induced by|presenting (?:as|with)|involving|arising (?:from|in)|"
    r"resulting (?:from|in)|leading to)\s).*",
    re.S,
)
_MARKUP = re.compile(r"[*_`]+|^\s*\d+\.\s+")
_MIN_ABBREVIATION = 3
_MIN_LETTERS = 3


def core_name(diagnosis: str) -> str:
    """The disease without brackets, complications, causes and sites.

    "Sporadic Creutzfeldt-Jakob disease (sCJD) with psychosis." gives "Sporadic Creutzfeldt-Jakob
    disease". A core of one or two letters names nothing, so "C, unspecified" stays whole.
    """
    plain = _BRACKETS.sub(" ", _MARKUP.sub("", diagnosis)).strip(" .;,:-")
    core = " ".join(_TAIL.sub("", plain, count=1).split())
    return next(filter(_is_long_enough, (core, plain)), diagnosis.strip())


def _is_long_enough(name: str) -> bool:
    # a word of another script may be that short
    return not name.isascii() or sum(char.isalpha() for char in name) >= _MIN_LETTERS


def disease_key(diagnosis: str) -> str:
    """``NAME:<normalised core name>``, the same for spelling variants of one disease.

    A name in another script has no normal form and is its own key.
    """
    core = core_name(diagnosis)
    return f"NAME:{normalise_name(core) or ' '.join(core.casefold().split())}"


def wordings(diagnosis: str) -> set[str]:
    """Ways in which a visit could name ``diagnosis``: whole, core, and the content of brackets."""
    plain = _MARKUP.sub("", diagnosis)
    bracketed = {text for text in _BRACKETS.findall(plain) if _is_name(text)}
    bare = _BRACKETS.sub(" ", plain)
    return {plain, core_name(diagnosis), *bracketed, *([bare] if _is_long_enough(bare) else [])}


def _is_name(text: str) -> bool:
    letters = re.sub(r"[^A-Za-z]", "", text)
    capitals = sum(char.isupper() for char in letters)
    return len(letters) >= _MIN_ABBREVIATION and (
        capitals * 2 > len(letters) or len(text.split()) > 1
    )


def names_diagnosis(text: str, diagnoses: Iterable[str]) -> bool:
    """Whether ``text`` literally contains one of the wordings of ``diagnoses``.

    Compared word by word in the normal form of names: case, accents, punctuation, plurals and
    British spelling don't matter. A negated mention counts: it reveals the diagnosis as well.
    """
    # past the cache: it would keep every visit in memory
    words = name_words.__wrapped__(text)
    searched = f" {' '.join(words)} "
    keys = {normalise_name(wording) for name in diagnoses for wording in wordings(name)}
    return any(f" {key} " in searched for key in keys if key)
