"""Stems under which the words of a finding's name match in any order."""

from functools import lru_cache

from rarealert.knowledge.names import word_list

_ENDINGS = ("ness", "ity", "ing", "ed", "al", "ly", "ae", "a", "e", "y")
_MIN_STEM = 4
_SAME = {
    "anomaly": "abnormality",
    "facial": "face",
    "feet": "foot",
    "teeth": "tooth",
    "ocular": "eye",
    "renal": "kidney",
    "hepatic": "liver",
    "cardiac": "heart",
    "nasal": "nose",
    "enlarged": "large",
    "swollen": "swelling",
    "absence": "absent",
    "deafness": "deaf",
}
_LEFT_OUT = word_list("left_out_of_stems")


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a normalised word; irregular and Latin forms under that of the plain word."""
    word = _SAME.get(word, word)
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM:
            return word[: -len(ending)]
    return word


def bag(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """The sorted stems of a name of two to five words; ``None`` where their order matters."""
    if not 2 <= len(words) <= 5 or not _LEFT_OUT.isdisjoint(words):
        return None
    if any(word.isdigit() or len(word) < 3 for word in words):
        return None
    return tuple(sorted(map(stem, words)))
