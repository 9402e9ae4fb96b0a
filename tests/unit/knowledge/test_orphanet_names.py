"""Names of diagnoses to Orphanet disorders, from the packages and from Orphadata's tables."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.heads import HEADS
from rarealert.knowledge.mondo import parse_mondo
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.orphanet import (
    Disorder,
    Nomenclature,
    OrphanetIndex,
    index_over,
    load_index,
    looks_common,
)

CORPORA = os.environ.get("RAREALERT_CORPORA")
corpora = pytest.mark.skipif(CORPORA is None, reason="RAREALERT_CORPORA names no folder")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Marfan syndrome", "ORPHA:558"),
        ("marfan's Syndrome", "ORPHA:558"),
        ("Wilson\u2019s disease", "ORPHA:905"),
        ("Wilson", "ORPHA:905"),
        ("The final diagnosis is likely Kawasaki disease.", "ORPHA:2331"),
        ("Granulomatosis with polyangiitis (GPA)", "ORPHA:900"),
        ("Wegener granulomatosis", "ORPHA:900"),
        ("Takayasu Arteritis", "ORPHA:3287"),
        ("Von Recklinghausen disease", "ORPHA:636"),
        ("Behcet disease", "ORPHA:117"),
        ("Cutaneous leishmaniasis", "ORPHA:507"),  # a form of the disorder
        ("Falciparum malaria", "ORPHA:673"),
    ],
)
def test_spelling_variants_and_forms_are_resolved(text: str, code: str) -> None:
    found = load_index().resolve(text)
    assert found is not None
    assert found.orpha_code == code


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Influenza",
            "Type 2 diabetes mellitus",
            "Cushing",
            "Alpha-thalassemia trait",
            "fever",
        ),
        # diseases outside Orphanet with a name like that of one in it
        *("Fifth disease", "Slapped cheek disease", "keratosis pilaris"),
    ],
)
def test_what_is_no_rare_disorder_stays_unresolved(text: str) -> None:
    assert load_index().resolve(text) is None


def _term(name: str, *synonyms: str, parents: tuple[str, ...] = (), **codes: str) -> dict[str, Any]:
    xrefs = [{"namespace": space, "id": code} for space, code in codes.items()]
    return {"id": name, "name": name, "synonyms": synonyms, "relations": {"is_a": parents},
            "xrefs": xrefs}  # fmt: skip


def _index_over(*terms: dict[str, Any], **official: str) -> OrphanetIndex:
    root = {"id": "0700096", "name": "human disease"}
    for term in terms:
        term["relations"]["is_a"] = (*term["relations"]["is_a"], "0700096")
    mondo = parse_mondo(json.dumps([root, *terms]).encode())
    disorders = tuple(Disorder(f"ORPHA:{code[1:]}", name) for code, name in official.items())
    return index_over(Nomenclature(disorders, frozenset(), frozenset(), True), {}, mondo)


def test_a_broader_disease_is_not_its_inherited_form() -> None:
    index = _index_over(
        _term("oldian nephrosis", "nephrosis of Old", Orphanet="1"),
        _term("sour urine", "hereditary sour urine", Orphanet="2"),
        c1="Genetic oldian nephrosis",
        c2="Hereditary sour urine",
    )
    assert index.resolve("Oldian nephrosis") is None
    assert index.resolve("nephrosis of Old") is None
    assert index.resolve("genetic oldian nephrosis") == index.by_code["ORPHA:1"]
    assert index.resolve("sour urine") == index.by_code["ORPHA:2"]


def test_a_synonym_shared_with_a_disease_outside_orphanet_is_ambiguous() -> None:
    index = _index_over(
        _term("fetal red syndrome", "red disease", "red fetus", Orphanet="1"),
        _term("childhood rash", "red disease"),
        c1="Fetal red syndrome",
    )
    assert index.resolve("red disease") is None
    assert index.resolve("red fetus") == index.by_code["ORPHA:1"]


def test_a_disease_outside_orphanet_is_only_a_disorder_that_it_is_a_form_of() -> None:
    index = _index_over(
        _term("redness", Orphanet="1"),
        _term("acute redness", parents=("redness",)),
        _term("redness of the sun"),
        c1="Redness",
    )
    assert index.resolve("acute redness") == index.by_code["ORPHA:1"]
    assert index.resolve("redness of the sun") is None
    assert index.resolve("redness of the moon") == index.by_code["ORPHA:1"]


@given(st.text(max_size=120))
def test_any_string_is_a_disorder_or_none(text: str) -> None:
    found = load_index().resolve(text)
    assert found is None or found.orpha_code in load_index().by_code


def test_every_packaged_name_resolves_to_a_disorder_of_that_name() -> None:
    index = load_index()
    for code, disorder in list(index.by_code.items())[::7]:
        found = index.resolve(disorder.name)
        assert found is not None
        same_name = normalise_name(found.name) == normalise_name(disorder.name)
        assert found.orpha_code == code or same_name


@pytest.mark.parametrize(
    ("name", "common"),
    [
        ("Type 2 diabetes mellitus", True),
        ("influenza", True),
        ("Crohn disease", True),
        ("Marfan syndrome", False),
        ("", False),
    ],
)
def test_common_conditions_are_known_by_name(name: str, common: bool) -> None:
    assert looks_common(name) == common


def test_there_are_33_heads() -> None:
    assert len(HEADS) == 33
    assert len(set(HEADS.values())) == 33
    assert HEADS["ORPHA:98006"] == "Rare neurologic disease"


def test_tables_give_heads_leave_groups_out_and_flag_common_disorders(tmp_path: Path) -> None:
    tables = {
        "linearisation": "orpha_code,name,target_disorder_code\n"
        "1,Alpha disease,98006\n2,Beta group,98006\n3,Gamma disease,89826\n",
        "natural_history": "orpha_code,disorder_group\n",
        "epidemiology": "orpha_code,disorder_group,prevalence_type,prevalence_class\n"
        "2,Group of disorders,Point prevalence,Unknown\n"
        "3,Disorder,Point prevalence,>1 / 1000\n1,Disorder,Annual incidence,>1 / 1000\n",
    }
    for name, text in tables.items():
        path = tmp_path / f"{name}_of_rare_diseases.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))
    resolve = load_index(tmp_path).resolve
    assert resolve("alpha disease") == Disorder("ORPHA:1", "Alpha disease", HEADS["ORPHA:98006"])
    assert resolve("It is gamma disease.") == Disorder(
        "ORPHA:3", "Gamma disease", HEADS["ORPHA:89826"], common=True
    )
    assert resolve("Beta group") is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, r"linearisation.*missing"),
        (gzip.compress(b"orpha")[:9], "not a readable gzip CSV"),
        (gzip.compress(b"a,b\n1,2\n"), "no column orpha_code"),
    ],
    ids=["missing", "torn", "foreign"],  # gzip writes the time: bytes are no stable test name
)
def test_missing_torn_and_foreign_tables_are_named(
    tmp_path: Path, content: bytes | None, named: str
) -> None:
    if content:
        (tmp_path / "linearisation_of_rare_diseases.csv.gz").write_bytes(content)
    with pytest.raises(BadInputError, match=named):
        load_index(tmp_path)


@corpora
@pytest.mark.corpora
def test_heads_and_synonyms_agree_with_orphadata() -> None:
    folder = Path(str(CORPORA)) / "orphanet"
    with gzip.open(folder / "linearisation_of_rare_diseases.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    targets = {
        f"ORPHA:{row['target_disorder_code']}": row["target_disorder_name"]
        for row in rows
        if row["target_disorder_code"]
    }
    assert targets.items() <= HEADS.items()
    names = {f"ORPHA:{row['orpha_code']}": row["name"] for row in rows}
    assert all(names[code] == HEADS[code] for code in set(HEADS) - set(targets))
    assert all(row["orpha_code"] in names for row in packaged_rows("disease_synonyms.tsv"))
