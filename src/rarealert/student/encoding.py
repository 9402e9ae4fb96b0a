r"""From a reading to the tokens that the student reads, one format for training and inference.

A plain prompt is ``<instruction><visit>\nAssessment:``. A chat prompt is the base model's own
template around a question for the diagnosis. The last token of either is the risk position; the
rationale follows it. The frame around the visit is the same for every visit.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.visits.reading import Reading, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENCODING_VERSION = "7"
"""Part of every packaged student: raise it with any change of the format."""

INSTRUCTION = "First visit; could it be a rare disease?\n"
SUFFIX = "\nAssessment:"

Style = Literal["plain", "chat"]
"""How a visit is put to the base model."""

Readout = Literal["mean", "last"]
"""Which states the risk is read from: the prompt's mean, or the risk position alone."""

DROP_ORDER = ("social_history", "vitals", "family_history", "past_medical_history")
"""Fields left out of a visit that is too long, in this order and only as many as needed. What is
still too long loses its last tokens, so the complaint is the last to go."""

_QUESTION = (
    "A patient's first visit:\n",
    "\nName the diagnosis, then say whether it is rare or common.",
)
_ANSWER = "Diagnosis:"
_CACHED_TERMS = 4096

Token = TypeVar("Token")


class EncodedFinding(NamedTuple):
    """A present finding of the patient, in tokens.

    ``position`` is that of its first token in the prompt. ``terms`` are the numbers of its HPO term
    and of all terms that it implies (1250 for HP:0001250), ascending.
    """

    position: int
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What knowledge is looked up by: the patient's present findings, age and sex.

    ``findings`` are in order of mention, each HPO term once. ``first`` is the position of the
    visit's first token in a prompt of ``length`` tokens.
    """

    findings: tuple[EncodedFinding, ...] = ()
    age_years: float | None = None
    sex: str | None = None
    first: int = 0
    length: int = 0

    def implied(self) -> Iterator[tuple[int, int]]:
        """Position and number of every implied term, once, at the first finding that implies it."""
        seen: set[int] = set()
        for finding in self.findings:
            for number in finding.terms:
                if number not in seen:
                    yield finding.position, number
            seen.update(finding.terms)


@dataclass(frozen=True)
class PromptTokens:
    """The network's input: token ``ids``, of which the last is the risk position.

    ``denied`` are the positions that a denial covers ("no fever"), ascending.
    """

    ids: tuple[int, ...]
    denied: tuple[int, ...] = ()
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Prompt:
    """A tokenised visit.

    ``reading`` is the visit without the fields that were left out, and ``spans`` are the characters
    of its text that each visit token covers. ``truncated`` marks a visit that was cut.
    """

    tokens: PromptTokens
    reading: Reading
    spans: tuple[Span, ...]
    truncated: bool


class Encoder:
    """Turns readings into prompts of at most ``max_prompt_tokens`` tokens."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_prompt_tokens: int,
        style: Style = "plain",
    ) -> None:
        """Tokenise the frame.

        Raises:
            BadInputError: the style is chat and the tokenizer has no chat template.
        """
        self._tokenizer = tokenizer
        before, after = (INSTRUCTION, SUFFIX) if style == "plain" else _chat_frame(tokenizer)
        self._head = self.tokens(before)
        self._tail = self.tokens(after)
        self._room = max(1, max_prompt_tokens - len(self._head) - len(self._tail))

    @property
    def frame(self) -> tuple[int, int]:
        """How many tokens of a prompt precede the visit, and how many follow it."""
        return len(self._head), len(self._tail)

    def tokens(self, text: str) -> list[int]:
        """Token ids of ``text`` without special tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt(self, reading: Reading) -> Prompt:
        """The prompt of one visit, shortened in ``DROP_ORDER`` if it is too long."""
        read, body, truncated = shorten(reading, self._tokens_with_spans, self._room)
        ids = (*self._head, *(token for token, _ in body), *self._tail)
        spans = tuple(span for _, span in body)
        case, findings = reading.case, tuple(self._findings(read, spans))
        facts = Facts(findings, case.age_years, case.sex, len(self._head), len(ids))
        tokens = PromptTokens(ids, self._denied(read.denials, spans), facts)
        return Prompt(tokens, read, spans, truncated)

    def rationale(self, text: str, max_tokens: int) -> tuple[int, ...]:
        """Token ids of a rationale and its end mark, at most ``max_tokens`` in all."""
        end = self._tokenizer.eos_token_id
        return (*self.tokens(" " + text)[: max_tokens - 1], end)

    def decode(self, ids: list[int]) -> str:
        """The text of generated ``ids`` without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _tokens_with_spans(self, text: str) -> list[tuple[int, Span]]:
        encoded = self._tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,  # a visit that spells a control token is text all the same
        )
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [(token, Span(*span)) for token, span in pairs]

    def _findings(self, read: Reading, spans: Sequence[Span]) -> Iterator[EncodedFinding]:
        ends = [span.end for span in spans]
        found: set[str] = set()
        for finding in read.findings:
            present = (finding.state, finding.holder) == ("present", "patient")
            token = bisect_right(ends, finding.place.start)
            if not present or token == len(ends) or finding.hpo_id in found:
                continue
            found.add(finding.hpo_id)
            yield EncodedFinding(len(self._head) + token, _implied_numbers(finding.hpo_id))

    def _denied(self, denials: Sequence[Span], spans: Sequence[Span]) -> tuple[int, ...]:
        starts = [denial.start for denial in denials]
        positions = []
        for token, span in enumerate(spans):
            last = bisect_left(starts, span.end) - 1  # the last denial that begins before its end
            if last >= 0 and span.start < denials[last].end:
                positions.append(len(self._head) + token)
        return tuple(positions)


def shorten(
    reading: Reading, tokens: Callable[[str], list[Token]], room: int
) -> tuple[Reading, tuple[Token, ...], bool]:
    """Leave out fields of ``reading`` in ``DROP_ORDER`` until its text has at most ``room`` tokens.

    Returns the reading without these fields, the ``tokens`` of its text (the first ``room`` of
    them where the rest is still too long), and whether anything was left out.
    """
    left_out: list[str] = []
    read, body = reading, tokens(reading.text)
    for name in DROP_ORDER:
        if len(body) <= room:
            break
        others = read.lines.keys() - {"patient", name}
        if name in read.lines and others:
            left_out.append(name)
            read = reading.without(left_out)
            body = tokens(read.text)
    return read, tuple(body[:room]), bool(left_out) or len(body) > room


def _chat_frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """The text before and after a visit that the model's chat template puts in a question."""
    if not tokenizer.chat_template:
        raise BadInputError(
            "distil.prompt is chat, but the base model's tokenizer has no chat template; set "
            "distil.prompt to plain in params.yaml."
        )
    marker = "<visit>"
    framed = tokenizer.apply_chat_template(
        [{"role": "user", "content": marker.join(_QUESTION)}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # of some templates; others ignore it
    )
    before, after = str(framed).split(marker)
    return before, after + _ANSWER


@lru_cache(maxsize=_CACHED_TERMS)
def _implied_numbers(hpo_id: str) -> tuple[int, ...]:
    terms = load_ontology().ancestors(hpo_id)
    return tuple(sorted(int(term.removeprefix("HP:")) for term in terms))
