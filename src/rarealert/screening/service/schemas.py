"""Request and response models of the service: strict, and the source of its OpenAPI description."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rarealert.screening.answer import Answer, RationaleFor
from rarealert.visits.case import MAX_TEXT, TEXT_FIELDS, HpoId

MAX_FINDINGS = 200
"""Coded findings of one visit."""

_READ_FIELDS = (*TEXT_FIELDS, "findings_present", "findings_excluded")


def _blank_is_absent(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _age_is_a_number(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("give years as a number; 18 months are 1.5")
    return value


_Words = Annotated[str, Field(max_length=MAX_TEXT)]
_Years = Annotated[
    float, Field(ge=0, le=120, allow_inf_nan=False, json_schema_extra={"unit": "years"})
]
Text = Annotated[_Words | None, BeforeValidator(_blank_is_absent)]
Age = Annotated[_Years | None, BeforeValidator(_age_is_a_number)]
Findings = Annotated[list[HpoId], Field(max_length=MAX_FINDINGS)]
Prevalence = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def _something_to_read(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [
        {"required": [name], "properties": {name: {"type": "string", "pattern": r"\S"}}}
        for name in TEXT_FIELDS
    ] + [
        {"required": [name], "properties": {name: {"minItems": 1}}}
        for name in ("findings_present", "findings_excluded")
    ]


class _Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Visit(_Request):
    """A first visit: text in at least one field, or coded findings. Omit what is unknown."""

    model_config = ConfigDict(json_schema_extra=_something_to_read)

    case_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Your name for the visit, returned with its answer; no personal data."""
    age_years: Age = None
    """Age in years, fractional below two (1.5 is 18 months)."""
    sex: Literal["female", "male"] | None = None
    """Sex as recorded; omit it where it is unknown, intersex or not recorded."""
    chief_complaint: Text = None
    """Why the patient came, in a few words."""
    history_of_present_illness: Text = None
    """Onset and course, as reported at the visit."""
    past_medical_history: Text = None
    """Illnesses, operations and medication before the visit."""
    family_history: Text = None
    """Illnesses of relatives."""
    social_history: Text = None
    """Work, travel, tobacco, alcohol, living conditions."""
    physical_examination: Text = None
    """What the clinician saw, heard and felt."""
    vitals: Text = None
    """Temperature, pulse, blood pressure and the like, each with its unit."""
    findings_present: Findings = []
    """HPO terms that are present; their names are appended to the history."""
    findings_excluded: Findings = []
    """HPO terms that were examined and are absent."""

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not any(getattr(self, name) for name in _READ_FIELDS):
            raise ValueError(f"a visit needs text or findings in one of {', '.join(_READ_FIELDS)}")
        return self


class ScreenRequest(_Request):
    """One visit or many."""

    visits: Annotated[list[Visit], Field(min_length=1)]
    """Visits, answered in this order."""
    prevalence: Prevalence | None = None
    """Share of rare disease among your patients, for which risks are restated; null keeps that of
    the validation part."""
    rationale: RationaleFor = "none"
    """Which answers get a rationale; each takes about as long as fifty risks."""


class ExplainRequest(_Request):
    """One visit to explain."""

    visit: Visit
    """The visit."""
    prevalence: Prevalence | None = None
    """As in ``/v1/screen``."""


class _Response(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ModelMark(_Response):
    """Which model answered."""

    name: str
    """Name of the registered model."""
    version: str
    """Its version."""
    digest: str
    """Sha256 of its adapter."""


class VisitAnswer(Answer):
    """The answer to one visit, with the version that computed it."""

    model: ModelMark
    """Which model answered."""


class Screened(_Response):
    """Answers in the order of the visits."""

    answers: list[VisitAnswer]
    """One for each visit."""
    notice: str = "Decision support, not a diagnosis."
    """The intended use."""


class RefusedRecord(_Response):
    """A resource or patient that was refused."""

    entry: int
    """Place of the entry in the bundle, from 1."""
    field: str
    """The field with the error."""
    reason: str
    """The error."""


class ScreenedBundle(Screened):
    """The first visit of each patient of a bundle."""

    refused: list[RefusedRecord] = []
    """Refused resources; a patient without a readable visit has no answer."""
