"""Labelled cases for the tests of splits."""

from datetime import date, timedelta

from rarealert.visits.case import Case, Label, LabelledCase

START = date(2020, 1, 1)


def labelled(
    case_id: str,
    disease: str,
    *,
    rare: bool,
    text: str = "visit",
    source: str = "table",
    head: str | None = None,
    day: int | None = None,
    patient: str | None = None,
) -> LabelledCase:
    """A case of ``disease``, which is the number of an ORPHA code where it is rare.

    ``day`` counts from ``START``.
    """
    code = f"ORPHA:{disease}" if rare else None
    return LabelledCase(
        case=Case(
            case_id=case_id,
            source=source,
            history_of_present_illness=text,
            visit_date=None if day is None else START + timedelta(days=day),
            patient_id=patient,
        ),
        label=Label(
            label="rare" if rare else "nonrare",
            disease_id=code or f"NAME:{disease}",
            disease_name=f"{'rare' if rare else 'common'} {disease}",
            orpha_code=code,
            orphanet_head=head,
            reason="made for a test",
        ),
    )
