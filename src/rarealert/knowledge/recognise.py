"""Whose finding a sentence speaks of, and whether it is there: NegEx's triggers and scopes.

Triggers, pseudo-triggers and terminations are a subset of the lists in Chapman et al. 2001
(J Biomed Inform 34:301) and of ConText (Harkema et al. 2009, J Biomed Inform 42:839).

HPO findings in free text: dictionary look-up with negation and family history.

Longest match over normalised tokens; the scope of a negation follows NegEx (Chapman et al. 2001,
J Biomed Inform 34:301): from a trigger to the next terminating word or the sentence's end.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.names import name_words, word_set


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(name_words(line) for line in text.split(",") if line.strip())


_PSEUDO = _phrases(
    """no increase, no change, no significant change, not only, not just, not certain whether,
    no further, no longer able, without difficulty, not improved, not improve, does not respond,
    not respond, not responded, no relief, no improvement, no better, not resolved, not relieved,
    no more than"""
)
_BEFORE = _phrases(
    """no, not, denies, denied, deny, denying, without, absence of, absent, negative for, never,
    never had, nor, free of, ruled out, rule out, no evidence of, no sign of, no history of,
    lack of, lacks, neither, does not have, did not have, resolved, unremarkable for, cannot see"""
)
_AFTER = _phrases(
    """absent, not present, is denied, are denied, was denied, were denied, denied, ruled out,
    not seen, not noted, not observed, not found, not detected, unlikely, negative, not reported,
    not felt, not palpable, is excluded, none"""
)
_STOP = _phrases(
    """but, however, though, although, except, aside from, besides, yet, nevertheless, has, have,
    had, presents, present with, reports, report, complains, is, are, was, were, shows, show,
    reveals, reveal, notable for, significant for, positive for, who, which, because, since,
    developed, develops, and there"""
)
_RELATIVES = word_set(
    """mother father brother sister uncle aunt grandmother grandfather grandparent cousin parent
    sibling son daughter nephew niece twin maternal paternal"""
)
_HAS_IT = word_set(
    """has had have with died suffer suffered diagnosed of affected carry carrie was were"""
)
_TELLS_IT = word_set(
    """noticed notice noted note report reported state stated say said brought bring concerned
    worried worry describe described deny denied observed think thought believe complain seen
    recall mention mentioned ask asked"""
)
_PATIENT = word_set("""he she patient boy girl man woman child infant baby""")
_FIRST_WORDS = frozenset(phrase[0] for phrase in _PSEUDO | _BEFORE | _AFTER | _STOP)
_RELATIVE_REACH = 3  # tokens between the relative and the verb that gives them the finding
_BEHIND_REACH = 5  # tokens from a finding to a trigger behind it, as NegEx's window
_LONGEST = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A normalised word, its place in the text, and whether a comma stands before it."""

    word: str
    start: int
    end: int
    after_comma: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Per token of one sentence: whether a finding that starts there is denied or a relative's."""

    denied_ahead: tuple[bool, ...]
    triggers_behind: tuple[bool, ...]
    stops: tuple[bool, ...]
    relatives: tuple[bool, ...]

    def negated(self, first: int, last: int) -> bool:
        """Whether tokens ``first`` to ``last`` lie in a negation's scope."""
        if self.denied_ahead[first]:
            return True
        behind = range(last + 1, min(last + 1 + _BEHIND_REACH, len(self.stops)))
        return next((True for index in behind if self.triggers_behind[index]), False)

    def family(self, first: int) -> bool:
        """Whether the finding at token ``first`` is a relative's."""
        return self.relatives[first]


def context_of(sentence: list[Token], family: bool) -> Context:
    """The context of each token; ``family`` where the whole text speaks of relatives."""
    words = [token.word for token in sentence]
    denied, stops = [False] * len(words), [False] * len(words)
    behind = [False] * len(words)
    active, index = False, 0
    while index < len(words):
        step = 1
        if length := _starts(words, index, _PSEUDO):
            step = length
        elif length := _starts(words, index, _BEFORE):
            active, step = True, length
        elif length := _starts(words, index, _STOP):
            active, stops[index] = False, True
        behind[index] = bool(_starts(words, index, _AFTER)) and not _is_open(words, index)
        for place in range(index, min(index + step, len(words))):
            denied[place] = active
        index += step
    relatives = tuple([True] * len(words)) if family else _relatives(words)
    return Context(tuple(denied), tuple(behind), tuple(stops), relatives)


def _is_open(words: list[str], index: int) -> bool:
    """Whether the trigger denies what follows it ("denied fever"), not what stood before."""
    length = _starts(words, index, _AFTER)
    follows = index + length < len(words)
    return follows and words[index] in {"denied", "absent", "negative", "ruled"}


def _starts(words: list[str], index: int, phrases: frozenset[tuple[str, ...]]) -> int:
    """Length of the longest phrase that starts at ``index``, 0 if none does."""
    if words[index] not in _FIRST_WORDS:
        return 0
    for length in range(min(_LONGEST, len(words) - index), 0, -1):
        if tuple(words[index : index + length]) in phrases:
            return length
    return 0


def _relatives(words: list[str]) -> tuple[bool, ...]:
    """Tokens that speak of a relative's own health, not of what a relative tells."""
    marks = [False] * len(words)
    speaks_of_family = False
    for index, word in enumerate(words):
        if word == "family" and words[index + 1 : index + 2] == ["history"]:
            speaks_of_family = True
        elif word in _RELATIVES:
            ahead = words[index + 1 : index + 1 + _RELATIVE_REACH + 1]
            speaks_of_family = bool(_HAS_IT.intersection(ahead)) and not (
                _TELLS_IT.intersection(ahead)
            )
        elif word in _PATIENT and words[index - 1 : index] != ["of"]:
            speaks_of_family = False
        marks[index] = speaks_of_family
    return tuple(marks)


_TOKEN = re.compile(r"\w+(?:['\u2019]s\b)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[;\n]")
_NEXT_LETTER = re.compile(r"[^\S\n]*([^\W\d_])")
_LEADS_ON = word_set(
    """a an and any as at by for from her his in no nor not of on or the their
    to with without denied denies deny denying has have had is are was were"""
)
_WRAPPED_CHARACTERS = 60  # a line that is wrapped is long, an item of a list is not
_SKIPPED = frozenset(
    ("a", "an", "the", "his", "her", "their", "my", "of", "in", "on", "at", "to", "left", "right")
)
_NEVER_FIRST = frozenset(("and", "or", "with", "no", "not", "without"))
"""A wording that begins so is left out: it would swallow a negation or the end of a list."""
_MIN_CHARACTERS = 4
_END = ""  # no token is empty, so the key can't clash with one
_FAMILY_FIELD = "family_history"
_RANK = {"EXACT": 1, "NARROW": 3, "RELATED": 4}
_AMBIGUOUS = word_set(
    """all mass cold fall infection disease tumor cancer patient normal abnormal syndrome
    pain onset acute chronic mild severe moderate profound localized generalized diffuse
    focal central distal proximal bilateral unilateral recurrent progressive episodic triggered
    position quality character death stillbirth birth twin pregnancy allergy injury trauma
    refractory transient stable variable heterogeneous diet food water blood skin hair nail eye
    ear nose mouth tongue hand foot arm leg growth development weight height stature voice gait
    behavior mood sleep memory speech language vision hearing taste smell touch balance
    temperature pulse respiration urine stool breast bone joint muscle nerve brain heart lung
    liver kidney spleen bowel stomach bladder shift unresponsive"""
)


@dataclass(frozen=True, slots=True)
class Mention:
    """One finding in a text: ``text[start:end]`` names it, ``start < end``."""

    hpo_id: str
    start: int
    end: int
    negated: bool
    family: bool


class Recogniser:
    """Looks findings up in text; build one with ``load_recogniser``."""

    def __init__(self, phrases: Mapping[tuple[str, ...], str]) -> None:
        self._trie: dict[str, Any] = {}
        for words, hpo_id in phrases.items():
            node = self._trie
            for word in words:
                node = node.setdefault(word, {})
            node[_END] = hpo_id

    def mentions(self, text: str, *, family: bool = False) -> tuple[Mention, ...]:
        """Every finding named in ``text``, in order, never overlapping.

        ``family`` marks a text that speaks of relatives throughout. Any string is accepted.
        """
        return self.read(text, family=family)[0]

    def read(
        self, text: str, *, family: bool = False
    ) -> tuple[tuple[Mention, ...], tuple[tuple[int, int], ...]]:
        """The findings of ``text``, and the words that a denial covers as ``(start, end)``.

        Such words are the trigger and what follows it ("no fever": both words), and a finding that
        is denied behind it ("fever is absent").
        """
        found: list[Mention] = []
        denied: list[tuple[int, int]] = []
        for sentence in _sentences(text):
            matches = list(self._matches(sentence))
            context = context_of(sentence, family)
            found.extend(_mentions(sentence, matches, context))
            denied.extend(_denials(sentence, matches, context))
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


def _mentions(
    sentence: list[Token], matches: list[tuple[str, int, int]], context: Context
) -> Iterator[Mention]:
    for hpo_id, first, last in matches:
        start, end = sentence[first].start, sentence[last].end
        yield Mention(hpo_id, start, end, context.negated(first, last), context.family(first))


def _denials(
    sentence: list[Token], matches: list[tuple[str, int, int]], context: Context
) -> Iterator[tuple[int, int]]:
    for token, denied in zip(sentence, context.denied_ahead, strict=True):
        if denied:
            yield token.start, token.end
    for _, first, last in matches:
        if context.negated(first, last) and not context.denied_ahead[first]:
            yield sentence[first].start, sentence[last].end


def _sentences(text: str) -> Iterator[list[Token]]:
    """Non-empty token lists, one a sentence; each knows its place in the whole text."""
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
    """Where sentences end: a line ends one unless it is only wrapped.

    A wrapped line goes on in lower case, and ends in a comma, in a word that leads on, or far to
    the right. So a list with one finding a line stays a list: "no fever", "cough".
    """
    line_start = 0
    for match in _SENTENCE_END.finditer(text):
        if match[0] == "\n":
            line = text[line_start : match.start()].rstrip()
            line_start = match.end()
            after = _NEXT_LETTER.match(text, line_start)
            if after and after[1].islower() and _leads_on(line):
                continue
        yield match.start()


def _leads_on(line: str) -> bool:
    last = line.rsplit(None, 1)[-1].lower() if line else ""
    return (
        last.endswith(",")
        or not _LEADS_ON.isdisjoint(name_words(last))
        or len(line) >= _WRAPPED_CHARACTERS
    )


@lru_cache(maxsize=1)
def load_recogniser() -> Recogniser:
    """The recogniser over the installed HPO and the packaged everyday wordings."""
    return Recogniser(_phrases_recognise(load_ontology()))


def _phrases_recognise(ontology: Ontology) -> dict[tuple[str, ...], str]:
    """Normalised wording to id; the better sort of wording wins, then the lower id.

    BROAD synonyms are left out: they name more than the finding.
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
    """What patients say, with the HPO id it means; HPO's own lay synonyms lack these."""
    text = files("rarealert.knowledge").joinpath("everyday_wordings.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple((wording, hpo_id) for wording, hpo_id, _ in rows)


def findings_of(visit: str | Mapping[str, str | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """HPO ids present and excluded in a text, or in the text fields of a visit by name.

    Each is in order of first mention; a term both affirmed and denied counts as present, and
    relatives' findings as neither.
    """
    fields = {"text": visit} if isinstance(visit, str) else visit
    recogniser = load_recogniser()
    present: dict[str, None] = {}
    excluded: dict[str, None] = {}
    for name, text in fields.items():
        for mention in recogniser.mentions(text or "", family=name == _FAMILY_FIELD):
            if not mention.family:
                (excluded if mention.negated else present)[mention.hpo_id] = None
    return tuple(present), tuple(term for term in excluded if term not in present)
