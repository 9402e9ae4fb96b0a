"""Small corpora in the formats in which the real ones are published."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

VIGNETTES = "usmle_and_derm_dataset.csv"
REPORTS = "diagnosis_957_cases_with_rare_disease_491.json.gz"
LINEARISATION = "linearisation_of_rare_diseases.csv.gz"


def write_csv(path: Path, columns: str, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


def write_craftmd(folder: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Rows of (case id, vignette, diagnosis, label); rare ones get a code made from their place."""
    vignettes = [(text, diagnosis, case_id) for case_id, text, diagnosis, _ in rows]
    write_csv(folder / VIGNETTES, "case_vignette,answer,case_id", vignettes)
    labels = []
    for place, (case_id, _, diagnosis, label) in enumerate(rows, 100):
        code, head = (str(place), "Rare bone disease") if label == "rare" else ("", "")
        reason = "not a known disease name" if label == "excluded" else "a reason"
        labels.append((case_id, diagnosis, label, code, head, reason))
    columns = "case_id,diagnosis,label,orpha_code,orphanet_head,reason"
    write_csv(folder / "labels.csv", columns, labels)


def write_orphanet(folder: Path, names: dict[str, str]) -> None:
    """Orphadata's linearisation with ``names`` by code number."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{code},"{name}",Rare bone disease' for code, name in names.items()]
    text = "\n".join(["orpha_code,name,target_disorder_name", *lines]) + "\n"
    (folder / LINEARISATION).write_bytes(gzip.compress(text.encode()))


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
    case = {"case_summary": text, "diagnosis_results": diagnosis, "final_diagnosis": "SECRET"}
    hidden = {"differential_diagnosis": "SECRET"}
    return {
        "generate_case": case | hidden,
        "body_category": ["SECRET"],
        "checked_rare_disease": rare,
    }


def write_medrbench(folder: Path, reports: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORTS).write_bytes(gzip.compress(json.dumps(reports).encode()))
    return folder / REPORTS
