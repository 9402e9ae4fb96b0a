"""The reading of a visit: its text, and the findings in it with state, holder and place.

A visit is read once, by ``read_visit``; reasoners, ensemble, student, evidence, rationale, notes,
questions and drift are given the ``Reading`` and never search the text again.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from rarealert.knowledge.context import Holder, State
from rarealert.knowledge.recognise import load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case

RENDERER_VERSION = "1"
"""Part of every cache key and of the packaged student: raise it with any change of the text."""

_MONTHS_A_YEAR = 12


class Span(NamedTuple):
    """The characters ``start`` to ``end`` of a text, ``end`` not included."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One mention of a finding.

    ``span`` are its characters in the field as recorded, ``place`` those in ``Reading.text``.
    """

    hpo_id: str
    state: State
    holder: Holder
    field: str
    span: Span
    place: Span


@dataclass(frozen=True)
class Reading:
    """What a visit contains.

    ``text`` is the rendered visit, one labelled line a field; absent fields have no line.
    ``lines`` gives the place of each field's line in it. Findings are recognised when they are
    first used: a reader that needs the text alone does not wait for them.
    """

    case: Case
    text: str
    lines: Mapping[str, Span]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The mentions of findings in order; they never overlap."""
        return self._recognised[0]

    @property
    def denials(self) -> tuple[Span, ...]:
        """The words of ``text`` that a denial covers ("no fever")."""
        return self._recognised[1]

    @cached_property
    def _recognised(self) -> tuple[tuple[Finding, ...], tuple[Span, ...]]:
        return _recognise(self.case, self.lines)

    @cached_property
    def affirmed(self) -> tuple[str, ...]:
        """HPO ids that the text affirms of the patient, by first mention."""
        return self._ids("present", "patient")

    @cached_property
    def denied(self) -> tuple[str, ...]:
        """HPO ids that the text denies of the patient, by first mention."""
        return self._ids("excluded", "patient")

    @cached_property
    def relatives(self) -> tuple[str, ...]:
        """HPO ids that the text affirms of relatives, by first mention."""
        return self._ids("present", "relative")

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The patient's findings: those affirmed in the text, then those that are only coded."""
        return tuple(dict.fromkeys((*self.affirmed, *(self.case.findings_present or ()))))

    @cached_property
    def excluded(self) -> tuple[str, ...]:
        """Findings denied in the text or coded as absent; what is also present is left out."""
        both = dict.fromkeys((*self.denied, *(self.case.findings_excluded or ())))
        return tuple(item for item in both if item not in self.present)

    def words(self, finding: Finding) -> str:
        """How the visit words ``finding``, as recorded."""
        text: str = getattr(self.case, finding.field)
        return text[finding.span.start : finding.span.end]

    def without(self, fields: Collection[str]) -> "Reading":
        """The reading of the same visit without the lines of ``fields``; nothing is read again."""
        kept = [name for name in self.lines if name not in fields]
        texts = [self.text[slice(*self.lines[name])] for name in kept]
        lines = dict(zip(kept, _stacked(texts), strict=True))
        moves = {name: lines[name].start - self.lines[name].start for name in kept}
        findings = tuple(
            Finding(
                item.hpo_id,
                item.state,
                item.holder,
                item.field,
                item.span,
                _moved(item.place, moves[item.field]),
            )
            for item in self.findings
            if item.field in moves
        )
        denials = tuple(
            _moved(span, moves[name])
            for span in self.denials
            for name in kept
            if self.lines[name].start <= span.start < self.lines[name].end
        )
        case = self.case.model_copy(update=dict.fromkeys(fields))
        reading = Reading(case, "\n".join(texts), lines)
        reading.__dict__["_recognised"] = findings, denials
        return reading

    def _ids(self, state: State, holder: Holder) -> tuple[str, ...]:
        found = (x.hpo_id for x in self.findings if (x.state, x.holder) == (state, holder))
        return tuple(dict.fromkeys(found))


def read_visit(case: Case) -> Reading:
    """Read ``case``: render it, and recognise its findings once they are used."""
    texts = dict(_lines(case))
    lines = dict(zip(texts, _stacked(list(texts.values())), strict=True))
    return Reading(case, "\n".join(texts.values()), lines)


def _recognise(
    case: Case, lines: Mapping[str, Span]
) -> tuple[tuple[Finding, ...], tuple[Span, ...]]:
    """Findings and denials, each field by itself.

    Everything in ``Family history`` is about relatives; elsewhere the sentence decides.
    """
    findings: list[Finding] = []
    denials: list[Span] = []
    for name in TEXT_FIELDS:
        recorded = getattr(case, name)
        if recorded is None:
            continue
        mentions, denied = load_recogniser().read(recorded, family=name == "family_history")
        if not mentions and not denied:
            continue
        begins = lines[name].start + len(_heading(name))
        places = [begins + at for at in _collapsed(recorded)]
        findings += [
            Finding(
                mention.hpo_id,
                mention.state,
                mention.holder,
                name,
                Span(mention.start, mention.end),
                _place(places, mention.start, mention.end),
            )
            for mention in mentions
        ]
        denials.extend(_place(places, start, end) for start, end in denied)
    return tuple(findings), tuple(denials)


def render(case: Case) -> str:
    """The visit as plain text, one labelled line a field; absent fields have no line.

    Coded findings are left out: a source that codes them has them in its text as well, and a model
    must not recognise a source by its coding.
    """
    return "\n".join(text for _, text in _lines(case))


def _lines(case: Case) -> Iterator[tuple[str, str]]:
    """Name and line of the patient and of each field, without line breaks."""
    if person := _person(case):
        yield "patient", f"Patient: {person}"
    for name in TEXT_FIELDS:
        text = getattr(case, name)
        if text is not None:
            yield name, _heading(name) + " ".join(text.split())


def _heading(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}: "


def _stacked(texts: list[str]) -> Iterator[Span]:
    """The place of each of ``texts`` when they are joined by line breaks."""
    start = 0
    for text in texts:
        yield Span(start, start + len(text))
        start += len(text) + 1


def _collapsed(text: str) -> list[int]:
    """Index of each character of ``text`` in ``" ".join(text.split())``."""
    places, at, pending = [], 0, False
    for character in text:
        if character.isspace():
            pending = at > 0
            places.append(at)
            continue
        at += pending
        pending = False
        places.append(at)
        at += 1
    return places


def _place(places: list[int], start: int, end: int) -> Span:
    return Span(places[start], places[end - 1] + 1)


def _moved(span: Span, by: int) -> Span:
    return Span(span.start + by, span.end + by)


def _person(case: Case) -> str:
    parts = [] if case.age_years is None else [_age(case.age_years)]
    return ", ".join(parts + ([case.sex] if case.sex else []))


def _age(years: float) -> str:
    if years < 2:  # below two years, age in months is what a clinician writes
        return f"{int(years * _MONTHS_A_YEAR)} months"
    return f"{int(years)} years"
