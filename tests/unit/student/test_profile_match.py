"""The profile match agrees with the reasoners' engine, and each finding has its own share."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import (
    load_common_conditions,
    load_information_content,
    load_rare_profiles,
)
from rarealert.student.encoding import EncodedFinding, Facts
from rarealert.student.profile_match import (
    Library,
    ProfileMatch,
    load_library,
    make_library,
    packaged_library,
)
from rarealert.teachers.reasoners.engine import Workup, load_engine

FEVER, SEIZURE, FOCAL, RASH = "HP:0001945", "HP:0001250", "HP:0007359", "HP:0000988"
PTOSIS, DIPLOPIA, DYSPHAGIA = "HP:0000508", "HP:0000651", "HP:0002015"


def facts(*terms: str, age_years: float | None = None, sex: str | None = None) -> Facts:
    """A visit of fifty tokens whose finding number ``i`` is at token ``10 + i``."""
    ancestors = load_ontology().ancestors
    findings = (
        EncodedFinding(10 + place, tuple(sorted(int(name[3:]) for name in ancestors(term))))
        for place, term in enumerate(terms)
    )
    return Facts(tuple(findings), age_years, sex, first=5, length=50)


@pytest.fixture(scope="module")
def match() -> ProfileMatch:
    return ProfileMatch(packaged_library())


def total(match: ProfileMatch, visit: Facts) -> float:
    return sum(part for _, part in match.log_ratios(visit))


@pytest.mark.parametrize("terms", [(PTOSIS, DIPLOPIA, DYSPHAGIA), (FEVER, RASH), (SEIZURE,)])
@pytest.mark.parametrize(("age", "sex"), [(None, None), (70.0, "male"), (3.0, "female")])
def test_the_match_is_the_bayes_factor_over_the_profiles_of_the_reasoners(
    match, terms, age, sex
) -> None:
    engine = load_engine()
    work = Workup("", terms, (), (), age, sex)
    rare, common = (
        logsumexp(engine.joint_log_likelihood(table, work) + table.prior)
        - logsumexp(engine.demographic_log_likelihood(table, work) + table.prior)
        for table in (engine.rare, engine.common)
    )
    expected = (rare - common) / np.sqrt(len(terms))
    visit = facts(*terms, age_years=age, sex=sex)
    assert total(match, visit) == pytest.approx(expected, abs=1e-5)


def test_findings_of_a_rare_disease_raise_the_match_and_those_of_a_common_one_do_not(match) -> None:
    assert total(match, facts(PTOSIS, DIPLOPIA, DYSPHAGIA)) > 1  # myasthenia gravis
    flu = next(one for one in load_common_conditions() if one.profile.name == "Influenza")
    findings = [finding.hpo_id for finding in flu.profile.findings if not finding.excluded][:4]
    assert total(match, facts(*findings)) < 0


def test_each_share_is_at_its_finding_and_their_mean_over_tokens_is_the_ratio(match) -> None:
    visit = facts(PTOSIS, FEVER, age_years=40, sex="female")
    parts = match.log_ratios(visit)
    assert [position for position, _ in parts] == [5, 10, 11]
    ratios = match.at([visit, Facts(), visit], 50)
    assert ratios.shape == (3, 50)
    assert not ratios[1].any()
    assert ratios[0].mean() == pytest.approx(total(match, visit), rel=1e-5)
    assert np.flatnonzero(ratios[0]).tolist() == [at for at, part in parts if part]


def test_what_another_finding_implies_does_not_count_again(match) -> None:
    alone, both = facts(FOCAL), facts(FOCAL, SEIZURE)
    assert match.log_ratios(both) == match.log_ratios(alone)


def test_without_a_finding_no_disease_fits_better(match) -> None:
    assert match.log_ratios(facts(age_years=3, sex="female")) == []


@given(st.permutations([PTOSIS, DIPLOPIA, DYSPHAGIA, FEVER, RASH]))
def test_the_order_of_findings_changes_nothing(terms) -> None:
    match = ProfileMatch(packaged_library())
    assert total(match, facts(*terms)) == pytest.approx(
        total(match, facts(PTOSIS, DIPLOPIA, DYSPHAGIA, FEVER, RASH)), rel=1e-9
    )


def test_a_disease_that_is_removed_no_longer_fits() -> None:
    rare, conditions = load_rare_profiles(), load_common_conditions()
    gone = next(profile for profile in rare if profile.disease_id == "ORPHA:558")  # Marfan
    fewer = [profile for profile in rare if profile is not gone]
    content = load_information_content()
    both, one = (ProfileMatch(make_library(some, conditions, content)) for some in (rare, fewer))
    visit = facts(*[item.hpo_id for item in gone.findings if not item.excluded][:5])
    assert total(both, visit) > total(one, visit)


def test_a_library_is_read_back_as_it_was_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "profiles.safetensors"
    packaged_library().save(file)
    again = load_library(file)
    for field in dataclasses.fields(Library):
        assert np.array_equal(getattr(again, field.name), getattr(packaged_library(), field.name))
    assert file.stat().st_size < 6_000_000  # a clinic downloads it
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadInputError, match=r"profiles\.safetensors is missing or damaged"):
        load_library(file)
