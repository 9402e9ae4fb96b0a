"""Recognition of HPO findings in free text, with negation and family history.

A dictionary of wordings is matched over normalised tokens, the longest wording first. Negation
follows NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and ConText (Harkema et al. 2009, J
Biomed Inform 42:839): a subset of their triggers, pseudo-triggers and terminations, each with a
scope from the trigger to the next termination or the end of the sentence.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.names import name_words, word_list


def _phrases(name: str) -> frozenset[tuple[str, ...]]:
    return frozenset(map(name_words, word_list(name)))


_PSEUDO = _phrases("pseudo_negation")
_BEFORE = _phrases("negation")
_AFTER = _phrases("negation_behind")
_STOP = _phrases("end_of_negation")
_RELATIVES = word_list("relative")
_HAS_IT = word_list("has_finding")
_REPORTS_IT = word_list("reports_finding")
_PATIENT = word_list("patient")
_FIRST_WORDS = frozenset(phrase[0] for phrase in _PSEUDO | _BEFORE | _AFTER | _STOP)
_RELATIVE_REACH = 3  # tokens between the relative and the verb that gives them the finding
_BEHIND_REACH = 5  # tokens from a finding to a trigger behind it, as NegEx's window
_LONGEST = 4  # tokens of a trigger
_OPEN = frozenset(("denied", "absent", "negative", "ruled"))
_TOKEN = re.compile(r"\w+(?:['\u2019]s\b)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[;\n]")
_NEXT_LETTER = re.compile(r"[^\S\n]*([^\W\d_])")
_CONTINUES = word_list("continues")
_WRAPPED_CHARACTERS = 60  # a line that is wrapped is long, an item of a list is not
_SKIPPED = frozenset(
    ("a", "an", "the", "his", "her", "their", "my", "of", "in", "on", "at", "to", "left", "right")
)
_NEVER_FIRST = frozenset(("and", "or", "with", "no", "not", "without"))
"""First words of wordings that are left out: they would hide a negation or the end of a list."""
_MIN_CHARACTERS = 4
_END = ""  # no token is empty, so the key can't clash with one
_RANK = {"EXACT": 1, "NARROW": 3, "RELATED": 4}
_AMBIGUOUS = word_list("ambiguous")


@dataclass(frozen=True, slots=True)
class Mention:
    """One finding in a text: ``text[start:end]`` names it, ``start < end``."""

    hpo_id: str
    start: int
    end: int
    negated: bool
    family: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A normalised word, its place in the text, and whether a comma precedes it."""

    word: str
    start: int
    end: int
    after_comma: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Per token of one sentence: whether it is denied, denies what precedes it, or is a relative's.

    ``denied`` tokens are in the scope of a trigger before them ("no fever"), ``denies_before``
    marks triggers with a scope to the left ("fever is absent").
    """

    denied: tuple[bool, ...]
    denies_before: tuple[bool, ...]
    relatives: tuple[bool, ...]

    def negated(self, first: int, last: int) -> bool:
        """Whether tokens ``first`` to ``last`` are in the scope of a negation."""
        behind = self.denies_before[last + 1 : last + 1 + _BEHIND_REACH]
        return self.denied[first] or any(behind)


class Recogniser:
    """Finds HPO terms in text by a dictionary of wordings; build one with ``load_recogniser``."""

    def __init__(self, phrases: Mapping[tuple[str, ...], str]) -> None:
        self._trie: dict[str, Any] = {}
        for words, hpo_id in phrases.items():
            node = self._trie
            for word in words:
                node = node.setdefault(word, {})
            node[_END] = hpo_id

    def mentions(self, text: str, *, family: bool = False) -> tuple[Mention, ...]:
        """Every finding named in ``text``, in order, never overlapping.

        ``family`` marks a text that is about relatives throughout. Any string is accepted.
        """
        return self.read(text, family=family)[0]

    def affirmed(self, text: str) -> tuple[str, ...]:
        """HPO ids that ``text`` affirms of the patient, by first mention."""
        mentions = (item for item in self.mentions(text) if not item.negated and not item.family)
        return tuple(dict.fromkeys(item.hpo_id for item in mentions))

    def read(
        self, text: str, *, family: bool = False
    ) -> tuple[tuple[Mention, ...], tuple[tuple[int, int], ...]]:
        """The findings of ``text``, and the places ``(start, end)`` of denied words.

        Denied words are a trigger and its scope ("no fever": both words), and a finding with a
        trigger behind it ("fever is absent": "fever").
        """
        found: list[Mention] = []
        denied: list[tuple[int, int]] = []
        for sentence in _sentences(text):
            context = _context_of(sentence, family)
            tokens = zip(sentence, context.denied, strict=True)
            denied.extend((token.start, token.end) for token, within in tokens if within)
            for hpo_id, first, last in self._matches(sentence):
                start, end = sentence[first].start, sentence[last].end
                negated = context.negated(first, last)
                found.append(Mention(hpo_id, start, end, negated, context.relatives[first]))
                if negated and not context.denied[first]:
                    denied.append((start, end))
        return tuple(found), tuple(sorted(denied))

    def _matches(self, sentence: list[Token]) -> Iterator[tuple[str, int, int]]:
        first = 0
        while first < len(sentence):
            best = self._longest(sentence, first)
            if best is None:
                first += 1
                continue
            hpo_id, last = best
            yield hpo_id, first, last
            first = last + 1

    def _longest(self, sentence: list[Token], first: int) -> tuple[str, int] | None:
        node, best = self._trie, None
        for index in range(first, len(sentence)):
            word = sentence[index].word
            if index > first and sentence[index].after_comma:
                break
            if word in _SKIPPED and index > first and word not in node:
                continue
            if word not in node:
                break
            node = node[word]
            if _END in node:
                best = (node[_END], index)
        return best


@lru_cache(maxsize=1)
def load_recogniser() -> Recogniser:
    """The recogniser over the installed HPO and the packaged everyday wordings."""
    return Recogniser(_dictionary(load_ontology()))


def _dictionary(ontology: Ontology) -> dict[tuple[str, ...], str]:
    """Normalised wording to id; the better kind of wording wins, then the lower id.

    BROAD synonyms are left out: they mean more than the finding.
    """
    ranked: dict[tuple[str, ...], tuple[int, str]] = {}

    def offer(wording: str, rank: int, hpo_id: str) -> None:
        words = tuple(word for word in name_words(wording) if word not in _SKIPPED)
        if not words or words[0] in _NEVER_FIRST or (len(words) == 1 and _is_ambiguous(words[0])):
            return
        ranked[words] = min(ranked.get(words, (rank, hpo_id)), (rank, hpo_id))

    for term in ontology.terms.values():
        if not ontology.is_phenotype(term.id):
            continue
        offer(term.name, 0, term.id)
        for synonym in term.synonyms:
            if synonym.scope in _RANK:
                offer(synonym.text, _RANK[synonym.scope] + synonym.layperson, term.id)
    for wording, hpo_id in load_everyday_wordings():
        offer(wording, -1, hpo_id)
    return {words: hpo_id for words, (_, hpo_id) in ranked.items()}


def _is_ambiguous(word: str) -> bool:
    return len(word) < _MIN_CHARACTERS or word in _AMBIGUOUS


@lru_cache(maxsize=1)
def load_everyday_wordings() -> tuple[tuple[str, str], ...]:
    """Wordings of patients with their HPO ids, beside HPO's own lay synonyms."""
    rows = packaged_rows("wordings")
    return tuple((row["wording"], row["hpo_id"]) for row in rows)


def _context_of(sentence: list[Token], family: bool) -> Context:
    """The context of each token; ``family`` if the whole text is about relatives."""
    words = [token.word for token in sentence]
    denied, denies_before = [False] * len(words), [False] * len(words)
    active, index = False, 0
    while index < len(words):
        step = 1
        if length := _starts(words, index, _PSEUDO):
            step = length
        elif length := _starts(words, index, _BEFORE):
            active, step = True, length
        elif _starts(words, index, _STOP):
            active = False
        length = _starts(words, index, _AFTER)
        # "denied fever" denies what follows, "fever was denied." what precedes
        open_to_the_right = words[index] in _OPEN and index + length < len(words)
        denies_before[index] = bool(length) and not open_to_the_right
        denied[index : index + step] = [active] * len(words[index : index + step])
        index += step
    relatives = [True] * len(words) if family else _relatives(words)
    return Context(tuple(denied), tuple(denies_before), tuple(relatives))


def _starts(words: list[str], index: int, phrases: frozenset[tuple[str, ...]]) -> int:
    """Length of the longest phrase that starts at ``index``, 0 if none does."""
    if words[index] not in _FIRST_WORDS:
        return 0
    for length in range(min(_LONGEST, len(words) - index), 0, -1):
        if tuple(words[index : index + length]) in phrases:
            return length
    return 0


def _relatives(words: list[str]) -> list[bool]:
    """Tokens about a relative's own health, not about what a relative reports."""
    marks = [False] * len(words)
    about_family = False
    for index, word in enumerate(words):
        if word == "family" and words[index + 1 : index + 2] == ["history"]:
            about_family = True
        elif word in _RELATIVES:
            ahead = words[index + 1 : index + 1 + _RELATIVE_REACH + 1]
            about_family = bool(_HAS_IT.intersection(ahead)) and not (
                _REPORTS_IT.intersection(ahead)
            )
        elif word in _PATIENT and words[index - 1 : index] != ["of"]:
            about_family = False
        marks[index] = about_family
    return marks


def _sentences(text: str) -> Iterator[list[Token]]:
    """Non-empty lists of tokens, one a sentence, with their places in the whole text."""
    start = 0
    for end in (*_sentence_ends(text), len(text)):
        tokens: list[Token] = []
        for match in _TOKEN.finditer(text, start, end):
            words = name_words(match.group())
            if words:
                before = text[tokens[-1].end : match.start()] if tokens else ""
                tokens.append(Token(" ".join(words), match.start(), match.end(), "," in before))
        if tokens:
            yield tokens
        start = end


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
    return (
        last.endswith(",")
        or not _CONTINUES.isdisjoint(name_words(last))
        or len(line) >= _WRAPPED_CHARACTERS
    )
