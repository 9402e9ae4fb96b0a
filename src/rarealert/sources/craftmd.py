"""CRAFT-MD: exam and dermatology vignettes with reference labels in a second table.

Johri et al. 2025, Nature Medicine; https://github.com/rajpurkarlab/craft-md. The vignette becomes
the history of present illness, without the exam's closing question, which no visit contains.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rarealert.sources.labelling import without_diagnosis
from rarealert.sources.published_files import Tick, no_tick
from rarealert.sources.rows import csv_records
from rarealert.visits.case import LabelledCase
from rarealert.visits.demographics import parse_age, parse_sex
from rarealert.visits.diagnosis import disease_key
from rarealert.visits.refused import Place, Refused, build_case, build_labelled

VIGNETTES = "usmle_and_derm_dataset.csv"
LABELS = "labels.csv"
_VIGNETTE_COLUMNS = ("case_id", "case_vignette", "answer")
_LABEL_COLUMNS = ("case_id", "diagnosis", "label", "orpha_code", "orphanet_head", "reason")
_LABELS_KNOWN = ("rare", "nonrare", "excluded")
_QUESTION = re.compile(r"(?:^|(?<=[.!?:\"”])\s+|\n\s*)[^.!?\n]*\?[\"”'\s]*$")
_Row = Mapping[str, str]


def read(folder: Path, tick: Tick = no_tick) -> Iterator[LabelledCase | Refused]:
    """Read every vignette of ``folder`` as a labelled case or refused, in the published order.

    Raises:
        BadInputError: a file is missing, empty, UTF-16 or without a needed column.
    """
    labels: dict[str, list[_Row]] = {}
    for place, row in _table(folder / LABELS, _LABEL_COLUMNS, tick):
        if isinstance(row, str):
            yield place.refuse("line", row)
            continue
        given = labels.setdefault(row["case_id"], [])
        if row not in given:  # a repeated row counts once
            given.append(row)
    for place, row in _table(folder / VIGNETTES, _VIGNETTE_COLUMNS, tick):
        if isinstance(row, str):
            yield place.refuse("line", row)
            continue
        found = labels.get(row["case_id"], [])
        if len(found) == 1:
            yield _labelled(place, row, found[0])
        else:
            how_many = "several labels" if found else "no label"
            yield place.refuse("case_id", f"{how_many} in {LABELS}")


def _table(path: Path, columns: tuple[str, ...], tick: Tick) -> Iterator[tuple[Place, _Row | str]]:
    """Rows with an empty text for each empty cell, or the reason why a row can't be read."""
    for number, row in csv_records(path, tick, columns):
        place = Place("craftmd", path.name, number)
        if isinstance(row, str):
            yield place, row
        else:
            yield place, {name: str(row.get(name, "")) for name in columns}


def _labelled(place: Place, row: _Row, label: _Row) -> LabelledCase | Refused:
    vignette = without_question(row["case_vignette"])
    if not vignette:
        return place.refuse("case_vignette", "no text")
    verdict = label["label"]
    if verdict not in _LABELS_KNOWN:
        return place.refuse("label", f"in {LABELS} neither {', '.join(_LABELS_KNOWN)}")
    if verdict == "excluded":
        return place.refuse("label", label["reason"] or "no reason given", "excluded")
    case = build_case(place, _fields(row, vignette))
    labelled = build_labelled(place, case, _label(label))
    return without_diagnosis(place, labelled, row["answer"], field="case_vignette")


def without_question(vignette: str) -> str:
    """Cut the questions at the end of a vignette."""
    text = vignette.strip()
    while (shorter := _QUESTION.sub("", text, count=1).rstrip()) != text:
        text = shorter
    return text


def _fields(row: _Row, vignette: str) -> dict[str, object]:
    return {
        "case_id": row["case_id"],
        "source": "craftmd",
        "age_years": parse_age(vignette),
        "sex": parse_sex(vignette),
        "history_of_present_illness": vignette,
    }


def _label(label: _Row) -> dict[str, object]:
    code = f"ORPHA:{label['orpha_code']}" if label["orpha_code"] else None
    diagnosis = label["diagnosis"]
    return {
        "label": label["label"],
        "disease_id": code or disease_key(diagnosis),
        "disease_name": diagnosis,
        "orpha_code": code,
        "orphanet_head": label["orphanet_head"] or None,
        "reason": label["reason"],
    }
