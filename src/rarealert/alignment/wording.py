"""How an explanation is worded, in numbers: hedged, certain, negated, long, about what.

The words are general English and medicine, none of a certain teacher, and the embedding is a
fixed hash: nothing here is fitted, so nothing can know a label.
"""

import math
import re
from functools import lru_cache
from zlib import crc32


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_HEDGES = _words(
    """
    may might could possible possibly perhaps likely unlikely suggest suggests suggesting
    consider considered appears seems suspected uncertain unclear probable probably
    """
)
_CERTAINTIES = _words(
    """
    definite definitely certain certainly clearly diagnostic pathognomonic classic classical
    typical characteristic confirms confirmed always strongly
    """
)
_NEGATIONS = _words(
    """
    no not without absent absence denies denied negative never neither nor nobody none
    """
)
_RARE = _words(
    """
    rare rarely uncommon orphanet genetic inherited hereditary congenital familial syndrome
    mutation dysplasia autosomal recessive dominant
    """
)
_VOCABULARIES = (_HEDGES, _CERTAINTIES, _NEGATIONS, _RARE)
_DIMENSIONS = 8  # of the embedding; every column is paid for in each cell of the screening
_WORD = re.compile(r"[a-z]+")

WORDING = (
    "hedging",
    "certainty",
    "negation",
    "rarity",
    "log_words",
    *(f"embedding_{n}" for n in range(_DIMENSIONS)),
)
"""What ``wording_of`` counts, in order."""


def wording_of(text: str) -> list[float]:
    """Shares of hedging, certain, negating and rarity words, log of the length, an embedding.

    The embedding is the mean over words of a signed hash (Weinberger et al., Feature hashing for
    large scale multitask learning, ICML 2009), scaled to length 1; all 0 for a text without words.
    """
    words = _WORD.findall(text.lower())
    shares = [
        sum(word in vocabulary for word in words) / max(1, len(words))
        for vocabulary in _VOCABULARIES
    ]
    embedding = [0.0] * _DIMENSIONS
    for word in words:
        place, sign = _bucket(word)
        embedding[place] += sign
    length = math.hypot(*embedding) or 1.0
    return [*shares, math.log1p(len(words)), *(value / length for value in embedding)]


@lru_cache(maxsize=100_000)
def _bucket(word: str) -> tuple[int, float]:
    digest = crc32(word.encode())
    return digest % _DIMENSIONS, 1.0 if digest & 1 << 16 else -1.0
