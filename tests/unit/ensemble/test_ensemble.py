"""The blend, targets that do not leak, and the frozen file."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rarealert.ensemble.algorithms import ALGORITHMS, fit_pipeline, raw_scores
from rarealert.ensemble.ensemble import BLENDS, choose_blend, cross_fit, load_ensemble
from rarealert.ensemble.search import Candidate, Search, Trial
from rarealert.errors import BadInputError


def test_a_stack_weighs_informative_members_and_never_negatively() -> None:
    random = np.random.default_rng(7)
    rare = random.random(600) < 0.5
    scores = np.column_stack(
        [1 / (1 + np.exp(-random.normal(rare * sign * 1.5, 1))) for sign in (1, 1, 0, -1)]
    )
    weights, fold = np.ones(600), np.arange(600) % 4
    blend, held_out = choose_blend(scores, rare, weights, fold)
    assert blend.method == "stack"
    assert min(blend.weights[:2]) > 0.2
    assert blend.weights[3] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(held_out).all()
    assert BLENDS["best"](scores, rare, weights).weights[2:] == (0.0, 0.0)


def test_in_fold_targets_would_leak_and_cross_fitted_ones_do_not(noise) -> None:
    """A teacher gives away the disease, so that a forest can learn the labels by heart."""
    data = noise(300, 6, 8)
    codes = np.random.default_rng(0).permutation(np.unique(data.disease).size) / 200
    data.values[:, 5] = codes[np.unique(data.disease, return_inverse=True)[1]]
    greedy = {"min_samples_leaf": 1, "max_features": 1.0}
    in_fold = fit_pipeline("extra_trees", greedy, data.values, data.rare, data.weights(), seed=1)
    assert roc_auc_score(data.rare, raw_scores(in_fold, data.values)) > 0.99
    fold, trial = data.folds(4, 1), Trial("t", Candidate("extra_trees", "risk", greedy), (0.5,) * 4)
    found = Search((trial,), fold, {"risk": np.arange(6)}, out_of_time=False)
    targets = cross_fit(data, found, 4, 1).risks(data.values)
    assert 0.38 < roc_auc_score(data.rare, targets) < 0.62


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_the_loaded_ensemble_answers_as_the_saved_one(algorithm: str, frozen, tmp_path) -> None:
    ensemble, answers = frozen(algorithm)
    ensemble.save(tmp_path / "model.skops")
    loaded = load_ensemble(tmp_path / "model.skops")
    assert loaded.predict(answers) == ensemble.predict(answers)
    assert (loaded.thresholds, loaded.cuts) == ({"t": 0.5}, ensemble.cuts)
    values = np.random.default_rng(0).random((9, len(ensemble.familiarity.mean)))
    assert (loaded.unfamiliarity(values) == ensemble.unfamiliarity(values)).all()
    assert 0 <= loaded.predict([answers[0]])[answers[0].case_id] <= 1  # one teacher of three
    assert loaded.predict([]) == {}


def test_the_same_inputs_give_the_same_bytes(frozen, tmp_path: Path) -> None:
    for name in ("one", "two"):
        frozen("extra_trees")[0].save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_foreign_broken_or_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    from skops.io import dump

    dump({"blocks": Trial("t", Candidate("logistic", "risk", {}), ())}, tmp_path / "foreign.skops")
    dump({"blocks": []}, tmp_path / "older.skops")
    (tmp_path / "broken.skops").write_bytes(b"not a zip")
    for name in ("foreign", "older", "broken", "missing"):
        with pytest.raises(BadInputError, match=rf"{name}\.skops"):
            load_ensemble(tmp_path / f"{name}.skops")
