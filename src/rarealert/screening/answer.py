"""What a reader of an answer must know, in words: the same for a file of visits and the service.

What is said of a screened visit: the columns that every way of screening shares.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.knowledge.english import is_english
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import load_recogniser
from rarealert.student.evidence import find_evidence
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.demographics import parse_age

if TYPE_CHECKING:
    from rarealert.student.model import Prediction
    from rarealert.student.uncertainty import Uncertainty
    from rarealert.visits.reading import Reading

NoteCode = Literal[
    "abstain",
    "age_differs",
    "contradictory_findings",
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

_AGE_SHARE = 0.25  # a rounded age differs by less, one in months instead of years by far more
_AGE_YEARS = 1.0
_MOST_NAMED = 5


@dataclass(frozen=True)
class Remark:
    """One note: ``code`` for programs, ``message`` for people; it never quotes the visit."""

    code: NoteCode
    message: str


def flag_remarks(answer: Mapping[str, Any]) -> list[Remark]:
    """What the flags of ``answer`` say."""
    return [Remark(code, message) for code, message in FLAGS.items() if answer.get(code)]


def case_remarks(case: Case) -> list[Remark]:
    """Where ``case`` is at odds with itself, or codes what its text does not say."""
    said, denied = mentioned({name: getattr(case, name) for name in TEXT_FIELDS})
    found = [contradiction(said & denied), age_remark(case), _unread(case, said | denied)]
    return [each for each in found if each]


def mentioned(fields: Mapping[str, str | None]) -> tuple[set[str], set[str]]:
    """HPO ids that the text states, and those it denies, of the patient."""
    said: set[str] = set()
    denied: set[str] = set()
    for name, text in fields.items():
        for mention in load_recogniser().mentions(text or "", family=name == "family_history"):
            if not mention.family:
                (denied if mention.negated else said).add(mention.hpo_id)
    return said, denied


def contradiction(both: set[str]) -> Remark | None:
    """The note on findings that are stated and denied."""
    if not both:
        return None
    name = load_ontology().name
    told = ", ".join(sorted(name(term) for term in both)[:_MOST_NAMED])
    return Remark("contradictory_findings", f"Both stated and denied: {told}.")


def age_remark(case: Case) -> Remark | None:
    """The note on an age that the text tells otherwise: months in place of years, mostly."""
    said = _age_said(case)
    if said is None or case.age_years is None:
        return None
    if abs(said - case.age_years) <= max(_AGE_YEARS, _AGE_SHARE * max(said, case.age_years)):
        return None
    message = f"The age given is {case.age_years:g} years, the text says {said:.3g} years."
    return Remark("age_differs", message)


def _age_said(case: Case) -> float | None:
    texts = (case.chief_complaint, case.history_of_present_illness)
    return next((age for text in texts if text and (age := parse_age(text)) is not None), None)


def _unread(case: Case, named: set[str]) -> Remark | None:
    """The note on codes that stand in no words: the model reads text alone."""
    unread = sum(1 for term in _coded(case) if not _is_told(case, term, named))
    if not unread:
        return None
    told = "1 coded finding was" if unread == 1 else f"{unread} coded findings were"
    return Remark("findings_not_read", f"{told} not read: the text does not name them in words.")


def _coded(case: Case) -> Iterator[str]:
    yield from case.findings_present or ()
    yield from case.findings_excluded or ()


def _is_told(case: Case, term: str, named: set[str]) -> bool:
    ontology = load_ontology()
    living = ontology.resolve(term)
    if living is None:
        return False
    name = ontology.name(living).lower()  # as readers of FHIR and phenopackets tell a code
    return living in named or name in (case.history_of_present_illness or "").lower()


SAID: Final[Mapping[str, str]] = {
    "case_id": "string",
    "risk": "double",
    "risk_low": "double",
    "risk_high": "double",
    "band": "string",
    "abstain": "boolean",
    "out_of_distribution": "boolean",
    "ood_score": "double",
    "not_english": "boolean",
    "truncated": "boolean",
    "evidence": "string",
}
"""Columns of an answer that is always whole, in order, with MLflow's name of each type.

``risk`` is calibrated, 0-1, and ``risk_low`` to ``risk_high`` its Venn-Abers interval. ``abstain``
says that validation does not let the student decide (both labels, or none, in the conformal set).
``ood_score`` is the visit's distance from training in units of the threshold, above 1 being
``out_of_distribution``. ``not_english`` marks a text that the student can't read, whose risk means
nothing. ``evidence`` is a JSON list of ``rarealert.student.evidence.Evidence``.
"""


def say(
    readings: "Sequence[Reading]",
    predictions: "Sequence[Prediction]",
    uncertainty: "Uncertainty",
    calibrated_at: float,
    prevalence: float | None,
) -> dict[str, list[Any]]:
    """The columns of ``SAID`` for ``readings``, at ``prevalence`` if one is given (both 0-1)."""
    import numpy as np

    logits = np.array([item.logit for item in predictions], dtype=float)
    features = np.array([item.features for item in predictions], dtype=float)
    low, high = uncertainty.venn_abers.interval(logits)
    strange = uncertainty.ood_score(features) if len(predictions) else np.zeros(0)

    def restated(risk: float) -> float:
        if prevalence is None:
            return risk
        return float(shift_prevalence(risk, calibrated_at, prevalence))

    risks = [item.risk for item in predictions]
    neutral = uncertainty.neutral
    return {
        "case_id": [item.case_id for item in predictions],
        "risk": [restated(risk) for risk in risks],
        # the risk is a smooth map's, the interval that of steps: it is widened to hold the risk
        "risk_low": [restated(min(*pair)) for pair in zip(low.tolist(), risks, strict=True)],
        "risk_high": [restated(max(*pair)) for pair in zip(high.tolist(), risks, strict=True)],
        "band": [item.band for item in predictions],
        "abstain": uncertainty.abstains(logits).tolist(),
        "out_of_distribution": (strange > 1).tolist(),
        "ood_score": strange.tolist(),
        "not_english": [not is_english(_texts(reading.case)) for reading in readings],
        "truncated": [item.truncated for item in predictions],
        "evidence": [
            _json(reading, item, neutral)
            for reading, item in zip(readings, predictions, strict=True)
        ],
    }


def _texts(case: Case) -> list[str]:
    return [text for name in TEXT_FIELDS if (text := getattr(case, name))]


def _json(reading: "Reading", prediction: "Prediction", neutral: float) -> str:
    found = find_evidence(reading, prediction.tokens, neutral)
    return json.dumps([item.as_dict() for item in found], ensure_ascii=False, sort_keys=True)
