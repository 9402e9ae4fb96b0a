"""The case: what a first visit holds, and the label a study gives it.

Nothing that comes after the first visit (imaging, biopsy, genetics, the diagnosis) has a field
here, so it can't slip in. What is absent is ``None``, never an empty string or a zero.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
HpoId = Annotated[str, StringConstraints(pattern=r"^HP:\d{7}$")]
OrphaCode = Annotated[str, StringConstraints(pattern=r"^ORPHA:\d+$")]
Sex = Literal["female", "male"]

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


class Case(BaseModel):
    """One first visit. ``age_years`` is in completed or fractional years, 0 to 120."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    source: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    age_years: Annotated[float, Field(ge=0, le=120, allow_inf_nan=False)] | None = None
    sex: Sex | None = None
    chief_complaint: Text | None = None
    history_of_present_illness: Text | None = None
    past_medical_history: Text | None = None
    family_history: Text | None = None
    social_history: Text | None = None
    physical_examination: Text | None = None
    vitals: Text | None = None
    findings_present: tuple[HpoId, ...] | None = None
    """HPO terms coded as present; ``None`` where the source has no coding."""
    findings_excluded: tuple[HpoId, ...] | None = None
    """HPO terms coded as looked for and absent; ``None`` where the source has no coding."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if all(getattr(self, name) is None for name in TEXT_FIELDS):
            raise ValueError(f"a case needs text in at least one of {', '.join(TEXT_FIELDS)}")
        return self


class Label(BaseModel):
    """What the study knows of a case; no model may see it.

    ``disease_id`` groups cases of one disease for splits: ``ORPHA:<code>`` for a rare one, else
    ``NAME:<normalised name>``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Literal["rare", "nonrare"]
    disease_id: Annotated[str, StringConstraints(min_length=1)]
    disease_name: Annotated[str, StringConstraints(min_length=1)]
    orpha_code: OrphaCode | None = None
    orphanet_head: str | None = None
    """Name of the Orphanet classification head, such as ``Rare neurologic disease``."""
    reason: Annotated[str, StringConstraints(min_length=1)]

    @model_validator(mode="after")
    def _label_agrees_with_code(self) -> Self:
        if self.label == "rare" and self.orpha_code is None:
            raise ValueError("label is rare but orpha_code is missing")
        if self.label == "nonrare" and self.orpha_code is not None:
            raise ValueError(f"label is nonrare but orpha_code is {self.orpha_code}")
        return self


class LabelledCase(BaseModel):
    """A case with its label, as ``build/ingest/cases.parquet`` holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case
    label: Label
