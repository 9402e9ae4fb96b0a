"""No leak by who was asked, by disease or by fold; calibration; the frozen file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rarealert.ensemble.algorithms import (
    ALGORITHMS,
    NeutralImputer,
    fit_pipeline,
    independence_weights,
    raw_scores,
)
from rarealert.ensemble.ensemble import Ensemble, cross_fit, fit_model, freeze, load_ensemble
from rarealert.ensemble.features import FeatureMatrix, build_features
from rarealert.ensemble.folds import TrainingSet, check_learnable, disease_folds, drawn_in_folds
from rarealert.ensemble.search import Candidate, Judge, Search, search
from rarealert.ensemble.signals import panel_of
from rarealert.errors import BadInputError
from rarealert.teachers.answer import AnswerRow, TeacherAnswer


def _noise(
    cases: int, teachers: int, seed: int, rare_share: float = 0.4
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]:
    rng = np.random.default_rng(seed)
    rare = rng.random(cases) < rare_share
    disease = np.asarray(
        [f"{int(r)}-{n}" for r, n in zip(rare, rng.integers(0, 60, cases), strict=True)]
    )
    return rng.integers(0, 101, (cases, teachers)) / 100, rare, disease


def _cross_fitted(data: TrainingSet, algorithm: str) -> NDArray[np.float64]:
    fold, scores = disease_folds(data, 4, 1), np.empty(len(data.rare))
    for number in np.unique(fold):
        out = fold == number
        inside = data.part(~out)
        settings = ALGORITHMS[algorithm].default
        model = fit_pipeline(algorithm, settings, inside.values, inside.rare, 1)
        scores[out] = raw_scores(model, data.values[out])
    return scores


@pytest.mark.parametrize("algorithm", ["logistic", "random_forest", "hist_gradient_boosting"])
@pytest.mark.parametrize(("answers_rare", "answers_others"), [(1.0, 0.0), (0.9, 0.15)])
def test_who_answered_can_not_be_exploited(
    algorithm: str, answers_rare: float, answers_others: float
) -> None:
    values, rare, disease = _noise(900, 3, seed=5)
    rng = np.random.default_rng(6)
    asked = rng.random(900) < np.where(rare, answers_rare, answers_others)
    assert roc_auc_score(rare, asked) > 0.85  # the shortcut is there to be taken
    values[~asked, 2] = np.nan
    scores = _cross_fitted(TrainingSet(values, rare, disease), algorithm)
    assert 0.42 < roc_auc_score(rare, scores) < 0.58


@pytest.mark.parametrize("algorithm", ["logistic", "random_forest"])
def test_block_missing_panels_do_not_tell_their_source(algorithm: str) -> None:
    rng = np.random.default_rng(3)
    first = rng.random(900) < 0.5
    values, _, _ = _noise(900, 4, seed=4)
    rare = rng.random(900) < np.where(first, 0.7, 0.3)
    disease = np.asarray(
        [f"{int(r)}-{n}" for r, n in zip(rare, rng.integers(0, 60, 900), strict=True)]
    )
    values[np.ix_(first, [2, 3])] = np.nan
    values[np.ix_(~first, [0, 1])] = np.nan
    scores = _cross_fitted(TrainingSet(values, rare, disease), algorithm)
    assert 0.42 < roc_auc_score(rare, scores) < 0.58


def test_weights_make_label_and_pattern_independent() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.5
    rare = rng.random(2000) < np.where(first, 0.7, 0.3)
    values = np.where(first[:, None], [[0.5, np.nan]], [[np.nan, 0.5]])
    weights = independence_weights(values, rare)
    shares = [np.average(rare[of], weights=weights[of]) for of in (first, ~first)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_no_gaps_no_weights() -> None:
    values, rare, _ = _noise(50, 2, seed=0)
    assert (independence_weights(values, rare) == 1).all()


def test_neutral_fill_lies_between_the_classes_and_silences_one_sided_columns() -> None:
    values = np.asarray([[0.8, 0.5], [np.nan, 0.5], [0.2, np.nan], [0.2, np.nan]])
    rare = np.asarray([True, True, False, False])
    filled = NeutralImputer().fit(values, rare).transform(values)
    assert filled[1, 0] == pytest.approx(0.5)
    assert (filled[:, 1] == 0).all()


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_odd_panels_give_sound_scores(algorithm: str) -> None:
    values, rare, _ = _noise(80, 3, seed=1)
    values[:, 1], values[:, 2] = 0.5, np.nan
    for columns in ([0], [1], [2], [0, 1, 2]):
        model = fit_pipeline(algorithm, ALGORITHMS[algorithm].default, values[:, columns], rare, 1)
        scores = raw_scores(model, values[:, columns])
        assert ((scores >= 0) & (scores <= 1)).all()


def test_folds_cut_no_disease_and_shrink_with_few_diseases() -> None:
    values, rare, disease = _noise(300, 1, seed=2)
    fold = disease_folds(TrainingSet(values, rare, disease), 5, 1)
    assert all(np.unique(fold[disease == one]).size == 1 for one in np.unique(disease))
    few = np.asarray([f"{int(r)}-{n % 3}" for n, r in enumerate(rare)])
    assert disease_folds(TrainingSet(values, rare, few), 5, 1).max() == 2


def _huge_and_few(rare_diseases: int, huge: int) -> TrainingSet:
    """A few rare diseases, and as many others, of which one holds most cases."""
    sizes = [20] * rare_diseases + [huge] + [20] * rare_diseases
    disease = np.repeat([f"d{place}" for place in range(len(sizes))], sizes).astype(np.str_)
    rare = np.repeat([place < rare_diseases for place in range(len(sizes))], sizes)
    values = np.random.default_rng(1).normal(size=(len(rare), 3)) + rare[:, None]
    return TrainingSet(values, rare, disease, values)


@pytest.mark.parametrize("seed", range(8))
def test_a_draw_to_search_on_keeps_every_fold_and_label(seed: int) -> None:
    data = _huge_and_few(6, 1500)
    fold = disease_folds(data, 5, seed)
    drawn = drawn_in_folds(data.rare, fold, 300, seed)
    assert drawn.sum() == 300
    strata = set(zip(fold.tolist(), data.rare.tolist(), strict=True))
    kept = set(zip(fold[drawn].tolist(), data.rare[drawn].tolist(), strict=True))
    assert kept == strata
    assert drawn_in_folds(data.rare, fold, len(fold), seed).all()


def test_a_search_on_a_draw_survives_one_huge_disease(tmp_path: Path) -> None:
    data = _huge_and_few(6, 900)
    names = ("risk:a", "risk:b", "risk:c")
    features = FeatureMatrix(tuple(map(str, range(len(data.rare)))), names, data.values)
    asked = {"folds": 5, "repeats": 2, "trials": 1, "timeout_s": 0.1, "most_cases": 200}
    for seed in range(4):
        found = search(data, features, **asked, seed=seed, storage=str(tmp_path / f"{seed}.log"))
        assert all(not np.isnan(trial.auroc) for trial in found.trials)


def test_a_fold_without_cases_or_with_one_class_beside_it_has_no_auroc() -> None:
    values, rare, disease = _noise(60, 2, seed=3)
    fold = np.where(rare, 0, 2)  # all rare cases in the first, none in the second
    columns = {"risk": np.arange(2)}
    candidate = Candidate("logistic", "risk", ALGORITHMS["logistic"].default)
    judge = Judge(TrainingSet(values, rare, disease), columns, fold, np.ones(60), 1)
    assert np.isnan(list(judge.folds(candidate))).tolist() == [True, True, True]
    fold[::2] = 0
    judge = Judge(TrainingSet(values, rare, disease), columns, fold, np.ones(60), 1)
    assert np.isnan(list(judge.folds(candidate))).tolist() == [True, True, True]


def test_one_class_is_refused_in_one_sentence() -> None:
    values, _, disease = _noise(30, 1, seed=2)
    data = TrainingSet(values, np.ones(30, dtype=bool), disease)
    with pytest.raises(BadInputError, match=r"train\.parquet: 0 diseases with label nonrare"):
        check_learnable(data, "train.parquet")


def _searched(data: TrainingSet, features: FeatureMatrix, journal: Path, trials: int = 1) -> Search:
    return search(
        data,
        features,
        folds=4,
        repeats=1,
        trials=trials,
        timeout_s=0.001,
        most_cases=1000,
        seed=1,
        storage=str(journal),
    )


def test_in_fold_targets_would_leak_and_ours_do_not(tmp_path: Path) -> None:
    """A teacher betrays which disease it is, so that a forest can learn the labels by heart."""
    values, rare, disease = _noise(300, 6, seed=8)
    codes = np.random.default_rng(0).permutation(np.unique(disease).size) / 200
    values[:, 5] = codes[np.unique(disease, return_inverse=True)[1]]
    data = TrainingSet(values, rare, disease)
    names = tuple(f"risk:{n}" for n in range(6))
    features = FeatureMatrix(tuple(f"c{n:03}" for n in range(300)), names, values)
    found = _searched(data, features, tmp_path / "study.log")
    assert found.out_of_time
    greedy = {"min_samples_leaf": 1, "max_features": 1.0}
    in_fold = fit_pipeline("random_forest", greedy, values, rare, 1)
    assert roc_auc_score(rare, raw_scores(in_fold, values)) > 0.99
    ours = cross_fit(data, found, 4, 1).risks(values)
    assert 0.38 < roc_auc_score(rare, ours) < 0.62


def _answers(seed: int, cases: int = 90) -> tuple[list[AnswerRow], dict[str, bool]]:
    rng = np.random.default_rng(seed)
    labels = {f"c{n:03}": bool(rng.random() < 0.5) for n in range(cases)}
    said = []
    for case, rare in labels.items():
        for teacher in ("a", "b"):
            risk = int(np.clip(rng.normal(65 if rare else 35, 15), 0, 100))
            answer = TeacherAnswer(insights=(), differential=(), risk=risk, explanation="because")
            said.append(AnswerRow(case_id=case, teacher=teacher, status="ok", answer=answer))
    return said, labels


def _frozen(*algorithms: str) -> tuple[Ensemble, list[AnswerRow]]:
    said, labels = _answers(seed=1)
    features = build_features(panel_of(said), (("a", "b"),))
    rare = np.asarray([labels[case] for case in features.case_ids])
    disease = np.asarray([f"{int(r)}-{n % 20}" for n, r in enumerate(rare)])
    candidates = [Candidate(one, "risk+spread", ALGORITHMS[one].default) for one in algorithms]
    data = TrainingSet(features.values, rare, disease)
    columns = {"risk+spread": features.columns("risk+spread")}
    model = fit_model(candidates, data, columns, 3, 1)
    valid = rare, model.risks(data.values)
    return freeze((("a", "b"),), model, {"t": 0.5}, valid, data.values), said


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_saved_ensemble_answers_the_same(algorithm: str, tmp_path: Path) -> None:
    ensemble, said = _frozen(algorithm)
    ensemble.save(tmp_path / "model.skops")
    loaded = load_ensemble(tmp_path / "model.skops")
    assert loaded.predict(said) == ensemble.predict(said)
    assert loaded.thresholds == {"t": 0.5}
    assert 0 <= loaded.predict([said[0]])[said[0].case_id] <= 1  # one teacher of two
    assert loaded.predict([]) == {}
    assert loaded.assess(said) == ensemble.assess(said)


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _frozen("random_forest")[0].save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_with_a_foreign_type_is_refused(tmp_path: Path) -> None:
    from skops.io import dump

    from rarealert.ensemble.search import Trial

    foreign = Trial("t", Candidate("logistic", "risk", {}), ())
    dump({"blocks": foreign}, tmp_path / "evil.skops")
    with pytest.raises(BadInputError, match="which no ensemble has"):
        load_ensemble(tmp_path / "evil.skops")


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.skops").write_bytes(b"not a zip")
    with pytest.raises(BadInputError, match=r"broken\.skops can't be read"):
        load_ensemble(tmp_path / "broken.skops")
    with pytest.raises(BadInputError, match="is missing"):
        load_ensemble(tmp_path / "none.skops")
