"""Small corpora in the formats in which the real ones are published."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

from rarealert.visits.case import Case, Label, LabelledCase

CRAFTMD_COLUMNS = (
    "case_vignette",
    "choice_1",
    "choice_2",
    "choice_3",
    "choice_4",
    "answer",
    "category",
    "dataset",
    "case_id",
)
LABEL_COLUMNS = ("case_id", "diagnosis", "label", "orpha_code", "orphanet_head", "reason")


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_craftmd(folder: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Rows of (case id, vignette, diagnosis, label); rare ones get a code made from their place."""
    write_csv(
        folder / "usmle_and_derm_dataset.csv",
        CRAFTMD_COLUMNS,
        [{"case_id": i, "case_vignette": text, "answer": d} for i, text, d, _ in rows],
    )
    labels = []
    for place, (case_id, _, diagnosis, label) in enumerate(rows, 100):
        code, head = (str(place), "Rare bone disease") if label == "rare" else ("", "")
        reason = "not a known disease name" if label == "excluded" else "a reason"
        values = (case_id, diagnosis, label, code, head, reason)
        labels.append(dict(zip(LABEL_COLUMNS, values, strict=True)))
    write_csv(folder / "labels.csv", LABEL_COLUMNS, labels)


def write_orphanet(folder: Path, names: dict[str, str]) -> None:
    """Orphadata's linearisation with ``names`` by code number."""
    folder.mkdir(parents=True, exist_ok=True)
    header = (
        "disorder_id,orpha_code,name,target_disorder_code,target_disorder_name,association_type"
    )
    lines = [f'1,{code},"{name}",93419,Rare bone disease,x' for code, name in names.items()]
    text = "\n".join([header, *lines]) + "\n"
    path = folder / "linearisation_of_rare_diseases.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))


def summary(**sections: str) -> str:
    """A case summary with the published headings; ``sections`` replaces their text."""
    texts = {
        "Patient Information": "36-year-old Saudi male.",
        "Chief Complaint": "Cough for a week.",
        "History of Present Illness": "Dry cough, worse at night.",
        "Past Medical History": "None.",
        "Personal History": "Smoker.",
        "Family History": "None significant.",
        "Physical Examination": "Clear chest.",
        "Ancillary Tests": "\n  - **Biopsy:** granuloma.",
    }
    texts |= {name.replace("_", " "): text for name, text in sections.items()}
    return "\n".join(f"- **{name}:** {text}" for name, text in texts.items())


def report(text: str, diagnosis: str, rare: list[str]) -> dict[str, Any]:
    return {
        "id": "unused",
        "generate_case": {
            "case_summary": text,
            "differential_diagnosis": "SECRET differential",
            "final_diagnosis": "SECRET final",
            "diagnosis_results": diagnosis,
        },
        "body_category": ["SECRET body"],
        "disorder_category": ["SECRET disorder"],
        "checked_rare_disease": rare,
    }


def write_medrbench(folder: Path, reports: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "diagnosis_957_cases_with_rare_disease_491.json.gz"
    path.write_bytes(gzip.compress(json.dumps(reports).encode()))


def labelled(
    case_id: str, disease: str, *, rare: bool, text: str, source: str = "table"
) -> LabelledCase:
    """A case of ``disease``, which is the number of an ORPHA code where it is rare."""
    code = f"ORPHA:{disease}" if rare else None
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=code or f"NAME:{disease}",
        disease_name=f"disease {disease}",
        orpha_code=code,
        reason="made for a test",
    )
    case = Case(case_id=case_id, source=source, history_of_present_illness=text)
    return LabelledCase(case=case, label=label)
