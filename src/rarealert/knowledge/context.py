"""Whose finding a sentence speaks of, and whether it is there: NegEx's triggers and scopes.

Triggers, pseudo-triggers and terminations are a subset of the lists in Chapman et al. 2001
(J Biomed Inform 34:301) and of ConText (Harkema et al. 2009, J Biomed Inform 42:839).
"""

from dataclasses import dataclass

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
