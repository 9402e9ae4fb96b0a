"""Profiles as installed, the hpoa format, and the packaged table of common conditions."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import (
    CLASS_FREQUENCY,
    information_content,
    load_common_conditions,
    load_common_profiles,
    load_rare_profiles,
    parse_frequency,
    parse_hpoa,
)
from rarealert.knowledge.rare_diseases import load_rare_facts

PLAUSIBLE = {
    "height": ("cm", 45, 210),
    "weight": ("kg", 2, 200),
    "head_circumference": ("cm", 30, 65),
    "bmi": ("kg/m2", 12, 60),
    "systolic_pressure": ("mmHg", 50, 230),
    "diastolic_pressure": ("mmHg", 30, 140),
    "pulse": ("/min", 30, 220),
    "respiratory_rate": ("/min", 6, 80),
    "oxygen_saturation": ("%", 60, 100),
    "temperature": ("C", 30, 42),
    "hemoglobin": ("g/dL", 4, 22),
    "mcv": ("fL", 55, 130),
    "leucocytes": ("10*9/L", 0.5, 300),
    "platelets": ("10*9/L", 2, 1500),
    "crp": ("mg/L", 0, 500),
    "esr": ("mm/h", 0, 140),
    "glucose": ("mmol/L", 1, 60),
    "hba1c": ("mmol/mol", 20, 170),
    "creatinine": ("umol/L", 20, 1000),
    "urea": ("mmol/L", 1, 60),
    "sodium": ("mmol/L", 110, 170),
    "potassium": ("mmol/L", 2, 8),
    "calcium": ("mmol/L", 1.2, 4),
    "alt": ("U/L", 5, 6000),
    "ast": ("U/L", 5, 6000),
    "alp": ("U/L", 20, 2000),
    "bilirubin": ("umol/L", 2, 500),
    "albumin": ("g/L", 10, 55),
    "ck": ("U/L", 20, 100000),
    "tsh": ("mU/L", 0, 150),
    "cholesterol": ("mmol/L", 1, 15),
    "urine_protein": ("mg/mmol", 0, 1500),
}
"""Unit and bounds of every analyte that a condition's usual values may name."""

FEVER, SEIZURE = "HP:0001945", "HP:0001250"


def row(code: str, name: str, hpo_id: str, frequency: str, qualifier: str = "") -> str:
    return "\t".join((code, name, qualifier, hpo_id, "", "TAS", "", frequency, "", "", "P", ""))


def test_installed_profiles_hold_what_orphanet_annotated() -> None:
    profiles = {profile.disease_id: profile for profile in load_rare_profiles()}
    assert len(profiles) == 4281
    marfan = profiles["ORPHA:558"]
    assert marfan.name == "Marfan syndrome"
    assert all(0 <= finding.frequency <= 1 for finding in marfan.findings)
    assert len({finding.hpo_id for finding in marfan.findings}) == len(marfan.findings)


def test_excluded_findings_are_flagged_and_never_counted_as_present() -> None:
    lines = [
        row("ORPHA:1", "A", FEVER, "HP:0040285"),
        row("ORPHA:1", "A", SEIZURE, "HP:0040281"),
        row("ORPHA:2", "B", SEIZURE, "3/4", qualifier="NOT"),
        row("ORPHA:3", "C", SEIZURE, "0/7"),
        row("OMIM:1", "D", SEIZURE, "1/1"),
    ]
    profiles = parse_hpoa(lines, load_ontology())
    assert [profile.disease_id for profile in profiles] == ["ORPHA:1", "ORPHA:2", "ORPHA:3"]
    flags = [[finding.excluded for finding in profile.findings] for profile in profiles]
    assert flags == [[True, False], [True], [True]]
    content = information_content(profiles, load_ontology())
    assert content[SEIZURE] == pytest.approx(math.log(3))
    assert FEVER not in content


def test_onset_is_taken_from_the_omim_entry_of_the_same_name() -> None:
    onset = row("OMIM:9", "Wilson's disease", "HP:0003621", "").replace("\tP\t", "\tC\t")
    lines = [row("ORPHA:905", "Wilson disease", SEIZURE, "HP:0040282"), onset]
    assert parse_hpoa(lines, load_ontology())[0].onset == ("HP:0003621",)


def test_a_truncated_row_is_named() -> None:
    with pytest.raises(BadInputError, match="line 1 has 3 columns"):
        parse_hpoa(["ORPHA:1\tA\t"], load_ontology())


@given(st.integers(0, 500), st.integers(1, 500))
def test_ratios_and_percentages_agree(affected: int, more: int) -> None:
    examined = affected + more
    share, name = parse_frequency(f"{affected}/{examined}")
    percent, same = parse_frequency(f"{100 * affected / examined}%")
    assert share == pytest.approx(affected / examined)
    assert percent == pytest.approx(share)
    assert name == same or share != percent  # rounding at the edge of a class


@pytest.mark.parametrize("text", ["", "x", "3/0", "5/4", "120%", "HP:0000001"])
def test_what_is_no_frequency_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_frequency(text)


def test_information_grows_towards_the_leaves() -> None:
    ontology = load_ontology()
    content = information_content(load_rare_profiles(), ontology)
    assert content["HP:0000118"] == 0
    for term in sorted(content)[::53]:
        for parent in ontology.terms[term].parents:
            assert content[parent] <= content[term]


def test_every_packaged_finding_is_a_living_phenotype_under_its_own_label() -> None:
    ontology = load_ontology()
    for table in ("condition_findings", "wordings"):
        rows = packaged_rows(table)
        wrong = [r for r in rows if ontology.terms[r["hpo_id"]].name != r["hpo_name"]]
        assert not wrong
        assert all(ontology.is_phenotype(r["hpo_id"]) for r in rows)


def test_common_conditions_are_many_complete_and_plausible() -> None:
    conditions = load_common_conditions()
    assert len(conditions) >= 900
    assert len({c.profile.disease_id for c in conditions}) == len(conditions)
    for condition in conditions:
        assert 0 <= condition.age_min <= condition.age_max <= 120
        assert condition.visits_per_1000 > 0
        assert condition.course in {"acute", "subacute", "chronic"}
        assert 7 <= len(condition.profile.findings) <= 20
        assert len({f.hpo_id for f in condition.profile.findings}) == len(
            condition.profile.findings
        )
    named = {c.profile.name for c in conditions}
    assert {row["condition"] for row in packaged_rows("condition_findings")} == named
    assert all(row["source_note"] for row in packaged_rows("conditions"))


def test_common_conditions_reach_every_age_and_most_organ_systems() -> None:
    conditions, ontology = load_common_conditions(), load_ontology()
    for age in (0, 1, 5, 12, 30, 60, 90):
        assert sum(c.age_min <= age <= c.age_max for c in conditions) >= 15
    systems = Counter(
        system
        for profile in load_common_profiles()
        for finding in profile.findings
        for system in ontology.organ_systems(finding.hpo_id)
    )
    assert sum(count >= 10 for count in systems.values()) >= 16


def test_supplements_of_rare_diseases_are_annotated_orphanet_diseases_with_plausible_facts() -> (
    None
):
    names = {profile.disease_id: profile.name for profile in load_rare_profiles()}
    ontology = load_ontology()
    for row in (*packaged_rows("rare_facts"), *packaged_rows("rare_findings")):
        assert names[row["orpha_code"]] == row["name"]
        assert row["source_note"]
    for row in packaged_rows("rare_findings"):
        assert ontology.terms[row["hpo_id"]].name == row["hpo_name"]
        assert ontology.is_phenotype(row["hpo_id"])
    for fact in load_rare_facts().values():
        assert 0 < fact.per_100000 <= 100
        assert 0 <= fact.age_min < fact.age_max <= 120


def test_mimics_are_orphanet_diseases_under_their_own_name() -> None:
    names = {profile.disease_id: profile.name for profile in load_rare_profiles()}
    for row in packaged_rows("conditions"):
        assert names[row["mimics_code"]] == row["mimics"]
        assert normalise_name(row["condition"]) != normalise_name(row["mimics"])


def test_usual_values_are_of_a_known_condition_analyte_and_unit_and_plausible() -> None:
    rows = packaged_rows("condition_values")
    assert {row["condition"] for row in rows} <= {c.profile.name for c in load_common_conditions()}
    pairs = Counter((row["condition"], row["analyte"]) for row in rows)
    assert max(pairs.values()) == 1
    for condition in load_common_conditions():
        for value in condition.values:
            unit, lowest, highest = PLAUSIBLE[value.analyte]
            assert value.unit == unit
            assert lowest <= value.low <= value.high <= highest
            assert value.frequency in CLASS_FREQUENCY


def test_no_condition_has_a_finding_below_one_that_it_excludes() -> None:
    ontology = load_ontology()
    for condition in load_common_conditions():
        findings = condition.profile.findings
        excluded = {finding.hpo_id for finding in findings if finding.excluded}
        for finding in findings:
            if not finding.excluded:
                assert not excluded & ontology.ancestors(finding.hpo_id), condition.profile.name


FEMALE_ONLY = {"Abnormal vaginal bleeding", "Abnormal vaginal discharge", "Dysmenorrhea"}
FEMALE_ONLY |= {"Amenorrhea", "Menorrhagia", "Oligomenorrhea", "Vaginal dryness"}
MALE_ONLY = {"Erectile dysfunction", "Scrotal pain", "Testicular pain", "Cryptorchidism"}


@pytest.mark.parametrize(("sex", "forbidden"), [("male", FEMALE_ONLY), ("female", MALE_ONLY)])
def test_a_condition_of_one_sex_has_no_finding_of_the_other(sex: str, forbidden: set[str]) -> None:
    terms = load_ontology().terms
    assert forbidden <= {term.name for term in terms.values()}
    for condition in load_common_conditions():
        if condition.profile.sex == sex:
            names = {terms[finding.hpo_id].name for finding in condition.profile.findings}
            assert not names & forbidden, condition.profile.name
