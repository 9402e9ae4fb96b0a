"""The normal form of disease names, the same for spelling variants."""

import re
import unicodedata
from functools import lru_cache

from rarealert.knowledge import packaged_rows

_WORD = re.compile(r"[a-z0-9]+")
_EPONYM = re.compile(r"(?<=\w)['\u2019]s?\b")
_BRITISH = (
    ("aemia", "emia"),
    ("haem", "hem"),
    ("oedema", "edema"),
    ("oeso", "eso"),
    ("paed", "ped"),
    ("anae", "ane"),
    ("tumour", "tumor"),
    ("leuco", "leuko"),
    ("coeliac", "celiac"),
    ("foetal", "fetal"),
    ("diarrhoea", "diarrhea"),
    ("gynaec", "gynec"),
    ("orthopaed", "orthoped"),
    ("sulph", "sulf"),
    ("rrhoea", "rrhea"),
    ("pnoea", "pnea"),
    ("goitre", "goiter"),
    ("centre", "center"),
    ("oestr", "estr"),
    ("caesar", "cesar"),
    ("generalised", "generalized"),
    ("localised", "localized"),
    ("naevus", "nevus"),
    ("caecum", "cecum"),
    ("colour", "color"),
    ("odour", "odor"),
    ("behaviour", "behavior"),
    ("fibre", "fiber"),
    ("ischaem", "ischem"),
    ("leucaem", "leukem"),
    ("faec", "fec"),
    ("aesthe", "esthe"),
    ("glycaem", "glycem"),
    ("uraem", "urem"),
)
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8"}
_NUMBERED = ("type", "stage", "class", "grade")  # the words before a number
_KEPT_S = ("ss", "us", "is", "as", "os")
_MIN_PLURAL = 4
_GREEK = str.maketrans(
    {"\u03b1": " alpha ", "\u03b2": " beta ", "\u03b3": " gamma ", "\u03b4": " delta "}
)


def word_set(text: str) -> frozenset[str]:
    """The words of a list written as running text."""
    return frozenset(text.split())


@lru_cache(maxsize=1)
def _word_lists() -> dict[str, frozenset[str]]:
    lists: dict[str, set[str]] = {}
    for row in packaged_rows("word_lists.tsv"):
        lists.setdefault(row["list"], set()).add(row["entry"])
    return {name: frozenset(entries) for name, entries in lists.items()}


def word_list(name: str) -> frozenset[str]:
    """The entries of one list in ``word_lists.tsv``."""
    return _word_lists()[name]


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """A lower-case word without its English plural ending; Latin endings stay as they are."""
    if word.endswith("omas"):
        return word[:-1]
    if len(word) < _MIN_PLURAL or not word.endswith("s") or word.endswith(_KEPT_S):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1]


@lru_cache(maxsize=65536)
def name_words(name: str) -> tuple[str, ...]:
    """Words of a name: no case, accents, punctuation, eponym 's, plural or British spelling.

    The number of a type is Arabic.
    """
    plain = _EPONYM.sub("", name.translate(_GREEK).casefold())
    plain = unicodedata.normalize("NFKD", plain)
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    for british, american in _BRITISH:
        plain = plain.replace(british, american)
    words = [singular(word) for word in _WORD.findall(plain)]
    for place in range(1, len(words)):
        if words[place - 1] in _NUMBERED:
            words[place] = _ROMAN.get(words[place], words[place])
    return tuple(words)


def normalise_name(name: str) -> str:
    """``name_words`` joined by one space: the same key for all variants of a name."""
    return " ".join(name_words(name))
