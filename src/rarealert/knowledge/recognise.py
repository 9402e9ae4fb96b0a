"""Recognition of HPO findings in free text, with state and holder.

A dictionary of wordings is matched over normalised tokens, the longest wording first; the words
around a finding decide its state and holder (``context``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.context import Heading, Holder, State, context_of, heading_of
from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.names import name_words, word_list
from rarealert.knowledge.sentence_tokens import Token, sentences
from rarealert.knowledge.stems import bag, stem

_SKIPPED = frozenset(
    ("a", "an", "the", "his", "her", "their", "my", "of", "in", "on", "at", "to", "left", "right")
)
_LINKS = frozenset(("is", "are", "was", "were", "very"))
"""Words left out within a name in another order: "the ears are low-set"."""
_NEVER_FIRST = frozenset(("and", "or", "with", "no", "not", "without"))
"""First words of HPO's wordings that are left out: they would hide a negation or the end of a list.

Our own were read one by one ("not yet sitting")."""
_MIN_CHARACTERS = 4
_END = ""  # no token is empty, so the key can't clash with one
_RANK = {"EXACT": 1, "NARROW": 4, "RELATED": 5}
_MOST_STEMS = 5
_BROAD = 9
_EVERYDAY = 3  # ours: behind HPO's names and exact synonyms
_AMBIGUOUS = word_list("ambiguous")


@dataclass(frozen=True, slots=True)
class Mention:
    """One finding in a text: ``text[start:end]`` names it, ``start < end``."""

    hpo_id: str
    start: int
    end: int
    state: State
    holder: Holder


class Recogniser:
    """Finds HPO terms in text by a dictionary of wordings; build one with ``load_recogniser``."""

    def __init__(self, phrases: Mapping[tuple[str, ...], str]) -> None:
        self._trie: dict[str, Any] = {}
        for words, hpo_id in phrases.items():
            node = self._trie
            for word in words:
                node = node.setdefault(word, {})
            node[_END] = hpo_id
        self._bags: dict[tuple[str, ...], str] = {}
        for words, hpo_id in phrases.items():
            if stems := bag(words):
                self._bags.setdefault(stems, hpo_id)
        self._stems = frozenset(each for stems in self._bags for each in stems)

    def mentions(self, text: str, *, family: bool = False) -> tuple[Mention, ...]:
        """Every finding named in ``text``, in order, never overlapping.

        ``family`` marks a text that is about relatives throughout. Any string is accepted.
        """
        return self.read(text, family=family)[0]

    def affirmed(self, text: str) -> tuple[str, ...]:
        """HPO ids that ``text`` affirms of the patient, by first mention."""
        return tuple(
            dict.fromkeys(
                item.hpo_id
                for item in self.mentions(text)
                if (item.state, item.holder) == ("present", "patient")
            )
        )

    def read(
        self, text: str, *, family: bool = False
    ) -> tuple[tuple[Mention, ...], tuple[tuple[int, int], ...]]:
        """The findings of ``text``, and the places ``(start, end)`` of denied words.

        Denied words are a trigger and its scope ("no fever": both words), and a finding with a
        trigger behind it ("fever is absent": "fever").
        """
        found: list[Mention] = []
        denied: list[tuple[int, int]] = []
        usual = Heading(holder="relative") if family else Heading()
        heading = usual
        for sentence in sentences(text):
            tokens = sentence.tokens
            if sentence.new_paragraph:
                heading = usual
            spans = list(self._matches(tokens))
            if sentence.opens_list and not spans:
                heading = usual if family else heading_of(tokens)
                continue
            context = context_of(tokens, [(first, last) for _, first, last in spans], heading)
            denied += [
                (token.start, token.end)
                for token, within in zip(tokens, context.denied, strict=True)
                if within
            ]
            for (hpo_id, first, last), state, holder in zip(
                spans, context.states, context.holders, strict=True
            ):
                found.append(Mention(hpo_id, tokens[first].start, tokens[last].end, state, holder))
        return tuple(found), tuple(denied)

    def _matches(self, sentence: Sequence[Token]) -> Iterator[tuple[str, int, int]]:
        first = 0
        while first < len(sentence):
            best = self._longest(sentence, first)
            unordered = self._unordered(sentence, first)
            if unordered and (best is None or unordered[1] > best[1]):
                best = unordered
            if best is None:
                first += 1
                continue
            hpo_id, last = best
            yield hpo_id, first, last
            first = last + 1

    def _longest(self, sentence: Sequence[Token], first: int) -> tuple[str, int] | None:
        node, best = self._trie, None
        for index in range(first, len(sentence)):
            word = sentence[index].word
            if index > first and (sentence[index].after_comma or ":" in sentence[index].gap):
                break
            if word in _SKIPPED and index > first and word not in node:
                continue
            if word not in node:
                break
            node = node[word]
            if _END in node:
                best = (node[_END], index)
        return best

    def _unordered(self, sentence: Sequence[Token], first: int) -> tuple[str, int] | None:
        """The longest name of two or more words whose stems follow in any order."""
        stems: list[str] = []
        best = None
        for index in range(first, len(sentence)):
            token = sentence[index]
            if index > first:
                if token.after_comma or token.after_bracket or ":" in token.gap:
                    break
                if token.word in _SKIPPED or token.word in _LINKS:
                    continue
            each = stem(token.word)
            if each not in self._stems or len(stems) == _MOST_STEMS:
                break
            stems.append(each)
            if len(stems) > 1 and (hpo_id := self._bags.get(tuple(sorted(stems)))):
                best = (hpo_id, index)
        return best


@lru_cache(maxsize=1)
def load_recogniser() -> Recogniser:
    """The recogniser over the installed HPO and the packaged everyday wordings."""
    return Recogniser(_dictionary(load_ontology()))


def _dictionary(ontology: Ontology) -> dict[tuple[str, ...], str]:
    """Normalised wording to id, best first; the better kind of wording wins, then the lower id."""
    ranked: dict[tuple[str, ...], tuple[int, str]] = {}
    for wording, rank, hpo_id in (*_hpo_wordings(ontology), *_other_wordings(ontology)):
        words = tuple(word for word in name_words(wording) if word not in _SKIPPED)
        hides_denial = bool(words) and words[0] in _NEVER_FIRST and rank != _EVERYDAY
        if not words or hides_denial or (len(words) == 1 and _is_ambiguous(words[0])):
            continue
        ranked[words] = min(ranked.get(words, (rank, hpo_id)), (rank, hpo_id))
    best_first = sorted(ranked.items(), key=lambda item: (item[1], item[0]))
    return {words: hpo_id for words, (_, hpo_id) in best_first}


def _hpo_wordings(ontology: Ontology) -> Iterator[tuple[str, int, str]]:
    """HPO's names and its exact, narrow and related synonyms, with rank and id."""
    for term in ontology.terms.values():
        if not ontology.is_phenotype(term.id):
            continue
        yield term.name, 0, term.id
        for synonym in term.synonyms:
            if synonym.scope in _RANK:
                yield synonym.text, _RANK[synonym.scope] + synonym.layperson, term.id


def _other_wordings(ontology: Ontology) -> Iterator[tuple[str, int, str]]:
    """Our wordings, and broad synonyms of two or more words that are those of a single term."""
    for wording, hpo_id in load_everyday_wordings():
        yield wording, _EVERYDAY, hpo_id
    broad: dict[tuple[str, ...], set[str]] = {}
    for term in ontology.terms.values():
        for synonym in term.synonyms:
            if synonym.scope == "BROAD" and ontology.is_phenotype(term.id):
                broad.setdefault(name_words(synonym.text), set()).add(term.id)
    for words, meant in broad.items():
        if len(meant) == 1 and len(words) > 1:
            yield " ".join(words), _BROAD, next(iter(meant))


def _is_ambiguous(word: str) -> bool:
    return len(word) < _MIN_CHARACTERS or word in _AMBIGUOUS


@lru_cache(maxsize=1)
def load_everyday_wordings() -> tuple[tuple[str, str], ...]:
    """Wordings of patients with their HPO ids, beside HPO's own lay synonyms."""
    rows = packaged_rows("wordings")
    return tuple((row["wording"], row["hpo_id"]) for row in rows)
