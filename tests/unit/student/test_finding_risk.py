"""Finding risks: the fitted log-odds, where they are added, and the cache of a machine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rarealert.errors import BadInputError
from rarealert.student.activations import freeze_prompts
from rarealert.student.data import LabelledReading
from rarealert.student.encoding import EncodedFinding, Facts
from rarealert.student.examples import make_examples
from rarealert.student.finding_risk import FindingRisk, fit_finding_risk, load_finding_risk
from rarealert.student.network import RiskHead, batch_prompts, pool
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.trainer import load_training_base
from rarealert.visits.reading import read_visit


def test_terms_of_one_label_have_its_sign_and_uninformative_ones_are_zero() -> None:
    random = np.random.default_rng(1)
    rare = np.arange(200) % 2 == 0
    # 10: everywhere, 21: rare, 22: common, 33-38: either, 99: one example alone
    found = [
        [10, 21 if label else 22, *random.choice(range(33, 39), 3, replace=False)] for label in rare
    ]
    found[0].append(99)
    known = fit_finding_risk(found, [20] * 200, rare)
    log_odds = dict(zip(known.terms.tolist(), known.log_odds.tolist(), strict=True))
    assert log_odds[21] > 0.5
    assert log_odds[22] < -0.5
    assert log_odds[10] == log_odds[99] == 0
    assert max(abs(log_odds[term]) for term in range(33, 39)) < log_odds[21] / 4


def test_log_odds_are_added_at_the_first_finding_and_unknown_terms_add_nothing() -> None:
    known = FindingRisk(np.array([5, 9]), np.array([0.5, -2.0], dtype=np.float32))
    visits = [
        Facts((EncodedFinding(1, (5, 9)), EncodedFinding(3, (9, 10)))),
        Facts(),
        Facts((EncodedFinding(0, (4, 9)), EncodedFinding(2, (10,)))),
    ]
    assert known.at(visits, 4).tolist() == [[0, -1.5, 0, 0], [0, 0, 0, 0], [-2, 0, 0, 0]]
    nothing = FindingRisk(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    assert not nothing.at(visits, 4).any()


def test_a_machine_fits_once_for_each_set_of_held_out_diseases(
    chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    few = chosen.model_copy(update={"knowledge_cases": 60})
    loaded = load_training_base(few)

    def load(*held_out: str) -> FindingRisk:
        return load_finding_risk(loaded.base.digest, loaded.encoder, few, frozenset(held_out))

    first = load()
    assert first.terms.shape == first.log_odds.shape
    assert (np.diff(first.terms) > 0).all()
    assert np.abs(first.log_odds).max() > 0.1
    (cached,) = tmp_path.iterdir()
    written = cached.stat().st_mtime_ns
    again = load()
    assert np.array_equal(again.terms, first.terms)
    assert np.array_equal(again.log_odds, first.log_odds)
    load("ORPHA:589")
    assert len(list(tmp_path.iterdir())) == 2
    assert cached.stat().st_mtime_ns == written
    for damaged in (b"no array", cached.read_bytes()[:-30]):
        cached.write_bytes(damaged)
        with pytest.raises(BadInputError, match=cached.name):
            load()


def test_knowledge_columns_are_the_same_at_work_as_in_training(
    chosen, cases, tmp_path: Path
) -> None:
    trunk, encoder = (loaded := load_training_base(chosen)).trunk, loaded.encoder
    denying = cases[0].case.model_copy(update={"chief_complaint": "Cough, no fever."})
    some = [LabelledReading(read_visit(denying), cases[0].label), *cases[1:5]]
    examples = make_examples(some, {}, encoder).examples
    facts = [item.prompt.facts for item in examples]
    terms = np.unique([number for visit in facts for _, number in visit.implied()])
    odds = np.random.default_rng(5).normal(size=len(terms)).astype(np.float32)
    trunk.finding_risk = FindingRisk(terms, odds)
    trunk.profile_match = match = ProfileMatch(packaged_library())
    frozen = freeze_prompts(trunk, examples, tmp_path / "x.f16", 2)
    batch = batch_prompts([item.prompt for item in examples])
    assert frozen.words.shape == (5, trunk.word_width)
    words = trunk.words(batch)
    assert np.allclose(frozen.words, pool(words, batch.lengths).detach().numpy(), atol=1e-4)
    assert batch.denied.any()
    assert not words[batch.denied].any()
    known = dict(zip(terms.tolist(), odds.tolist(), strict=True))
    means = [sum(known[n] for _, n in visit.implied()) / visit.length for visit in facts]
    assert np.ptp(means) > 0
    assert np.allclose(frozen.words[:, -2], means, atol=1e-5)
    ratios = [sum(share for _, share in match.log_ratios(visit)) for visit in facts]
    assert np.ptp(ratios) > 0
    assert np.allclose(frozen.words[:, -1], ratios, atol=1e-4)


def test_a_head_stores_the_finding_risk(tmp_path: Path) -> None:
    head = RiskHead(3)
    assert head.finding_risk is None
    head.finding_risk = FindingRisk(np.array([5, 9]), np.array([0.5, -2.0], dtype=np.float32))
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    state = load_file(tmp_path / "head.safetensors")
    other = RiskHead(3, state["terms"].shape[0])
    other.load_state_dict(state)
    assert torch.equal(other.terms, head.terms)
    assert other.finding_risk.at([Facts((EncodedFinding(0, (9,)),))], 1).tolist() == [[-2.0]]
