"""The answer to a screened visit, and the one place that gives it.

File, service, page, CDS Hooks, MLflow and Ray all call ``Screener.answer``, so flags, notes, the
restated risk and the rules for rationales are the same everywhere. An ``Answer`` stays data until
a writer turns it into a row or into JSON.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from rarealert.calibration.bands import Band
from rarealert.calibration.prevalence import shift_prevalence
from rarealert.errors import BadInputError
from rarealert.knowledge.english import is_english
from rarealert.knowledge.hpo import load_ontology
from rarealert.student.evidence import Evidence, find_evidence
from rarealert.visits.case import TEXT_FIELDS
from rarealert.visits.demographics import parse_age
from rarealert.visits.reading import Reading

if TYPE_CHECKING:
    from rarealert.student.model import Prediction, Student
    from rarealert.student.uncertainty import Uncertainty

BATCH_SIZE = 32
"""Visits that the network scores together."""

RationaleFor = Literal["alerts", "all", "none"]
"""Which visits get a rationale, which is generated token by token through every layer."""

NoteCode = Literal[
    "abstain",
    "age_differs",
    "contradictory_findings",
    "few_findings",
    "findings_not_read",
    "not_english",
    "out_of_distribution",
    "rationale_late",
    "truncated",
    "unknown_finding",
]

FLAGS: Mapping[NoteCode, str] = {
    "not_english": "The text is not English; the model can't read it, and the risk means nothing.",
    "out_of_distribution": "The visit is unlike what the model has learnt from.",
    "abstain": "The model does not decide on this visit.",
    "truncated": "The visit is longer than the model reads; history was left out.",
}
"""Flags of an answer that a reader must not miss, most serious first, in words."""

FEWEST_FINDINGS = 2
"""Findings of the patient below which an answer without an alert abstains: one finding, or none,
fits hundreds of common conditions and rare diseases alike."""

_CODES = ("findings_present", "findings_excluded")
_AGE_SHARE = 0.25  # a rounded age differs by less, one in months instead of years by far more
_AGE_YEARS = 1.0
_MOST_NAMED = 5


class Note(BaseModel):
    """Something that a reader of the answer must know; it never quotes the visit."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    code: NoteCode
    """For programs."""
    message: str
    """For people."""


class Answer(BaseModel):
    """The model's answer to one visit."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    case_id: str
    """The visit's name, or its place in the request, from 1."""
    risk: float
    """Calibrated probability 0-1 of a rare disease."""
    risk_low: float
    """Lower end of the risk's Venn-Abers interval, 0-1."""
    risk_high: float
    """Upper end of the risk's Venn-Abers interval, 0-1."""
    band: Band
    """Operating point of the risk."""
    abstain: bool
    """Whether the model does not decide: validation supports both labels or neither, or too few
    findings were recognised."""
    findings: int
    """Findings of the patient that were recognised in the text."""
    out_of_distribution: bool
    """Whether the visit is unlike all that the model has learnt from."""
    ood_score: float
    """Distance from training; above 1 is out of distribution."""
    not_english: bool
    """Whether the text is not English: the model can't read it, and the risk means nothing."""
    truncated: bool
    """Whether the visit was longer than the model reads."""
    evidence: tuple[Evidence, ...]
    """What the risk rests on, the weightiest first."""
    rationale: str | None = None
    """Why, in one sentence, if requested."""
    notes: tuple[Note, ...] = ()
    """What a reader must know, in words."""

    def wants_rationale(self, rationale: RationaleFor) -> bool:
        """Whether this visit is one of those that get a rationale; an unreadable one never is."""
        if self.not_english or rationale == "none":
            return False
        return rationale == "all" or self.band == "alert"

    def row(self) -> dict[str, Any]:
        """The cells of ``COLUMNS``, with the evidence as JSON."""
        found = [each.model_dump() for each in self.evidence]
        evidence = json.dumps(found, ensure_ascii=False, sort_keys=True)
        return {name: getattr(self, name) for name in COLUMNS} | {"evidence": evidence}


COLUMNS: Final[Mapping[str, str]] = {
    "case_id": "string",
    "risk": "double",
    "risk_low": "double",
    "risk_high": "double",
    "band": "string",
    "abstain": "boolean",
    "findings": "long",
    "out_of_distribution": "boolean",
    "ood_score": "double",
    "not_english": "boolean",
    "truncated": "boolean",
    "evidence": "string",
}
"""Columns of every table of answers, in order, with MLflow's name of each type."""


class Scorer(Protocol):
    """What screening needs of a model."""

    def answer(
        self,
        readings: Sequence[Reading],
        prevalence: float | None = None,
        rationale: RationaleFor = "none",
    ) -> list[Answer]:
        """As ``Screener.answer``."""


@dataclass(frozen=True)
class Screener:
    """A packaged student with its uncertainty.

    ``calibrated_at`` is the share of rare visits, 0-1, that the calibrator was fitted on.
    """

    student: "Student"
    uncertainty: "Uncertainty"
    calibrated_at: float

    @classmethod
    def load(cls, adapter: Path, calibrated_at: float) -> "Screener":
        """The student in the folder ``adapter``.

        Raises:
            BadInputError: the base model on this machine is not the one trained on, or the
                student was packaged before answers had an interval.
        """
        from rarealert.student.model import Student
        from rarealert.student.uncertainty import load_uncertainty

        uncertainty = load_uncertainty(adapter)
        return cls(Student.load(adapter), uncertainty, calibrated_at)

    def answer(
        self,
        readings: Sequence[Reading],
        prevalence: float | None = None,
        rationale: RationaleFor = "none",
    ) -> list[Answer]:
        """Answer each visit, in order.

        The band comes from thresholds chosen on validation, at the prevalence the calibrator saw.
        A risk is restated for another prevalence from what calibration supports: beyond its
        extreme cases, the shift would multiply odds without evidence. The shift is monotone, so it
        leaves the band, which marks an operating point, unchanged; nor does it touch ``abstain``,
        whose coverage holds for each label by itself.

        Args:
            readings: The visits. The student reads text alone, as in training; coded findings
                only lead to notes.
            prevalence: Share of rare disease, 0-1 exclusive, that every risk is restated for;
                ``None`` keeps that of the validation part.
            rationale: Which visits get a rationale. A text that is not English never does.

        Raises:
            BadInputError: ``prevalence`` is out of range.
        """
        if prevalence is not None and not 0 < prevalence < 1:
            raise BadInputError("prevalence must be a share between 0 and 1, such as 0.02.")
        if not readings:
            return []
        spoken = [reading.without(_CODES) for reading in readings]
        predictions = self.student.predict(spoken, BATCH_SIZE)
        answers = self._answers(spoken, predictions, prevalence)
        wanted = [at for at, each in enumerate(answers) if each.wants_rationale(rationale)]
        if wanted:
            written = self.student.rationales(
                [spoken[at] for at in wanted], [answers[at].band for at in wanted]
            )
            for at, item in zip(wanted, written, strict=True):
                answers[at] = answers[at].model_copy(update={"rationale": item.text})
        return [
            each.model_copy(update={"notes": (*_flags(each), *_notes(reading))})
            for each, reading in zip(answers, readings, strict=True)
        ]

    def _answers(
        self,
        readings: Sequence[Reading],
        predictions: "Sequence[Prediction]",
        prevalence: float | None,
    ) -> list[Answer]:
        """The answers without rationales and notes."""
        import numpy as np

        uncertainty = self.uncertainty
        logits = np.array([each.logit for each in predictions], dtype=float)
        features = np.array([each.features for each in predictions], dtype=float)
        low, high = uncertainty.venn_abers.interval(logits)
        abstains = uncertainty.abstains(logits)
        distances = uncertainty.ood_score(features)
        counts = [len(reading.affirmed) for reading in readings]

        def restated(risk: float) -> float:
            if prevalence is None:
                return risk
            supported = uncertainty.venn_abers.supported(np.array(risk))
            return float(shift_prevalence(supported, self.calibrated_at, prevalence))

        return [
            Answer(
                case_id=each.case_id,
                risk=restated(each.risk),
                # the calibrated risk is smooth, the interval is a step function: it is widened
                risk_low=restated(min(float(low[at]), each.risk)),
                risk_high=restated(max(float(high[at]), each.risk)),
                band=each.band,
                abstain=bool(abstains[at]) or _too_few(counts[at], each.band),
                findings=counts[at],
                out_of_distribution=bool(distances[at] > 1),
                ood_score=float(distances[at]),
                not_english=not is_english(_texts(reading)),
                truncated=each.truncated,
                evidence=tuple(find_evidence(reading, each.tokens, uncertainty.neutral)),
            )
            for at, (reading, each) in enumerate(zip(readings, predictions, strict=True))
        ]


def _too_few(findings: int, band: Band) -> bool:
    return findings < FEWEST_FINDINGS and band != "alert"


def _texts(reading: Reading) -> list[str]:
    return [text for name in TEXT_FIELDS if (text := getattr(reading.case, name))]


def _flags(answer: Answer) -> Iterator[Note]:
    """The notes on the flags of ``answer``; too few findings are the reason of an abstention."""
    few = _too_few(answer.findings, answer.band)
    for code, message in FLAGS.items():
        if getattr(answer, code) and not (few and code == "abstain"):
            yield Note(code=code, message=message)
    if few:
        number = "1 finding" if answer.findings == 1 else f"{answer.findings or 'No'} findings"
        yield Note(code="few_findings", message=f"{number} recognised; not enough to tell.")


def _notes(reading: Reading) -> Iterator[Note]:
    """Where a visit is at odds with itself, or codes findings that its text does not name."""
    resolve = load_ontology().resolve
    case = reading.case
    present = [resolve(term) for term in case.findings_present or ()]
    excluded = [resolve(term) for term in case.findings_excluded or ()]
    coded = [term for term in (*present, *excluded) if term]
    both = {*reading.affirmed, *filter(None, present)} & {*reading.denied, *filter(None, excluded)}
    both |= _denied_above(present, excluded)
    if both:
        name = load_ontology().name
        named = ", ".join(sorted(name(term) for term in both)[:_MOST_NAMED])
        message = f"Both stated and denied: {named}."
        yield Note(code="contradictory_findings", message=message)
    if unknown := len(present) + len(excluded) - len(coded):
        message = f"{unknown} HPO codes are not known here and were not read."
        yield Note(code="unknown_finding", message=message)
    yield from _age_note(reading)
    if unread := sum(not _is_worded(reading, term) for term in coded):
        was = "1 coded finding was" if unread == 1 else f"{unread} coded findings were"
        message = f"{was} not read: the text does not name them in words."
        yield Note(code="findings_not_read", message=message)


def _denied_above(present: Sequence[str | None], excluded: Sequence[str | None]) -> set[str]:
    """Excluded findings of which a kind is present."""
    above = load_ontology().ancestors
    implied = {term for each in present if each for term in above(each)}
    return {term for term in excluded if term in implied}


def _age_note(reading: Reading) -> Iterator[Note]:
    """The note on an age that the text gives otherwise: months in place of years, mostly."""
    case = reading.case
    texts = (case.chief_complaint, case.history_of_present_illness)
    ages = (age for text in texts if text and (age := parse_age(text)) is not None)
    age = next(ages, None)
    if age is None or case.age_years is None:
        return
    if abs(age - case.age_years) > max(_AGE_YEARS, _AGE_SHARE * max(age, case.age_years)):
        message = f"The age given is {case.age_years:g} years, the text says {age:.3g} years."
        yield Note(code="age_differs", message=message)


def _is_worded(reading: Reading, term: str) -> bool:
    """Whether the text names the coded finding, as readers of FHIR and phenopackets make it do."""
    if term in reading.affirmed or term in reading.denied:
        return True
    history = reading.case.history_of_present_illness or ""
    return load_ontology().name(term).lower() in history.lower()
