"""State and holder of each finding in a sentence: present, excluded, uncertain or past; whose.

After NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and ConText (Harkema et al. 2009, J
Biomed Inform 42:839): triggers before and behind a finding, pseudo-triggers and terminations, from
``word_lists.tsv``. Words that belong to a finding's name ("absent speech") are never triggers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rarealert.knowledge.names import name_words, word_list
from rarealert.knowledge.sentence_tokens import Token

State = Literal["present", "excluded", "uncertain", "past"]
"""What the text states of a finding; uncertain and past ones count neither for nor against."""

Holder = Literal["patient", "relative"]
"""Whose finding it is."""

_SHORT_CLAUSE = 5  # tokens of a clause that may be about the clause before it (", none since")
_BEHIND_REACH = 7  # tokens from a finding to a trigger behind it
_RELATIVE_REACH = 3  # tokens between the relative and the verb that gives them the finding
_IN_RELATIVE_REACH = 4  # tokens from "in" to the relative ("in two maternal cousins")

_FORWARD: tuple[tuple[str, State], ...] = (
    ("negation", "excluded"),
    ("verb_negation", "excluded"),
    ("short_negation", "excluded"),
    ("uncertain", "uncertain"),
    ("past", "past"),
)
_BEHIND: tuple[tuple[str, State], ...] = (
    ("negation_behind", "excluded"),
    ("uncertain_behind", "uncertain"),
    ("past_behind", "past"),
)


def _phrases(*names: str) -> dict[tuple[str, ...], str]:
    return {name_words(entry): name for name in names for entry in word_list(name)}


_PSEUDO = _phrases("pseudo_negation")
_BEFORE = _phrases(*(name for name, _ in _FORWARD))
_AFTER = _phrases(*(name for name, _ in _BEHIND))
_STOP = _phrases("end_of_negation", "verb_end")
_STATES: dict[str, State] = dict((*_FORWARD, *_BEHIND))
_PREDICATES = word_list("predicate")
_NEW_CLAUSE = word_list("new_clause")
_RELATIVES = word_list("relative")
_HAS_IT = word_list("has_finding")
_REPORTS_IT = word_list("reports_finding")
_PATIENT = word_list("patient")
_FAMILY = _phrases("family_heading")
_IN_FAMILY = _phrases("in_family")
_LENGTHS: dict[str, int] = {}
"""First word of a phrase to the words of the longest phrase that begins with it."""
for _phrase in (*_PSEUDO, *_BEFORE, *_AFTER, *_STOP, *_FAMILY, *_IN_FAMILY):
    _LENGTHS[_phrase[0]] = max(_LENGTHS.get(_phrase[0], 0), len(_phrase))
_ADVERBS = frozenset(("also", "always", "been", "first", "never", "not", "only", "since"))


@dataclass(frozen=True, slots=True)
class Heading:
    """What a line such as "Denies:" gives to the lines of the list under it."""

    state: State = "present"
    holder: Holder = "patient"


@dataclass(frozen=True, slots=True)
class Context:
    """State and holder of each finding of a sentence, and which of its tokens are denied."""

    states: tuple[State, ...]
    holders: tuple[Holder, ...]
    denied: tuple[bool, ...]


@dataclass(slots=True)
class _Scope:
    """A trigger whose scope is open: its list, and whether a finding has followed it."""

    name: str
    begins: int
    filled: bool = False


class _ClauseReader:
    """One sentence: its words, where findings are, and the clause of each token."""

    def __init__(self, sentence: Sequence[Token], spans: Sequence[tuple[int, int]]) -> None:
        self.tokens = sentence
        self.words = [token.word for token in sentence]
        self.spans = spans
        self.named = [False] * len(sentence)
        self.inside = [False] * len(sentence)
        """Tokens that continue a finding's name."""
        for first, last in spans:
            self.named[first : last + 1] = [True] * (last + 1 - first)
            self.inside[first + 1 : last + 1] = [True] * (last - first)
        self.clauses = list(self._clauses())

    def _clauses(self) -> Iterator[int]:
        clause = 0
        for index, token in enumerate(self.tokens):
            breaks = token.after_comma or token.after_bracket or token.after_dash
            if index and not self.named[index] and token.word in _NEW_CLAUSE:
                breaks = True
            clause += bool(index) and breaks and not self.inside[index]
            yield clause

    def length(self, index: int, phrases: dict[tuple[str, ...], str]) -> int:
        """Words of the longest of ``phrases`` that starts at ``index``, 0 if none does."""
        longest = _LENGTHS.get(self.words[index])
        if longest is None:
            return 0
        for length in range(min(longest, len(self.words) - index), 0, -1):
            if tuple(self.words[index : index + length]) in phrases and not any(
                self.named[index : index + length]
            ):
                return length
        return 0

    def within(self, clause: int) -> list[int]:
        """The findings, by number, in a clause."""
        return [
            number for number, (first, _) in enumerate(self.spans) if self.clauses[first] == clause
        ]

    def tail(self, index: int) -> range:
        """Tokens from ``index`` to the end of their clause."""
        end = index
        while end < len(self.words) and self.clauses[end] == self.clauses[index]:
            end += 1
        return range(index, end)

    def relatives(self) -> list[bool]:
        """Tokens about a relative's own health, not about what a relative reports."""
        marks, about = [False] * len(self.words), False
        for index, word in enumerate(self.words):
            if self.length(index, _FAMILY):
                about = True
            elif word in _RELATIVES:
                about = self._has_it(index)
            elif word in _PATIENT and self.words[index - 1 : index] != ["of"]:
                about = False
            marks[index] = about
            if self.length(index, _IN_FAMILY) or self._names_relative(index):
                for number in self._left_of(index):
                    first, last = self.spans[number]
                    marks[first : last + 1] = [True] * (last + 1 - first)
        return marks

    def _left_of(self, index: int) -> list[int]:
        """The findings before ``index`` in its clause, in the clause before if it has none."""
        clause = self.clauses[index]
        left = [number for number in self.within(clause) if self.spans[number][1] < index]
        opens = self.tokens[index].after_bracket and not left
        return self.within(clause - 1) if opens else left

    def _names_relative(self, index: int) -> bool:
        """Whether "in", "affecting" or a bracket at ``index`` names a relative: "(sister)"."""
        token = self.tokens[index]
        if token.word in ("in", "affecting"):
            ahead = self.words[index + 1 : index + 1 + _IN_RELATIVE_REACH]
            before = ahead[: next((at for at, w in enumerate(ahead) if w in _PATIENT), None)]
            return not _RELATIVES.isdisjoint(before)
        return "(" in token.gap and token.word in _RELATIVES

    def _has_it(self, index: int) -> bool:
        """Whether the relative at ``index`` has what follows, rather than reports it."""
        if self.words[max(0, index - 1) : index] in (["old"], ["yo"]):
            return False  # "a 34-year-old mother of two": the patient
        following = self.tokens[index + 1 : index + 2]
        if following and ":" in following[0].gap:
            return True
        ahead = self.words[index + 1 : index + 2 + _RELATIVE_REACH]
        for at, word in enumerate(ahead):
            if word in _REPORTS_IT:
                return False
            if word in _HAS_IT:
                rest = [item for item in ahead[at + 1 :] if item not in _ADVERBS]
                return not rest or rest[0] not in _REPORTS_IT
        return False


def context_of(
    sentence: Sequence[Token], spans: Sequence[tuple[int, int]], heading: Heading
) -> Context:
    """State and holder of the findings at ``spans`` (first and last token) of ``sentence``."""
    reader = _ClauseReader(sentence, spans)
    ahead = _ahead(reader)
    states: list[State] = [ahead[first] or heading.state for first, _ in spans]
    denied = [state == "excluded" for state in ahead]
    for number, state, trigger in _behind(reader):
        states[number] = state
        for index in trigger:
            denied[index] = state == "excluded"
    relatives = reader.relatives()
    holders: list[Holder] = [
        "relative" if relatives[first] or heading.holder == "relative" else "patient"
        for first, _ in spans
    ]
    for (first, last), state in zip(spans, states, strict=True):
        denied[first : last + 1] = [state == "excluded"] * (last + 1 - first)
    return Context(tuple(states), tuple(holders), tuple(denied))


def heading_of(sentence: Sequence[Token]) -> Heading:
    """What a line that is a heading ("Denies:") gives to its list."""
    reader = _ClauseReader(sentence, ())
    if any(reader.length(index, _FAMILY) for index in range(len(sentence))):
        return Heading(holder="relative")
    if sentence[0].word in _RELATIVES:
        return Heading(holder="relative")
    name = _name(reader, 0, _BEFORE) or _name(reader, 0, _AFTER)
    return Heading(_STATES[name]) if name else Heading()


def _name(reader: _ClauseReader, index: int, phrases: dict[tuple[str, ...], str]) -> str | None:
    length = reader.length(index, phrases)
    return phrases[tuple(reader.words[index : index + length])] if length else None


def _ahead(reader: _ClauseReader) -> list[State | None]:
    """The state that triggers before it give each token."""
    states: list[State | None] = [None] * len(reader.words)
    scope: _Scope | None = None
    outer: list[_Scope | None] = []
    index = 0
    while index < len(reader.words):
        if index:
            scope = _after_gap(reader, index, _after_brackets(reader, index, scope, outer))
        step = 1
        if reader.named[index]:
            if scope:
                scope.filled = True
        elif length := reader.length(index, _PSEUDO):
            step, scope = length, None
        elif (length := reader.length(index, _BEFORE)) and _opens(reader, index, length):
            step = length
            scope = _Scope(str(_name(reader, index, _BEFORE)), index + length)
        elif length := reader.length(index, _STOP):
            step = length
            if not _is_auxiliary(reader, index, scope):
                scope = None
        states[index : index + step] = [_STATES[scope.name] if scope else None] * step
        index += step
    return states


def _after_brackets(
    reader: _ClauseReader, index: int, scope: _Scope | None, outer: list[_Scope | None]
) -> _Scope | None:
    """The scope after the brackets before token ``index``; ``outer`` holds those around it."""
    for sign in reader.tokens[index].gap:
        if sign in "([":
            outer.append(scope)
            scope = None
        elif sign in ")]" and outer:
            scope = outer.pop()
    return scope


def _opens(reader: _ClauseReader, index: int, length: int) -> bool:
    """Whether the trigger governs what follows it, not only what precedes it ("fever: no,")."""
    rest = reader.tail(index + length) if index + length < len(reader.words) else range(0)
    same = bool(rest) and reader.clauses[rest[0]] == reader.clauses[index]
    if same and any(reader.named[at] for at in rest):
        return True
    left = any(reader.spans[n][1] < index for n in reader.within(reader.clauses[index]))
    alone = not same and index and reader.clauses[index] != reader.clauses[index - 1]
    return not left and not (alone and reader.clauses[index])


def _after_gap(reader: _ClauseReader, index: int, scope: _Scope | None) -> _Scope | None:
    """The scope after the signs before token ``index``."""
    token = reader.tokens[index]
    if scope is None or index == scope.begins:
        return scope
    if ":" in token.gap or token.after_dash:
        return None
    if not token.after_comma or reader.inside[index]:
        return scope
    tail = reader.tail(index)
    if any(reader.words[at] in _PREDICATES for at in tail if not reader.named[at]):
        return None
    if scope.name == "negation":
        return scope
    if scope.name == "verb_negation":
        return scope if scope.filled else None
    return scope if _has_or(reader, index) else None


def _has_or(reader: _ClauseReader, index: int) -> bool:
    """Whether "or" follows before the next end of a scope."""
    for at in range(index, len(reader.words)):
        if reader.words[at] in ("or", "nor"):
            return True
        if reader.length(at, _STOP):
            return False
    return False


def _is_auxiliary(reader: _ClauseReader, index: int, scope: _Scope | None) -> bool:
    """Whether a verb belongs to the trigger ("has not had any fever") and doesn't end its scope."""
    if scope is None or scope.filled or _name(reader, index, _STOP) != "verb_end":
        return False
    between = range(scope.begins, index)
    return all(
        reader.clauses[at] == reader.clauses[index] and reader.words[at] != "and" for at in between
    )


def _behind(reader: _ClauseReader) -> Iterator[tuple[int, State, range]]:
    """Number and state of each finding with a trigger behind it, and the trigger's tokens."""
    index = 0
    while index < len(reader.words):
        if length := reader.length(index, _PSEUDO):
            index += length
            continue
        name = _name(reader, index, _AFTER)
        if name is None:
            index += 1
            continue
        length = reader.length(index, _AFTER)
        shared = reader.length(index, _BEFORE)
        if not (shared and _opens(reader, index, shared)):
            for number in _targets(reader, index, length):
                yield number, _STATES[name], range(index, index + length)
        index += length


def _targets(reader: _ClauseReader, index: int, length: int) -> list[int]:
    """The findings that a trigger behind them is about."""
    clause = reader.clauses[index]
    left = [number for number in reader.within(clause) if reader.spans[number][1] < index]
    lead = reader.words[max(0, index - 2) : index + 1]
    together = bool({"all", "both", "are", "were", "have"}.intersection(lead))
    if not left:
        size = len([each for each in reader.clauses if each == clause])
        if size > _SHORT_CLAUSE + length or reader.within(clause):
            return []
        if clause == 0:
            return []
        left, clause = reader.within(clause - 1), clause - 1
        if not left:
            return []
    elif index - reader.spans[left[-1]][1] > _BEHIND_REACH:
        return []
    if not together and {"is", "was", "has"}.intersection(lead):
        return left[-1:]
    first = reader.spans[left[0]][0]
    joined = first > 0 and reader.words[first - 1] in ("and", "or")
    while (together or joined) and clause > 0 and reader.within(clause - 1):
        clause -= 1
        if any(
            reader.words[at] in _PREDICATES for at, c in enumerate(reader.clauses) if c == clause
        ):
            break
        left = reader.within(clause) + left
    return left
