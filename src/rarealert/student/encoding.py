r"""What a visit tells beside its words: the patient's present findings, and where they stand.

One text format for training and inference: instruction, visit, risk position, rationale.

A plain prompt is ``<instruction><visit>\nAssessment:``; its last token is the risk position, and
what follows it is the rationale. A chat asks, by the base model's own template, for the diagnosis
and whether it is rare; the risk position is where the answer would name it. All but the visit is
the same for every case.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import Mention, load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.reading import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Finding(NamedTuple):
    """A present finding: its first token's place in the prompt, and the HPO terms that it brings.

    ``terms`` are the finding's own and all that it implies, as numbers (1250 for HP:0001250), in
    ascending order.
    """

    position: int
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """``findings`` in order of mention, each term's own once; age and sex, None where not told.

    ``first`` is the place of the visit's first token in a prompt of ``length`` tokens.
    """

    findings: tuple[Finding, ...] = ()
    age_years: float | None = None
    sex: str | None = None
    first: int = 0
    length: int = 0

    def brought(self) -> Iterator[tuple[int, int]]:
        """Place and number of every term that is brought, at the first finding that brings it."""
        seen: set[int] = set()
        for finding in self.findings:
            for number in finding.terms:
                if number not in seen:
                    yield finding.position, number
            seen.update(finding.terms)


ENCODING_VERSION = "5"
"""Part of every packaged student: raise it with any change of the format."""

INSTRUCTION = "First visit; could it be a rare disease?\n"
SUFFIX = "\nAssessment:"

Style = Literal["plain", "chat"]
"""How a visit is put to the base model."""

Readout = Literal["mean", "last"]
"""What is read of its states: their mean over the prompt, or that of the risk position."""

_QUESTION = (
    "A patient's first visit:\n",
    "\nName the diagnosis, then say whether it is rare or common.",
)
_ANSWER = "Diagnosis:"

DROP_ORDER = ("social_history", "vitals", "family_history", "past_medical_history")
"""Fields left out of a visit that is too long, in this order and only as many as needed; what is
still too long then loses its last tokens, so the complaint is the last to go."""

_CACHED_TERMS = 4096


Unit = TypeVar("Unit")
"""A token, however told."""


class _Piece(NamedTuple):
    """A token of a text that spans its characters ``start`` to ``end``, the last not included."""

    token: int
    start: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """A tokenised visit. ``ids`` ends with the risk position; ``truncated`` says it was cut.

    ``text`` is the visit as rendered, which the tokens between instruction and suffix spell, and
    ``denied`` are the positions of ``ids`` that a denial in it covers ("no fever"), in order.
    ``facts`` are the patient's present findings, and who the patient is.
    """

    case_id: str
    ids: tuple[int, ...]
    truncated: bool
    text: str
    denied: tuple[int, ...] = ()
    facts: Facts = field(default_factory=Facts)


def _chat_frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """What stands before a visit and after it where the model's chat template asks about it."""
    if not tokenizer.chat_template:
        raise BadInputError(
            "distil.prompt is chat, but the base model's tokenizer has no chat template; set "
            "distil.prompt to plain in params.yaml."
        )
    place = "<visit>"
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": place.join(_QUESTION)}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # for templates that know of it; others ignore it
    )
    before, after = str(said).split(place)
    return before, after + _ANSWER


class Encoder:
    """Turns cases into prompts of at most ``max_prompt_tokens`` tokens."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_prompt_tokens: int,
        style: Style = "plain",
    ) -> None:
        """Lay out the frame.

        Raises:
            BadInputError: a chat is asked for and the tokenizer has no template of one.
        """
        self._tokenizer = tokenizer
        before, after = (INSTRUCTION, SUFFIX) if style == "plain" else _chat_frame(tokenizer)
        self._head = self.tokens(before)
        self._tail = self.tokens(after)
        self._room = max(1, max_prompt_tokens - len(self._head) - len(self._tail))

    def tokens(self, text: str) -> list[int]:
        """Token ids of ``text`` without special tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt(self, case: Case) -> Prompt:
        """The prompt of one case, cut in the order that ``DROP_ORDER`` states."""
        pieces, truncated, text = fitted(case, self._pieces, self._room)
        mentions, denials = load_recogniser().read(text)
        ids = (*self._head, *(piece.token for piece in pieces), *self._tail)
        findings = tuple(self._findings(mentions, pieces))
        return Prompt(
            case_id=case.case_id,
            ids=ids,
            truncated=truncated,
            text=text,
            denied=self._denied(denials, pieces),
            facts=Facts(findings, case.age_years, case.sex, self.frame[0], len(ids)),
        )

    def _pieces(self, text: str) -> list[_Piece]:
        # a visit that spells a control token is text all the same
        said = self._tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
        )
        pairs = zip(said["input_ids"], said["offset_mapping"], strict=True)
        return [_Piece(token, start, end) for token, (start, end) in pairs]

    def _findings(self, mentions: Sequence[Mention], pieces: Sequence[_Piece]) -> Iterator[Finding]:
        ends = [piece.end for piece in pieces]
        named: set[str] = set()
        for mention in mentions:
            place = bisect_right(ends, mention.start)
            if mention.negated or mention.family or place == len(ends) or mention.hpo_id in named:
                continue
            named.add(mention.hpo_id)
            yield Finding(self.frame[0] + place, _numbers(mention.hpo_id))

    def _denied(
        self, denials: Sequence[tuple[int, int]], pieces: Sequence[_Piece]
    ) -> tuple[int, ...]:
        starts = [start for start, _ in denials]
        first = self.frame[0]
        found = []
        for place, piece in enumerate(pieces):
            # the last denial that begins before the token ends
            last = bisect_left(starts, piece.end) - 1
            if last >= 0 and piece.start < denials[last][1]:
                found.append(first + place)
        return tuple(found)

    @property
    def frame(self) -> tuple[int, int]:
        """How many tokens of a prompt stand before the visit, and how many after it."""
        return len(self._head), len(self._tail)

    def offsets(self, prompt: Prompt) -> list[tuple[int, int]]:
        """First character and the one behind the last, in ``prompt.text``, of each visit token."""
        count = len(prompt.ids) - sum(self.frame)
        return [(piece.start, piece.end) for piece in self._pieces(prompt.text)[:count]]

    def rationale(self, text: str, max_tokens: int) -> tuple[int, ...]:
        """Token ids of a rationale and its end mark, at most ``max_tokens`` in all."""
        end = self._tokenizer.eos_token_id
        return (*self.tokens(" " + text)[: max_tokens - 1], end)

    def decode(self, ids: list[int]) -> str:
        """The text of generated ``ids`` without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()


@lru_cache(maxsize=_CACHED_TERMS)
def _numbers(hpo_id: str) -> tuple[int, ...]:
    above = load_ontology().ancestors(hpo_id)
    return tuple(sorted(int(name.removeprefix("HP:")) for name in above))


def fitted(
    case: Case, tokens: Callable[[str], list[Unit]], room: int
) -> tuple[tuple[Unit, ...], bool, str]:
    """At most ``room`` tokens of the rendered visit, whether it was cut, and its text."""
    body: list[Unit] = []
    text = ""
    truncated = False
    for shortened in _shortenings(case):
        text = render(shortened)
        body = tokens(text)
        if len(body) <= room:
            break
        truncated = True
    return tuple(body[:room]), truncated, text


def _shortenings(case: Case) -> Iterator[Case]:
    yield case
    for name in DROP_ORDER:
        others = any(getattr(case, field) for field in TEXT_FIELDS if field != name)
        if getattr(case, name) is not None and others:
            case = case.model_copy(update={name: None})
            yield case
