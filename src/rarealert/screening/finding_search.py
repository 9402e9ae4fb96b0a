"""Search findings as a clinician types: by HPO names, HPO synonyms and everyday wordings.

Every word of the query must begin a word of one wording. Wordings that begin with the query come
first, then findings of many disease profiles, then shorter wordings.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.names import name_words
from rarealert.knowledge.profiles import load_common_profiles, load_rare_profiles
from rarealert.knowledge.recognise import load_everyday_wordings

MAX_QUERY = 100
"""Characters of a query that are used; no finding's name needs more."""

_SCOPES = ("EXACT", "NARROW", "RELATED")


@dataclass(frozen=True, slots=True)
class FoundFinding:
    """A finding: its HPO id and name, and the wording that matched."""

    hpo_id: str
    name: str
    wording: str


@dataclass(frozen=True, slots=True)
class _Wording:
    hpo_id: str
    text: str
    words: tuple[str, ...]


class FindingSearch:
    """An index of wordings by the beginnings of their words; use ``load_search``."""

    def __init__(self, ontology: Ontology, wordings: Iterable[tuple[str, str]]) -> None:
        """``wordings`` are pairs of a wording and its HPO id, added to HPO's own."""
        self._ontology = ontology
        seen = dict.fromkeys((*_of_ontology(ontology), *wordings))
        split = (_Wording(hpo_id, text, name_words(text)) for text, hpo_id in seen)
        self._wordings = tuple(wording for wording in split if wording.words)
        self._words = sorted(
            (word, place) for place, each in enumerate(self._wordings) for word in set(each.words)
        )
        self._used = _annotations()

    def search(self, query: str, limit: int = 8) -> tuple[FoundFinding, ...]:
        """At most ``limit`` findings, each once, best first; any string is accepted."""
        words = name_words(query[:MAX_QUERY])
        if not words:
            return ()
        places = set(self._beginning_with(words[0]))
        for word in words[1:]:
            places.intersection_update(self._beginning_with(word))
        found: dict[str, FoundFinding] = {}
        for place in sorted(places, key=lambda place: self._rank(place, words)):
            each = self._wordings[place]
            name = self._ontology.name(each.hpo_id)
            found.setdefault(each.hpo_id, FoundFinding(each.hpo_id, name, each.text))
            if len(found) == limit:
                break
        return tuple(found.values())

    def _beginning_with(self, word: str) -> Iterator[int]:
        index = bisect_left(self._words, (word, -1))
        while index < len(self._words) and self._words[index][0].startswith(word):
            yield self._words[index][1]
            index += 1

    def _rank(self, place: int, words: tuple[str, ...]) -> tuple[int, int, int, str]:
        each = self._wordings[place]
        start = each.words[: len(words)]
        begins = start[:-1] == words[:-1] and start[-1].startswith(words[-1])
        kind = 0 if each.words == words else 1 if begins else 2
        return kind, -self._used[each.hpo_id], len(each.text), each.hpo_id


def _of_ontology(ontology: Ontology) -> Iterator[tuple[str, str]]:
    for term in ontology.terms.values():
        if ontology.is_phenotype(term.id):
            yield term.name, term.id
            for synonym in term.synonyms:
                if synonym.scope in _SCOPES:
                    yield synonym.text, term.id


def _annotations() -> Counter[str]:
    """Number of disease profiles that each term is in."""
    profiles = (*load_rare_profiles(), *load_common_profiles())
    return Counter(finding.hpo_id for profile in profiles for finding in profile.findings)


@lru_cache(maxsize=1)
def load_search() -> FindingSearch:
    """The search over the installed HPO and the packaged everyday wordings, built once."""
    return FindingSearch(load_ontology(), load_everyday_wordings())
