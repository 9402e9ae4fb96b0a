"""Controls find their own aspect of a visit; the audit flags corpora in which one succeeds."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.evaluation import shortcut_audit
from rarealert.evaluation.controls import CONTROLS, fit_controls
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import auroc
from rarealert.evaluation.shortcut_audit import POOLED, audit, audit_corpus, audit_shortcuts
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.sources.importing import import_source, read_source
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.refused import Refused
from rarealert.visits.store import write_cases

CORPORA = os.environ.get("RAREALERT_CORPORA", "")
SECRET = "zebra-striped hands"
WORDS = np.array(["cough", "fever", "rash", "pain", "weeks", "months", "night", "day"])


@pytest.fixture(autouse=True)
def two_folds(monkeypatch):
    """Fewer fits than the real five folds; no test depends on their number."""
    monkeypatch.setattr(shortcut_audit, "FOLDS", 2)


def leaky_frame(leak, seed, n=300):
    """A frame in which only the aspect ``leak`` predicts the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    aspect = {name: labels if name == leak else rng.integers(0, 2, n) for name in CONTROLS}
    words = np.where(aspect["tfidf"] == 1, "wolf", "lamb")
    length = np.where(aspect["length"] == 1, 40, 20) + rng.integers(0, 5, n)
    if leak != "length":
        length = rng.integers(20, 45, n)
    marks = np.where(aspect["punctuation"] == 1, " [**,", "")
    text = [" ".join([word, *["note"] * k]) for word, k in zip(words, length, strict=True)]
    return labels, pd.DataFrame(
        {
            "source": np.where(aspect["source"] == 1, "a", "b"),
            "text": [line + mark for line, mark in zip(text, marks, strict=True)],
            "age_years": np.where(aspect["demographics"] == 1, 70.0, np.nan),
            "sex": pd.Series(np.where(rng.random(n) < 0.5, "female", None), dtype=object),
            "missing_vitals": aspect["missingness"] == 1,
        }
    )


@pytest.mark.parametrize("leak", CONTROLS)
def test_a_control_finds_its_own_leak_and_no_other(leak):
    labels, train = leaky_frame(leak, 1)
    truth, target = leaky_frame(leak, 2)
    fitted = fit_controls(train, labels, seed=0)
    reached = {name: auroc(truth, control.predict(target)) for name, control in fitted.items()}
    assert reached.pop(leak) > 0.95
    others = {name: value for name, value in reached.items() if {leak, name} != {"length", "tfidf"}}
    assert all(0.35 < value < 0.65 for value in others.values()), others


def test_unseen_values_and_empty_frames_are_predicted_and_one_label_is_refused():
    labels, train = leaky_frame("source", 1)
    foreign = train.head(3).assign(source="never seen", text="unknown words", age_years=np.nan)
    for control in fit_controls(train, labels, seed=0).values():
        assert ((control.predict(foreign) >= 0) & (control.predict(foreign) <= 1)).all()
        assert control.predict(train.head(0)).shape == (0,)
    with pytest.raises(BadInputError, match="one label"):
        fit_controls(train, np.ones(len(train)), seed=0)


def corpus(n=160, sources=("a", "b")):
    """Cases whose style is independent of their label."""
    rng = np.random.default_rng(2)
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


def audited(frame, labels, diseases, resamples=800):
    return audit_shortcuts(frame, labels, diseases, Bootstrap(resamples, 0.95, 1), seed=0)


def test_a_fair_corpus_is_not_flagged():
    frame, labels, diseases = corpus()
    found = audited(frame, labels, diseases)
    assert found.flags == ()
    assert set(found.aurocs) == {POOLED, "a", "b"}
    assert set(found.aurocs[POOLED]) == set(CONTROLS)
    assert all(0.25 < one.value < 0.75 for one in found.aurocs[POOLED].values())
    assert {one.n for one in found.aurocs["a"].values()} == {(frame["source"] == "a").sum()}


def test_redaction_marks_in_one_source_are_flagged_there():
    frame, labels, diseases = corpus()
    marked = labels & (frame["source"] == "a").to_numpy()
    frame["text"] = np.where(marked, "Seen by [**Name**] at ___. " + frame["text"], frame["text"])
    found = audited(frame, labels, diseases)
    assert found.strongest("a") == "punctuation"
    assert found.aurocs["a"]["punctuation"].value > 0.95
    assert any("punctuation" in flag and "in a" in flag for flag in found.flags)
    assert not any("in b" in flag for flag in found.flags)


def test_many_sources_and_few_resamples_still_flag_a_shortcut():
    frame, labels, diseases = corpus(sources=("a", "b", "c", "d"), n=320)
    frame["text"] = np.where(labels, frame["text"] + " " + frame["text"] * 3, frame["text"])
    found = audited(frame, labels, diseases, resamples=100)
    for scope in (POOLED, "a", "b", "c", "d"):
        assert found.aurocs[scope]["length"].value > 0.9
        assert any("length" in flag and flag.endswith(f"in {scope}") for flag in found.flags)


def test_a_source_of_one_label_is_flagged_and_has_no_figures():
    frame, labels, diseases = corpus()
    frame["source"] = np.where(labels, "atlas", "clinic")
    found = audited(frame, labels, diseases)
    assert found.strongest() == "source"
    assert found.aurocs[POOLED]["source"].value == 1
    assert set(found.absent) == {"atlas", "clinic"}
    assert {"atlas", "clinic"} <= {word for flag in found.flags for word in flag.split()}


def test_words_are_measured_but_never_flagged():
    frame, labels, diseases = corpus(sources=("a",))
    frame["text"] = np.where(labels, "telangiectasia " + frame["text"], "cough " + frame["text"])
    found = audited(frame, labels, diseases)
    assert found.aurocs[POOLED]["tfidf"].value > 0.95
    assert not any("tfidf" in flag for flag in found.flags)
    assert list(found.aurocs) == [POOLED]


def test_no_case_is_predicted_from_its_own_disease():
    # every disease has a word of its own: in-fold the words would predict each case
    frame, labels, diseases = corpus(sources=("a",))
    frame["text"] = [f"{name}word " * 10 + "same text" for name in diseases]
    frame["text"] = frame["text"].str.replace("^[rn]", "d", regex=True)
    assert audited(frame, labels, diseases).aurocs[POOLED]["tfidf"].value < 0.7


def test_a_corpus_of_one_label_is_refused():
    frame, labels, diseases = corpus()
    with pytest.raises(BadInputError, match="one label"):
        audited(frame, np.ones_like(labels), diseases)


def _case(number):
    rare = number % 2 == 0
    disease = number // 2 % 12
    code = f"ORPHA:{disease}" if rare else None
    text = f"{SECRET} for {3 + number % 7} days"
    return LabelledCase(
        case=Case(
            case_id=f"c{number}",
            source="clinic",
            chief_complaint=text + (" ___, [**Name**]" if rare else ""),
        ),
        label=Label(
            label="rare" if rare else "nonrare",
            disease_id=code or f"NAME:d{disease}",
            disease_name=f"d{disease}",
            orpha_code=code,
            reason="made for a test",
        ),
    )


def test_the_command_writes_its_page_without_case_text_and_exits_with_1(
    tmp_path, monkeypatch, request
):
    shutil.copy(request.config.rootpath / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    paths = Paths(tmp_path)
    write_cases(paths.build("ingest") / "cases.parquet", [_case(n) for n in range(60)])
    done = CliRunner().invoke(app, ["audit", "shortcuts"])
    assert done.exit_code == 1
    assert "FLAGGED: punctuation" in done.output
    folder = paths.build("audit")
    content = json.loads((folder / "shortcuts.json").read_text())
    assert content["strongest"] == "punctuation"
    expected = {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0, "n": 60}
    assert content["aurocs"][POOLED]["punctuation"] == expected
    assert "within_strata" not in content
    assert "http" not in (folder / "index.html").read_text().replace("data:image", "")
    for file in folder.iterdir():
        assert SECRET.encode() not in file.read_bytes()
    with pytest.raises(BadInputError, match=r"none\.parquet"):
        audit(paths, tmp_path / "none.parquet", 0.6)


@pytest.mark.corpora
@pytest.mark.slow
@pytest.mark.skipif(not CORPORA, reason="RAREALERT_CORPORA is not set")
def test_phenopackets_against_craftmd_is_flagged(tmp_path, request):
    """The design's warning: an all-rare source against another's non-rare is style alone."""
    corpora, data = Path(CORPORA), tmp_path / "data"
    for kind in ("orphanet", "craftmd"):
        import_source(kind, corpora / kind, data)
    packets = data / "phenopackets"
    with zipfile.ZipFile(corpora / "phenopacket-store.zip") as store:
        names = sorted(name for name in store.namelist() if name.endswith(".json"))
        store.extractall(packets, names[::12])
    rare = _read("phenopackets", packets, "rare")
    nonrare = _read("craftmd", data / "craftmd", "nonrare")
    assert min(len(rare), len(nonrare)) > 100
    params = load_params(request.config.rootpath / "params.yaml")
    found = audit_corpus([*rare, *nonrare], params, 0.6)
    pooled = found.aurocs[POOLED]
    assert found.strongest() == "source"
    assert pooled["source"].value == 1
    assert pooled["length"].value > 0.9
    assert pooled["punctuation"].value > 0.9
    assert any(flag.startswith("source") for flag in found.flags)


def _read(kind, folder, label):
    items = [item for item in read_source(kind, folder) if not isinstance(item, Refused)]
    return [item for item in items if item.label.label == label]
