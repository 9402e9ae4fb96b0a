"""The case: the content of a first visit, and the label that a study gives it.

Nothing that comes after the first visit (imaging, biopsy, genetics, the diagnosis) has a field
here. What is absent is ``None``, never an empty string or a zero.
"""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

MAX_TEXT = 20_000
"""Characters of one text field."""

Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT),
    # white space alone is stripped to nothing, which a schema's minLength can't express
    Field(json_schema_extra={"pattern": r"\S"}),
]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200)]
HpoId = Annotated[str, StringConstraints(pattern=r"^HP:[0-9]{7}$")]
OrphaCode = Annotated[str, StringConstraints(pattern=r"^ORPHA:[0-9]+$")]
Sex = Literal["female", "male"]


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


Age = Annotated[
    float,
    Field(ge=0, le=120, allow_inf_nan=False, json_schema_extra={"unit": "years"}),
    BeforeValidator(_no_truth_value),
]

TEXT_FIELDS = (
    "chief_complaint",
    "history_of_present_illness",
    "past_medical_history",
    "family_history",
    "social_history",
    "physical_examination",
    "vitals",
)
"""The free-text fields in the order in which they are rendered."""


def _one_text_at_least(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [
        {"required": [name], "properties": {name: {"type": "string"}}} for name in TEXT_FIELDS
    ]


def _code_exactly_if_rare(schema: dict[str, Any]) -> None:
    code = schema["properties"]["orpha_code"]["anyOf"]
    schema["if"] = {"properties": {"label": {"const": "rare"}}}
    schema["then"] = {"required": ["orpha_code"], "properties": {"orpha_code": code[0]}}
    schema["else"] = {"properties": {"orpha_code": {"type": "null"}}}


class Case(BaseModel):
    """One first visit: what is absent from the record is null or left out, never empty."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra=_one_text_at_least,
    )

    case_id: Identifier
    """Names the visit in every table and report; unique over all sources; no personal data."""
    source: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    """Where the visit comes from, such as ``craftmd``; results are reported per source."""
    patient_id: Identifier | None = None
    """Pseudonym of the patient within the source: a split keeps one patient on one side."""
    visit_date: date | None = None
    """Day of the visit: where a source dates every visit, the test part holds later ones."""
    age_years: Age | None = None
    """Age at the visit in years, completed or fractional (0.25 is three months), 0 to 120."""
    sex: Sex | None = None
    """Sex as recorded; null where it is unknown, intersex or not asked."""
    chief_complaint: Text | None = None
    """Why the patient came, in a few words."""
    history_of_present_illness: Text | None = None
    """How it began and went on, as told at the visit."""
    past_medical_history: Text | None = None
    """Illnesses, operations and medication before the visit."""
    family_history: Text | None = None
    """Illnesses of relatives."""
    social_history: Text | None = None
    """Work, travel, tobacco, alcohol, living conditions."""
    physical_examination: Text | None = None
    """What the clinician saw, heard and felt."""
    vitals: Text | None = None
    """Temperature, pulse, blood pressure and the like, each with its unit."""
    findings_present: tuple[HpoId, ...] | None = None
    """HPO terms coded as present; null where the source codes none, empty where it found none."""
    findings_excluded: tuple[HpoId, ...] | None = None
    """HPO terms coded as looked for and absent; null where the source codes none."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if all(getattr(self, name) is None for name in TEXT_FIELDS):
            raise ValueError(f"a case needs text in at least one of {', '.join(TEXT_FIELDS)}")
        return self


class Label(BaseModel):
    """The label of a case in a study; no model may see it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra=_code_exactly_if_rare,
    )

    label: Literal["rare", "nonrare"]
    """Rare: an active Orphanet disorder without a common prevalence class; nonrare: not one."""
    disease_id: Annotated[str, StringConstraints(min_length=1)]
    """Groups the cases of one disease: ``ORPHA:<code>``, else ``NAME:<normalised name>``."""
    disease_name: Annotated[str, StringConstraints(min_length=1)]
    """The diagnosis in words; a visit that holds it is refused."""
    orpha_code: OrphaCode | None = None
    """Orphanet's code; null exactly where the label is nonrare."""
    orphanet_head: str | None = None
    """Name of the Orphanet classification head, such as ``Rare neurologic disease``."""
    reason: Annotated[str, StringConstraints(min_length=1)]
    """Why the case has this label, in words for a reviewer."""

    @model_validator(mode="after")
    def _label_agrees_with_code(self) -> Self:
        if self.label == "rare" and self.orpha_code is None:
            raise ValueError("label is rare but orpha_code is missing")
        if self.label == "nonrare" and self.orpha_code is not None:
            raise ValueError(f"label is nonrare but orpha_code is {self.orpha_code}")
        return self


class LabelledCase(BaseModel):
    """A visit with its label: a row of ``build/ingest/cases.parquet``, a line of a table source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case
    label: Label


def json_schema(*, labelled: bool) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a labelled case, or of a visit alone.

    It accepts only what the models accept. Units are under ``unit``, ranges under ``minimum`` and
    ``maximum``, and a field that may be missing allows null or may be left out.
    """
    model: type[BaseModel] = LabelledCase if labelled else Case
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **model.model_json_schema()}
