"""The embedded corpus: the same bytes for a seed, true to its profiles, and free of shortcuts."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rarealert.evaluation import controls as shortcuts
from rarealert.evaluation import shortcut_audit as audit
from rarealert.evaluation.controls import control_frame
from rarealert.evaluation.metrics import auroc
from rarealert.knowledge.heads import HEADS
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import load_common_profiles, load_rare_profiles
from rarealert.knowledge.recognise import findings_of, load_recogniser
from rarealert.params import SimulatedParams, load_params
from rarealert.simulation.corpus import materialise, simulate
from rarealert.simulation.text import _PLAIN_EXAM, _PLAIN_FAMILY, _PLAIN_HISTORY
from rarealert.simulation.vocabulary import load_vocabulary
from rarealert.simulation.world import MIN_FINDINGS, Disease, fits, load_world
from rarealert.visits.case import TEXT_FIELDS, LabelledCase
from rarealert.visits.diagnosis import names_diagnosis
from rarealert.visits.reading import render
from rarealert.visits.store import disease_groups, is_rare

ROOT = Path(__file__).parents[3]
FAMILY = "family_history"


def _params(rare: int, nonrare: int) -> SimulatedParams:
    whole = load_params(ROOT / "params.yaml").data.simulated
    return whole.model_copy(update={"rare_cases": rare, "nonrare_cases": nonrare})


@cache
def _corpus() -> tuple[LabelledCase, ...]:
    return tuple(simulate(_params(600, 600)))


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
    source = json.loads((tmp_path / "here" / "SOURCE.json").read_text())
    assert source["cases"] == {"rare": 20, "nonrare": 15}
    assert not list(tmp_path.rglob("*.partial"))


def test_every_line_is_a_labelled_case_and_absent_fields_are_absent(tmp_path: Path) -> None:
    materialise(_params(10, 10), tmp_path)
    lines = (tmp_path / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [LabelledCase.model_validate_json(line) for line in lines] == list(
        simulate(_params(10, 10))
    )
    assert not any("null" in line for line in lines)


def test_a_larger_corpus_begins_with_the_smaller_one() -> None:
    small = {item.case.case_id: item for item in simulate(_params(5, 5))}
    large = {item.case.case_id: item for item in simulate(_params(9, 12))}
    assert small.items() <= large.items()
    assert len(large) == 21


def test_another_seed_gives_other_cases() -> None:
    other = next(simulate(_params(1, 1).model_copy(update={"seed": 1})))
    assert other.case.case_id not in {item.case.case_id for item in _corpus()}


def test_the_case_id_says_nothing_of_the_label() -> None:
    assert all(len(item.case.case_id) == len(_corpus()[0].case.case_id) for item in _corpus())
    assert len({item.case.case_id for item in _corpus()}) == len(_corpus())


def test_text_and_coded_findings_say_the_same() -> None:
    for item in _corpus():
        fields = {name: getattr(item.case, name) for name in TEXT_FIELDS}
        present, excluded = findings_of(fields)
        assert set(item.case.findings_present or ()) == set(present)
        assert set(item.case.findings_excluded or ()) == set(excluded)


def test_plain_sentences_hold_no_finding() -> None:
    for text in (*_PLAIN_EXAM, *_PLAIN_FAMILY, *_PLAIN_HISTORY):
        assert load_recogniser().mentions(f"{text}.") == ()


def test_no_case_names_its_disease() -> None:
    for item in _corpus():
        assert not names_diagnosis(render(item.case), [item.label.disease_name])


def test_most_findings_come_from_the_disease_or_beside_or_above_it() -> None:
    ontology, siblings = load_ontology(), load_world().siblings
    profiles = {p.disease_id: p for p in (*load_rare_profiles(), *load_common_profiles())}
    exact, near = [], []
    for item in _corpus():
        profile = profiles[item.label.disease_id]
        own = frozenset().union(
            *(ontology.ancestors(f.hpo_id) for f in profile.findings if not f.excluded)
        )
        present = item.case.findings_present or ()
        around = own.union(*(siblings.get(term, ()) for term in own))
        exact.append(sum(term in own for term in present) / len(present))
        near.append(sum(term in around for term in present) / len(present))
    # Patients are not textbooks: many findings stand beside the annotated term, some far from it.
    assert 0.45 < np.mean(exact) < 0.85
    assert min(near) > 0.3
    assert np.mean(near) > 0.9


def test_nothing_needs_a_laboratory_a_scan_or_another_sex_or_age() -> None:
    names = [load_ontology().name(term).lower() for term in load_vocabulary()]
    for word in ("serum", "biopsy", "mri", "eeg", "radiograph", "chromosom", "circulating"):
        assert not any(word in name for name in names)
    vocabulary = load_vocabulary()
    for item in _corpus():
        for term in (*(item.case.findings_present or ()), *(item.case.findings_excluded or ())):
            assert vocabulary[term].sex in (None, item.case.sex)


def _disease_of(item: LabelledCase) -> Disease:
    world = load_world()
    return {**world.common, **world.rare_by_id}[item.label.disease_id]


def test_excluded_findings_never_occur_and_obligate_ones_are_never_denied() -> None:
    vocabulary, seen = load_vocabulary(), 0
    for item in _corpus():
        disease = _disease_of(item)
        seen += bool(disease.never or disease.always)
        for term in item.case.findings_present or ():
            assert not disease.never & vocabulary[term].ancestors
        assert not disease.always & set(item.case.findings_excluded or ())
    assert seen > 10


def test_an_obligate_finding_comes_as_itself_or_roughly() -> None:
    world, met = load_world(), 0
    for item in _corpus():
        disease, present = _disease_of(item), set(item.case.findings_present or ())
        fitting = [f for f in disease.findings if f.hpo_id in disease.always]
        fitting = [f for f in fitting if f.possible(item.case.age_years or 0, item.case.sex or "")]
        if len(fitting) == 1:
            met += 1
            assert present & {fitting[0].hpo_id, *world.parents[fitting[0].hpo_id]}
    assert met > 5


def test_every_rare_case_has_a_head_and_no_other_has() -> None:
    for item in _corpus():
        assert (item.label.orphanet_head in HEADS.values()) == (item.label.label == "rare")
        assert ("derived" in item.label.reason) == (item.label.label == "rare")


def test_rare_diseases_are_first_seen_when_their_onset_or_name_says() -> None:
    world = load_world()
    congenital = [d for d in world.rare if "congenital" in d.profile.name.lower().split()]
    unstated = [d for d in congenital if not d.profile.onset]
    assert len(unstated) > 20
    assert not any(fits(disease, 70, sex) for disease in unstated for sex in ("female", "male"))


def test_known_rare_diseases_come_more_often_than_curiosities() -> None:
    world = load_world()
    shares = np.diff(np.array((0.0, *world.rare_weights)))
    place = {disease.profile.disease_id: i for i, disease in enumerate(world.rare)}
    assert shares[place["ORPHA:586"]] > 3 * np.median(shares)  # cystic fibrosis
    assert shares.max() / shares.sum() < 0.01


def test_no_disease_dominates() -> None:
    counts = Counter(disease_groups(_corpus()))
    assert max(counts.values()) <= 0.05 * len(_corpus()) / 2
    world = load_world()
    assert len(world.rare) > 2500
    assert all(len(disease.findings) >= MIN_FINDINGS for disease in world.rare)


def _shortcut_auroc(features: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = GroupKFold(5, shuffle=True, random_state=0)
    risks = cross_val_predict(
        model, features, labels, groups=disease_groups(_corpus()), cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(labels, risks[:, 1]))


@pytest.mark.parametrize("shortcut", ["length", "missingness", "demographics"])
def test_no_shortcut_tells_the_label(shortcut: str) -> None:
    cases, texts = [item.case for item in _corpus()], [render(item.case) for item in _corpus()]
    features = {
        "length": [
            (len(t), len(t.split()), len(c.findings_present or ()), len(c.findings_excluded or ()))
            for c, t in zip(cases, texts, strict=True)
        ],
        "missingness": [[getattr(case, name) is None for name in TEXT_FIELDS] for case in cases],
        "demographics": [
            (case.age_years, (case.age_years or 0) < 18, case.sex == "male") for case in cases
        ],
    }
    labels = np.array(is_rare(_corpus()))
    assert _shortcut_auroc(np.array(features[shortcut], dtype=float), labels) <= 0.60


@pytest.mark.parametrize("seed", [None, 4])
def test_no_control_of_the_audit_tells_the_label(seed: int | None) -> None:
    whole = load_params(ROOT / "params.yaml").data.simulated
    cases = tuple(simulate(whole if seed is None else whole.model_copy(update={"seed": seed})))
    frame, rare = control_frame([item.case for item in cases]), np.array(is_rare(cases), float)
    groups = np.array(disease_groups(cases))
    for name in ("length", "missingness", "demographics", "punctuation"):
        prepare = {name: shortcuts._PREPARE[name]}
        with pytest.MonkeyPatch.context() as only:
            only.setattr(shortcuts, "_PREPARE", prepare)
            only.setattr(audit, "CONTROLS", tuple(prepare))
            risk = audit.out_of_fold(frame, rare, groups, seed=0)[name]
        assert auroc(rare, risk) <= audit.LIMIT, name


def test_words_tell_the_label_but_not_trivially() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    texts = [render(item.case) for item in _corpus()]
    labels = np.array(is_rare(_corpus()))
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(max_iter=1000))
    folds = GroupKFold(5, shuffle=True, random_state=0)
    risks = cross_val_predict(
        model, texts, labels, groups=disease_groups(_corpus()), cv=folds, method="predict_proba"
    )
    assert 0.68 <= roc_auc_score(labels, risks[:, 1]) <= 0.90


def test_a_thousand_cases_a_second() -> None:
    load_world()
    started = time.process_time()
    drawn = sum(1 for _ in simulate(_params(200, 200)))
    assert drawn / (time.process_time() - started) >= 700  # 1,000 on an idle machine


def test_family_history_names_findings_of_relatives_only() -> None:
    told = [item.case.family_history or "" for item in _corpus()]
    assert any(text.startswith(("Mother has", "Father has")) for text in told)
    assert all(findings_of({FAMILY: text}) == ((), ()) for text in told)


@pytest.mark.scale
@pytest.mark.timeout(600)
def test_160_000_cases_take_three_minutes_and_four_gigabytes(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; "
        "from rarealert.params import SimulatedParams; "
        "from rarealert.simulation.corpus import materialise; "
        "materialise(SimulatedParams.model_validate_json(sys.argv[1]), Path(sys.argv[2])); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    command = [sys.executable, "-c", program, _params(80_000, 80_000).model_dump_json()]
    done = subprocess.run([*command, str(tmp_path)], check=True, capture_output=True, text=True)
    seconds, kilobytes = (float(figure) for figure in done.stdout.split())
    assert seconds < 180
    assert kilobytes < 4 * 1024**2
