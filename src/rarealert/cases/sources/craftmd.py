"""CRAFT-MD: exam and dermatology vignettes with reference labels in a table beside them.

Johri et al. 2025, Nature Medicine; https://github.com/rajpurkarlab/craft-md. The vignette is the
history of present illness; the exam's closing question is cut, because no patient asks it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rarealert.cases.render import render
from rarealert.cases.sources.demographics import parse_age, parse_sex
from rarealert.cases.sources.diagnosis import disease_key, names_diagnosis
from rarealert.cases.sources.files import Tick, no_tick, read_text
from rarealert.cases.sources.refused import Place, Read, Refused, build_case
from rarealert.errors import BadInputError

VIGNETTES = "usmle_and_derm_dataset.csv"
LABELS = "labels.csv"
_VIGNETTE_COLUMNS = ("case_id", "case_vignette", "answer")
_LABEL_COLUMNS = ("case_id", "diagnosis", "label", "orpha_code", "orphanet_head", "reason")
_LABELS_KNOWN = ("rare", "nonrare", "excluded")
_QUESTION = re.compile(r"(?:^|(?<=[.!?:\"”])\s+|\n\s*)[^.!?\n]*\?[\"”'\s]*$")
_Row = Mapping[str, str | None]


def read(folder: Path, tick: Tick = no_tick) -> Iterator[Read]:
    """Every vignette of ``folder`` as a labelled case or refused, in the published order.

    Raises:
        BadInputError: a file is missing, empty, not UTF-8 or lacks a column.
    """
    labels = _labels(folder / LABELS)
    tick((folder / LABELS).stat().st_size)
    for number, row in _table(folder / VIGNETTES, _VIGNETTE_COLUMNS):
        tick(sum(len(cell or "") for cell in row.values()))
        place = Place("craftmd", VIGNETTES, number)
        found = labels.get(row["case_id"], [])
        if len(found) == 1:
            yield _labelled(place, row, found[0])
        else:
            how_many = "several labels" if found else "no label"
            yield place.refuse("case_id", f"{how_many} in {LABELS}")


def _labels(path: Path) -> dict[str | None, list[_Row]]:
    """Labels by case id; one that is given twice in the same words counts once."""
    labels: dict[str | None, list[_Row]] = {}
    for _, row in _table(path, _LABEL_COLUMNS):
        given = labels.setdefault(row["case_id"], [])
        if row not in given:
            given.append(row)
    return labels


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, _Row]]:
    # strict, because a file cut inside a quoted vignette would else pass as a whole one
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise BadInputError(
                f"{path} has no column {missing[0]}; import the published file again."
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise BadInputError(
            f"{path} line {reader.line_num} is not CSV ({error}); import the published file again."
        ) from error


def _labelled(place: Place, row: _Row, label: _Row) -> Read:
    vignette = without_question(row["case_vignette"] or "")
    if not vignette:
        return place.refuse("case_vignette", "no text")
    verdict = label["label"] or ""
    if verdict not in _LABELS_KNOWN:
        return place.refuse("label", f"{LABELS} says neither {', '.join(_LABELS_KNOWN)}")
    if verdict == "excluded":
        return place.refuse("label", label["reason"] or "no reason given", "excluded")
    built = build_case(place, _case(row, vignette), _label(label))
    if isinstance(built, Refused):
        return built
    if names_diagnosis(render(built.case), {built.label.disease_name, row["answer"] or ""}):
        return place.refuse(
            "case_vignette", "the diagnosis stands in the text", "diagnosis_in_text"
        )
    return built


def without_question(vignette: str) -> str:
    """The vignette without the questions that close it."""
    text = vignette.strip()
    while (shorter := _QUESTION.sub("", text, count=1).rstrip()) != text:
        text = shorter
    return text


def _case(row: _Row, vignette: str) -> dict[str, object]:
    return {
        "case_id": row["case_id"],
        "source": "craftmd",
        "age_years": parse_age(vignette),
        "sex": parse_sex(vignette),
        "history_of_present_illness": vignette,
    }


def _label(label: _Row) -> dict[str, object]:
    code = f"ORPHA:{label['orpha_code']}" if label["orpha_code"] else None
    diagnosis = label["diagnosis"] or ""
    return {
        "label": label["label"],
        "disease_id": code or disease_key(diagnosis),
        "disease_name": diagnosis,
        "orpha_code": code,
        "orphanet_head": label["orphanet_head"] or None,
        "reason": label["reason"],
    }
