"""The audit names what tells the label, and is silent where nothing does."""

import numpy as np
import pandas as pd
import pytest

from rarealert.errors import BadInputError
from rarealert.evaluation import shortcut_audit as audit
from rarealert.evaluation.controls import CONTROLS
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.shortcut_audit import (
    POOLED,
    audit_shortcuts,
    render_audit_page,
    shortcuts_figure,
)

PLAN = Bootstrap(800, 0.95, 1)
WORDS = np.array(["cough", "fever", "rash", "pain", "weeks", "months", "night", "day"])


def corpus(n=160, seed=2, sources=("a", "b")):
    """Cases whose style says nothing of their label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(bool)
    frame = pd.DataFrame(
        {
            "source": rng.choice(sources, n),
            "text": [" ".join(rng.choice(WORDS, rng.integers(8, 30))) + "." for _ in range(n)],
            "age_years": rng.integers(0, 90, n).astype(float),
            "sex": rng.choice(["female", "male"], n),
            "missing_vitals": rng.random(n) < 0.3,
        }
    )
    diseases = [f"{'r' if rare else 'n'}{rng.integers(0, 60)}" for rare in labels]
    return frame, labels, diseases


@pytest.fixture(autouse=True)
def two_folds(monkeypatch):
    """Fewer fits than the real five folds; what is tested does not depend on their number."""
    monkeypatch.setattr(audit, "_FOLDS", 2)


def audited(frame, labels, diseases):
    return audit_shortcuts(frame, labels, diseases, PLAN, seed=0)


def test_a_fair_corpus_is_not_flagged():
    frame, labels, diseases = corpus()
    found = audited(frame, labels, diseases)
    assert found.flags == ()
    assert set(found.aurocs) == {POOLED, "a", "b"}
    assert set(found.aurocs[POOLED]) == set(CONTROLS)
    assert all(0.25 < one.value < 0.75 for one in found.aurocs[POOLED].values())
    assert {one.n for one in found.aurocs["a"].values()} == {(frame["source"] == "a").sum()}
    assert {one.n for one in found.aurocs["a"].values()} == {
        int((corpus()[0]["source"] == "a").sum())
    }


def test_redaction_marks_in_one_source_are_flagged_there():
    frame, labels, diseases = corpus()
    marked = labels & (frame["source"] == "a").to_numpy()
    frame["text"] = np.where(marked, "Seen by [**Name**] at ___. " + frame["text"], frame["text"])
    found = audited(frame, labels, diseases)
    assert found.strongest("a") == "punctuation"
    assert found.aurocs["a"]["punctuation"].value > 0.95
    assert any("punctuation" in flag and "in a" in flag for flag in found.flags)
    assert not any("in b" in flag for flag in found.flags)


def test_many_sources_and_few_resamples_still_flag_what_tells_the_label():
    frame, labels, diseases = corpus(sources=("a", "b", "c", "d"), n=320)
    frame["text"] = np.where(labels, frame["text"] + " " + frame["text"] * 3, frame["text"])
    found = audit_shortcuts(frame, labels, diseases, Bootstrap(100, 0.95, 1), seed=0)
    for scope in (POOLED, "a", "b", "c", "d"):
        assert found.aurocs[scope]["length"].value > 0.9
        assert any("length alone" in flag and flag.endswith(f"in {scope}") for flag in found.flags)


def test_a_source_of_one_label_is_flagged_and_has_no_figures():
    frame, labels, diseases = corpus()
    frame["source"] = np.where(labels, "atlas", "clinic")
    found = audited(frame, labels, diseases)
    assert found.strongest() == "source"
    assert found.aurocs[POOLED]["source"].value == 1
    assert found.absent == {"atlas": "fewer than 2 non-rare diseases",
                            "clinic": "fewer than 2 rare diseases"}  # fmt: skip
    assert sum("gives the label away" in flag for flag in found.flags) == 2


def test_words_are_measured_but_never_flagged():
    frame, labels, diseases = corpus(sources=("a",))
    frame["text"] = np.where(labels, "telangiectasia " + frame["text"], "cough " + frame["text"])
    found = audited(frame, labels, diseases)
    assert found.aurocs[POOLED]["tfidf"].value > 0.95
    assert not any("tfidf" in flag for flag in found.flags)
    assert list(found.aurocs) == [POOLED]


def test_no_case_is_predicted_from_its_own_disease():
    # every disease has a word of its own: in-fold the words would tell each case
    frame, labels, diseases = corpus(sources=("a",))
    frame["text"] = [f"{name}word " * 10 + "same text" for name in diseases]
    frame["text"] = frame["text"].str.replace("^[rn]", "d", regex=True)
    found = audited(frame, labels, diseases)
    assert found.aurocs[POOLED]["tfidf"].value < 0.7


def test_one_label_has_nothing_to_tell():
    frame, labels, diseases = corpus()
    with pytest.raises(BadInputError, match="one label only"):
        audited(frame, np.ones_like(labels), diseases)


def test_the_page_is_one_file_with_its_plot():
    frame, labels, diseases = corpus(n=120, sources=("a",))
    found = audited(frame, labels, diseases)
    page = render_audit_page(found, None)
    assert "http" not in page.replace("data:image", "")
    assert page == render_audit_page(found, None)
    assert len(shortcuts_figure(found).axes[0].get_yticks()) == len(CONTROLS)
