"""Shapley values, sets with stated coverage, strangers, what breaks, and studies that go on."""

import json
import math
from itertools import permutations
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
from numpy.typing import NDArray

from rarealert.ensemble.ensemble import METHODS, CrossFitted, choose_blend
from rarealert.ensemble.explanation import shapley_values
from rarealert.ensemble.folds import TrainingSet
from rarealert.ensemble.report import abstention_curve, coverages
from rarealert.ensemble.robustness import gather
from rarealert.ensemble.search import Judge, study_name, tune
from rarealert.ensemble.signals import panel_of
from rarealert.teachers.answer import AnswerRow, TeacherAnswer

Floats = NDArray[np.float64]


def _calibrated(cases: int, seed: int) -> tuple[NDArray[np.bool_], Floats]:
    rng = np.random.default_rng(seed)
    risks = rng.beta(0.6, 0.6, cases)
    return rng.random(cases) < risks, risks


def test_shapley_values_of_a_sum_are_exact_and_add_up() -> None:
    rng = np.random.default_rng(0)
    slopes, background, case = rng.normal(size=5), rng.normal(size=(7, 5)), rng.normal(size=5)
    values, base = shapley_values(lambda x: x @ slopes, case, background, [0, 2, 3, 4], rng)
    expected = slopes * (case - background.mean(axis=0))
    assert values == pytest.approx(expected[[0, 2, 3, 4]])
    unheard = background.copy()
    unheard[:, [0, 2, 3, 4]] = case[[0, 2, 3, 4]]
    assert base + values.sum() == pytest.approx((unheard @ slopes).mean())


def test_shapley_values_of_two_that_interact_are_those_of_all_orders() -> None:
    def function(x: Floats) -> Floats:
        return x[:, 0] * x[:, 1] + 3 * x[:, 2]

    rng = np.random.default_rng(1)
    case, background = rng.normal(size=3), rng.normal(size=(4, 3))
    exact = np.zeros(3)
    for order in permutations(range(3)):
        mixed = background.copy()
        for player in order:
            before = function(mixed).mean()
            mixed[:, player] = case[player]
            exact[player] += (function(mixed).mean() - before) / 6
    values, _ = shapley_values(function, case, background, [0, 1, 2], rng)
    assert values == pytest.approx(exact)


def test_sets_cover_as_stated_on_folds_that_did_not_set_them() -> None:
    rare, risks = _calibrated(1500, seed=2)
    for row in coverages(rare, risks, np.arange(1500) % 5):
        assert row.covered == pytest.approx(row.confidence, abs=0.03)


def test_abstaining_helps_where_risks_are_sound() -> None:
    rows = abstention_curve(*_calibrated(2000, seed=4))
    assert rows[0]["kept"] == 1
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.1


def test_a_stack_hears_whoever_knows_something_and_nobody_speaks_against_himself() -> None:
    rng = np.random.default_rng(7)
    rare = rng.random(600) < 0.5
    scores = np.column_stack(
        [1 / (1 + np.exp(-rng.normal(rare * sign * 1.5, 1))) for sign in (1, 1, 0, -1)]
    )
    weights, fold = np.ones(600), np.arange(600) % 4
    blend, held_out = choose_blend(scores, rare, weights, fold)
    assert blend.method == "stack"
    assert min(blend.weights[:2]) > 0.2
    assert blend.weights[3] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(held_out).all()
    assert METHODS["best"](scores, rare, weights).weights[2:] == (0.0, 0.0)


def _judge(cases: int = 90) -> Judge:
    rng = np.random.default_rng(8)
    rare = np.arange(cases) % 2 == 0
    values = np.clip(rng.normal(0.5 + 0.1 * rare[:, None], 0.2, (cases, 3)), 0, 1)
    disease = np.asarray([f"{n % 30}" for n in range(cases)])
    columns = {"risk": np.arange(2), "risk+spread": np.arange(3)}
    fold = np.arange(cases) % 30 % 3
    return Judge(TrainingSet(values, rare, disease), columns, fold, np.ones(cases), 3)


def _tuned(judge: Judge, trials: int, journal: Path) -> list[tuple[object, ...]]:
    found = tune(judge, ["naive_bayes"], trials=trials, storage=str(journal), deadline=math.inf)
    return [(one.candidate, one.folds, one.pruned) for one in found]


def test_a_study_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path) -> None:
    import optuna

    judge = _judge()
    whole = _tuned(judge, 7, tmp_path / "whole.log")
    first = _tuned(judge, 5, tmp_path / "broken.log")
    assert whole[:5] == first
    # a kill in the middle of the sixth trial leaves it running
    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "broken.log"))
    study = optuna.load_study(
        study_name=study_name(judge, "naive_bayes"), storage=optuna.storages.JournalStorage(file)
    )
    study.ask()
    assert _tuned(judge, 7, tmp_path / "broken.log") == whole


def test_other_data_are_another_study() -> None:
    assert study_name(_judge(), "logistic") != study_name(_judge(93), "logistic")


def test_studies_open_in_the_dashboard(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _tuned(_judge(), 2, tmp_path / "study.log")
    page = dashboard.wsgi(JournalStorage(JournalFileBackend(str(tmp_path / "study.log"))))
    told: list[str] = []
    asked: dict[str, object] = {"PATH_INFO": "/api/studies/0"}
    setup_testing_defaults(asked)
    answer = b"".join(page(asked, lambda status, *_: told.append(status)))
    assert told == ["200 OK"]
    assert len(json.loads(answer)["trials"]) == 2


def test_a_sample_of_the_evidence_keeps_what_belongs_together() -> None:
    rng = np.random.default_rng(3)
    answers = [
        AnswerRow(
            case_id=f"{n:02}",
            teacher=teacher,
            status="ok",
            answer=TeacherAnswer(insights=(), differential=(), risk=n, explanation="because"),
        )
        for n in range(40)
        for teacher in ("a", "b")
    ]
    rare, fold = rng.random(40) < 0.5, np.arange(40) % 5
    data = TrainingSet(rng.random((40, 2)), rare, np.arange(40).astype(str))
    whole = gather(panel_of(answers), (("a", "b"),), None, data, CrossFitted((), fold))
    assert whole.sample(40, 7) is whole
    drawn = whole.sample(12, 7)
    places = drawn.places.tolist()
    assert len(set(places)) == 12
    assert drawn.panel.case_ids == tuple(f"{place:02}" for place in places)
    assert (drawn.panel.risk[:, 0] * 100).round().tolist() == places
    assert drawn.data.rare.tolist() == rare[places].tolist()
    assert drawn.models.fold.tolist() == fold[places].tolist()
    assert drawn.sample(5, 7).places.tolist() != places
