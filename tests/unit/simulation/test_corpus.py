"""The embedded corpus: the same bytes for a seed, true to its profiles, and free of shortcuts."""

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from rarealert.evaluation.controls import control_frame
from rarealert.evaluation.shortcut_audit import LIMIT, out_of_fold
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.heads import HEADS
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import load_common_profiles, load_rare_profiles
from rarealert.params import SimulatedParams, load_params
from rarealert.simulation.corpus import materialise, simulate
from rarealert.simulation.vocabulary import load_vocabulary
from rarealert.simulation.world import MIN_FINDINGS, SimulatedDisease, fits, load_world
from rarealert.visits.case import LabelledCase
from rarealert.visits.diagnosis import names_diagnosis
from rarealert.visits.reading import read_visit, render
from rarealert.visits.store import disease_groups, is_rare

ROOT = Path(__file__).parents[3]


def _params(rare: int, nonrare: int) -> SimulatedParams:
    whole = load_params(ROOT / "params.yaml").data.simulated
    return whole.model_copy(update={"rare_cases": rare, "nonrare_cases": nonrare})


@cache
def _corpus() -> tuple[LabelledCase, ...]:
    return tuple(simulate(_params(500, 500)))


def _disease_of(item: LabelledCase) -> SimulatedDisease:
    world = load_world()
    return {**world.common, **world.rare_by_id}[item.label.disease_id]


def test_a_seed_gives_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    materialise(_params(20, 15), tmp_path / "here")
    program = (
        "import sys; from pathlib import Path; from rarealert.params import SimulatedParams; "
        "from rarealert.simulation.corpus import materialise; "
        "materialise(SimulatedParams.model_validate_json(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", program, _params(20, 15).model_dump_json(), str(tmp_path / "there")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    for name in ("cases.jsonl", "SOURCE.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "SOURCE.json", "cases.jsonl"]  # fmt: skip
    source = json.loads((tmp_path / "here" / "SOURCE.json").read_text())
    assert source["cases"] == {"rare": 20, "nonrare": 15}
    lines = (tmp_path / "here" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [LabelledCase.model_validate_json(line) for line in lines] == list(
        simulate(_params(20, 15))
    )
    assert not any("null" in line for line in lines)


def test_a_larger_corpus_begins_with_the_smaller_one_and_another_seed_differs() -> None:
    small = {item.case.case_id: item for item in simulate(_params(5, 5))}
    large = {item.case.case_id: item for item in simulate(_params(9, 12))}
    assert small.items() <= large.items()
    assert len(large) == 21
    other = simulate(_params(9, 12).model_copy(update={"seed": 1}))
    assert not {item.case.case_id for item in other} & large.keys()


def test_case_ids_do_not_reveal_the_label() -> None:
    ids = {item.case.case_id for item in _corpus()}
    assert len(ids) == len(_corpus())
    assert len({len(case_id) for case_id in ids}) == 1


def test_text_and_coded_findings_agree_and_relatives_findings_are_the_relatives() -> None:
    affected = coded = missed = denied = misread = 0
    for item in _corpus():
        reading = read_visit(item.case)
        present, absent = (
            set(item.case.findings_present or ()),
            set(item.case.findings_excluded or ()),
        )
        coded, missed = coded + len(present), missed + len(present - set(reading.affirmed))
        denied, misread = denied + len(absent), misread + len(absent & set(reading.affirmed))
        assert not present & absent
        affected += bool(reading.relatives)
    assert missed < 0.05 * coded  # typing errors and shorthand
    assert misread < 0.3 * denied
    assert 0.1 < affected / len(_corpus()) < 0.4


def test_no_case_names_its_disease() -> None:
    for item in _corpus():
        assert not names_diagnosis(render(item.case), [item.label.disease_name])


def test_most_findings_are_those_of_the_disease_or_near_them() -> None:
    ontology, siblings = load_ontology(), load_world().siblings
    profiles = {p.disease_id: p for p in (*load_rare_profiles(), *load_common_profiles())}
    exact, near = [], []
    for item in _corpus():
        profile = profiles[item.label.disease_id]
        own = frozenset().union(
            *(ontology.ancestors(f.hpo_id) for f in profile.findings if not f.excluded)
        )
        present = item.case.findings_present or ()
        if not present:
            continue
        around = own.union(*(siblings.get(term, ()) for term in own))
        exact.append(sum(term in own for term in present) / len(present))
        near.append(sum(term in around for term in present) / len(present))
    # everyday findings and known conditions beside those of the disease
    assert 0.5 < np.mean(exact) < 0.85
    assert np.mean(near) > 0.6


def test_no_finding_needs_a_laboratory_a_scan_or_another_sex() -> None:
    names = [load_ontology().name(term).lower() for term in load_vocabulary()]
    for word in ("serum", "biopsy", "mri", "eeg", "radiograph", "chromosom", "circulating"):
        assert not any(word in name for name in names)
    vocabulary = load_vocabulary()
    for item in _corpus():
        for term in (*(item.case.findings_present or ()), *(item.case.findings_excluded or ())):
            finding = vocabulary.get(term)  # a known condition may be missing there
            assert finding is None or finding.sex in (None, item.case.sex)


def test_terms_of_a_first_visit_have_the_names_of_their_ids() -> None:
    rows = packaged_rows("visit_terms.tsv", "rarealert.simulation")
    assert len({(row["role"], row["hpo_id"]) for row in rows}) == len(rows)
    assert all(load_ontology().terms[row["hpo_id"]].name == row["hpo_name"] for row in rows)


def test_excluded_findings_never_occur_and_obligate_ones_are_present_or_imprecise() -> None:
    world, with_rules, obligate = load_world(), 0, 0
    for item in _corpus():
        disease, present = _disease_of(item), set(item.case.findings_present or ())
        with_rules += bool(disease.never or disease.always)
        assert not any(disease.never & load_ontology().ancestors(term) for term in present)
        assert not disease.always & set(item.case.findings_excluded or ())
        always = [f for f in disease.findings if f.hpo_id in disease.always]
        always = [f for f in always if f.possible(item.case.age_years or 0, item.case.sex or "")]
        if len(always) == 1 and len(present) > 2:  # of which two may be known conditions
            obligate += 1
            assert present & {always[0].hpo_id, *world.parents[always[0].hpo_id]}
    assert with_rules > 10
    assert obligate > 5


def test_every_rare_case_has_a_head_and_no_other_has() -> None:
    for item in _corpus():
        assert (item.label.orphanet_head in HEADS.values()) == (item.label.label == "rare")


def test_congenital_diseases_have_no_first_visit_in_old_age() -> None:
    world = load_world()
    congenital = [d for d in world.rare if "congenital" in d.profile.name.lower().split()]
    unstated = [d for d in congenital if not d.profile.onset]
    assert len(unstated) > 20
    assert not any(fits(disease, 70, sex) for disease in unstated for sex in ("female", "male"))


def test_better_known_rare_diseases_are_more_frequent_and_none_dominates() -> None:
    world = load_world()
    shares = np.diff(np.array((0.0, *world.rare_weights)))
    place = {disease.profile.disease_id: i for i, disease in enumerate(world.rare)}
    assert shares[place["ORPHA:586"]] > 3 * np.median(shares)  # cystic fibrosis
    assert shares.max() / shares.sum() < 0.01
    assert len(world.rare) > 2500
    assert all(len(disease.findings) >= MIN_FINDINGS for disease in world.rare)
    assert max(Counter(disease_groups(_corpus())).values()) <= 0.05 * len(_corpus()) / 2


def test_no_control_predicts_the_label_and_words_do_not_trivially() -> None:
    from sklearn.metrics import roc_auc_score

    rare, groups = np.array(is_rare(_corpus()), float), np.array(disease_groups(_corpus()))
    risks = out_of_fold(control_frame([item.case for item in _corpus()]), rare, groups, seed=0)
    reached = {name: roc_auc_score(rare, risk) for name, risk in risks.items()}
    assert 0.55 <= reached.pop("tfidf") <= 0.90
    assert {"length", "missingness", "demographics", "punctuation"} <= reached.keys()
    assert {name: value for name, value in reached.items() if value > LIMIT} == {}
