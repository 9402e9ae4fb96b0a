"""The gates at registration, one table: facts, verdict, value, and what the reason names."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import auroc
from rarealert.params import load_params
from rarealert.registry.gates import integrity, operational, statistical
from rarealert.registry.gates.catalogue import gates
from rarealert.registry.judged import (
    SMALL_HEADS,
    Champion,
    GateInput,
    TextScan,
    WorkspaceState,
)

CASES = 120
PLAN = Bootstrap(resamples=300, confidence=0.95, seed=3)
PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
NAN = float("nan")


def risks(separation, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=CASES) + separation * (2 * (np.arange(CASES) % 2) - 1)
    return {f"case-{i}": float(1 / (1 + np.exp(-value))) for i, value in enumerate(logits)}


RARE = {f"case-{i}": i % 2 == 1 for i in range(CASES)}
RARE_IDS = [key for key, rare in RARE.items() if rare]
STUDENT = risks(1.0, 1)
SEX = {key: ("female", "male")[i // 2 % 2] for i, key in enumerate(RARE)}
FIGURE = {
    "value": round(auroc([float(rare) for rare in RARE.values()], list(STUDENT.values())), 6),
    "ci_low": 0.8,
    "ci_high": 0.97,
    "n": CASES,
}
SOUND = GateInput(
    rare=RARE,
    disease={key: f"D{i // 2}" for i, key in enumerate(RARE)},
    risks={
        "student": STUDENT,
        "teacher:good": risks(1.0, 2),
        "teacher:poor": risks(0.3, 3),
        "control:length": risks(0.0, 4),
    },
    champion=None,
    report={"models": {"student": {"auroc": FIGURE}}},
    test_lock="a",
    test_digest="a",
    leaks=(),
    train_cases=frozenset({"t1", "t2", "t3"}),
    target_folds={"t1": 0, "t2": 1},
    reloaded=dict(list(STUDENT.items())[:10]),
    latency_s=0.2,
    load_error=None,
    memory_gib=1.2,
    schema_faults=(),
    base_model="smollm2-135m-instruct",
    cells={
        "head": dict.fromkeys(RARE_IDS, "neurologic"),
        "source": dict.fromkeys(RARE, "simulated"),
        "sex": SEX,
    },
    sources=("simulated",),
    thresholds={"alert": (0.7, 0.7001), "watch": (0.3, 0.3)},
    trained_on={"train": ("a", "a"), "valid": ("b", "b")},
    scan=TextScan(4, {}),
    workspace=WorkspaceState(inputs=("build/a", "build/b")),
    dirty=(),
)


def by(label, rare, nonrare):
    """The same risk for all rare and another for all other cases."""
    return {label: {key: rare if is_rare else nonrare for key, is_rare in RARE.items()}}


def turned(cells, name):
    """The student with reversed risks in one cell."""
    return {k: 1 - risk if cells.get(k) == name else risk for k, risk in STUDENT.items()}


def student(changes):
    return {"student": {**STUDENT, **changes}}


def few(found, n):
    return dict(list(found.items())[:n])


def champion(found, auroc=0.9, same=False):
    return {"champion": Champion("3", same, found, auroc)}


def reported(**change):
    return {"report": {"models": {"student": {"auroc": FIGURE | change}}}}


def scanned(files, **hits):
    return {"scan": TextScan(files, hits)}


def workspace(**fields):
    return {"workspace": replace(SOUND.workspace, **fields)}


def reloaded(**change):
    return {"reloaded": {**SOUND.reloaded, **{f"case-{key[1:]}": r for key, r in change.items()}}}


NO_TEACHER = {"teacher:good": {}, "teacher:poor": {}}
UNDEFINED = {"absent": {"models": {"student": {"auroc": "no rare case"}}}}
RENAL = {key: "renal" if i < 12 else "neurologic" for i, key in enumerate(RARE_IDS)}
EVEN = {key: "ab"[i % 2] for i, key in enumerate(RARE_IDS)}
AGES = {key: "old" if i < 8 else "young" for i, key in enumerate(RARE)}
SMALL = {key: f"head {i}" for i, key in enumerate(RARE_IDS) if i < 30}
ONE_LABEL = {key: "rare_only" if rare else "other" for key, rare in RARE.items()}
OTHER_CASES = {"other": 0.5}

RA001 = statistical.NotBelowChampion(0.02, PLAN)
RA002 = statistical.NearBestTeacher(0.1, PLAN)
RA003 = statistical.AboveControls(0.0, PLAN)
RA004 = statistical.Calibrated(0.15)
RA005 = integrity.LockedTest()
RA006 = integrity.TargetsOutOfFold()
RA007 = operational.ReloadParity(1e-5)
RA008 = operational.Latency(5.0)
RA009 = integrity.NoCaseText()
RA010 = integrity.InputsPinned()
RA011 = integrity.CleanTree()
RA012 = integrity.ReportTrue()
RA013 = statistical.WorstHead(0.7)
RA014 = statistical.WorstSubgroup(0.7)
RA015 = statistical.EverySource(10)
RA016 = integrity.ThresholdsFromValidation(0.005)
RA017 = integrity.TrainedOnTrain()
RA018 = integrity.NoTeacherKnows(0.99)
RA019 = integrity.StagesCurrent()
RA020 = operational.Memory(2.0)
RA021 = operational.SchemaKept()
RA022 = operational.BaseLicence({"smollm2-135m-instruct": "apache-2.0"})

TABLE = [
    # gate, changed fields, changed models, passed, value, named in the reason
    (RA001, {}, {}, True, None, "no champion"),
    (RA001, champion({}, None, same=True), {}, True, None, "3"),
    (RA001, champion(STUDENT), {}, True, 0, "same 120 cases"),
    (RA001, champion(risks(3.0, 9)), {}, False, ..., "version 3"),
    # a loss within noise fails: the burden of proof is on the challenger
    (RA001, champion(risks(1.0, 6)), {}, False, ..., "version 3"),
    (RA001, champion(OTHER_CASES, 0.75), {}, True, 0.8, "other cases"),
    (RA001, champion(OTHER_CASES, 0.83), {}, False, 0.8, "other cases"),
    (RA001, champion(OTHER_CASES, None), {}, False, None, "no AUROC"),
    *[
        (RA001, champion(OTHER_CASES) | {"report": report | UNDEFINED}, {}, False, None, "no rare")
        for report in ({"models": {}}, {"models": {"student": {}}})
    ],
    (RA002, {}, {}, True, ..., "teacher:good"),
    (RA002, {}, {"teacher:best": risks(3.0, 7)}, False, ..., "teacher:best"),
    (RA002, {}, {"teacher:lucky": few(risks(5.0, 7), 20)}, True, ..., "teacher:good"),
    (RA002, {}, NO_TEACHER, False, None, "teacher"),
    (RA003, {}, {}, True, ..., "control:length"),
    (RA003, {}, {"control:tfidf": risks(1.0, 6)}, False, ..., "control:tfidf"),
    (RA003, {}, {"control:source": STUDENT}, False, 0, "control:source"),
    (RA003, {"risks": {"student": STUDENT}}, {}, False, None, "control"),
    (RA003, {}, {"control:length": {}}, False, None, "control:length"),
    (RA004, {}, by("student", 0.9, 0.1), True, 0.1, "120 cases"),
    (RA004, {}, by("student", 0.1, 0.9), False, 0.9, "120 cases"),
    (RA004, {}, {"student": {"case-1": NAN}}, False, None, "no prediction"),
    (RA005, {}, {}, True, 0, "120"),
    (RA005, {"test_digest": "b"}, {}, False, 0, "locked"),
    *[(RA005, {}, student({"case-7": bad}), False, 1, "1") for bad in (NAN, float("inf"), 1.5)],
    (RA005, {}, {"student": few(STUDENT, CASES - 1)}, False, 1, "1"),
    (RA005, {}, student({"t1": 0.5}), False, 1, "1"),
    (RA005, {"leaks": ("2 diseases on two sides",)}, {}, False, 0, "2 diseases"),
    (RA006, {"target_folds": {"t1": 0, "t2": 4}}, {}, True, 0, "2"),
    (RA006, {"target_folds": {"t1": 0, "t2": None}}, {}, False, 1, "no fold"),
    (RA006, {"target_folds": {"t1": 0, "case-1": 1}}, {}, False, 1, "outside"),
    (RA006, {"target_folds": {}}, {}, False, None, "no training target"),
    (RA007, {}, {}, True, 0, "10 cases"),
    (RA007, reloaded(c3=STUDENT["case-3"] + 1e-3), {}, False, 1e-3, "10 cases"),
    (RA007, reloaded(c3=NAN), {}, False, None, "not a number"),
    (RA007, {"reloaded": few(STUDENT, 7)}, {}, False, None, "8"),
    (RA007, {"reloaded": {}, "load_error": "Another base."}, {}, False, None, "Another base."),
    # rounded, so that reports do not change with every run
    *[(RA008, {"latency_s": s}, {}, True, 0.2, "0.2 s") for s in (0.211, 0.239)],
    (RA008, {"latency_s": 5.01}, {}, False, 5.0, "5.0 s"),
    (RA008, {"latency_s": None}, {}, False, None, "not timed"),
    (RA009, {}, {}, True, 0, "eight"),
    (RA009, scanned(9, **{"evaluate/worst.html": 31}), {}, False, 1, "evaluate/worst.html"),
    (RA009, scanned(0), {}, False, None, "No artifact"),
    (RA010, {}, {}, True, 0, "2 inputs"),
    (RA010, workspace(fault="There is no dvc.lock."), {}, False, None, "dvc.lock"),
    (RA010, workspace(changed=("reports/a.json",)), {}, False, 1, "reports/a.json"),
    (RA010, workspace(unpinned=("build/b",)), {}, False, 1, "build/b"),
    (RA011, {}, {}, True, 0, "commit"),
    (RA011, {"dirty": ("params.yaml",)}, {}, False, 1, "params.yaml"),
    (RA011, {"dirty": None}, {}, False, None, "git"),
    (RA012, {}, {}, True, ..., "120 predictions"),
    (RA012, reported(value=0.95), {}, False, ..., "0.9500"),
    (RA012, reported(n=80), {}, False, ..., "80 cases"),
    (RA012, {}, {"student": risks(3.0, 5)}, False, ..., "120"),
    (RA012, {"report": {"models": {}}}, {}, False, None, "report"),
    (RA013, {"cells": {"head": EVEN}}, {}, True, ..., "of 2;"),
    (RA013, {"cells": {"head": RENAL}}, {"student": turned(RENAL, "renal")}, False, ..., "n = 12"),
    (RA013, {"cells": {"head": SMALL}}, {}, True, ..., f"{SMALL_HEADS} (n = 60 rare)"),
    (RA013, {}, {"student": {}}, False, None, "head"),
    (RA014, {}, {}, True, ..., "of 3 subgroups"),
    (RA014, {}, {"student": turned(SEX, "female")}, False, ..., "sex female"),
    (
        RA014,
        {
            "cells": {
                "age": few(dict.fromkeys(RARE, "old"), 8) | dict.fromkeys(list(RARE)[8:], "new")
            }
        },
        {},
        True,
        ...,
        "1 with fewer than 10",
    ),
    (RA014, {"cells": {}}, {}, False, None, "No subgroup"),
    (RA015, {}, {}, True, 60, "simulated"),
    (RA015, {"sources": ("simulated", "craftmd")}, {}, False, 0, "craftmd has 0 rare"),
    (RA015, {"sources": ("craftmd",)}, {}, False, 0, "simulated"),
    (RA015, {"cells": {"source": ONE_LABEL}, "sources": ("rare_only", "other")}, {}, False, 0, ""),
    (RA015, {}, {"student": few(STUDENT, 12)}, False, 6, "6 rare"),
    (RA015, {"sources": (), "cells": {}}, {}, False, None, "ingest.sources"),
    (RA016, {}, {}, True, 1e-4, "alert"),
    (RA016, {"thresholds": {"alert": (0.7, 0.7), "watch": (0.1, 0.4)}}, {}, False, 0.3, "watch"),
    (RA016, {"thresholds": {}}, {}, False, None, "threshold"),
    (RA017, {}, {}, True, 0, "training"),
    (RA017, {"trained_on": {"train": ("c", "a"), "valid": ("b", "b")}}, {}, False, 1, "train"),
    (RA017, {"trained_on": {"train": (None, "a")}}, {}, False, 1, "train"),
    (RA017, {"trained_on": {}}, {}, False, None, "student"),
    (RA018, {}, {}, True, ..., "teacher:good"),
    (RA018, {}, by("teacher:leaky", 0.7, 0.2), False, 1, "teacher:leaky"),
    (RA018, {}, NO_TEACHER, False, None, "teacher"),
    (RA019, {}, {}, True, 0, "current"),
    (RA019, workspace(stale=("evaluate: src/x.py", "teach: teach")), {}, False, 2, "src/x.py"),
    (RA019, workspace(fault="There is no dvc.lock."), {}, False, None, "dvc.lock"),
    *[(RA020, {"memory_gib": gib}, {}, True, 1.5, "1.5 GiB") for gib in (1.31, 1.62)],
    (RA020, {"memory_gib": 2.0}, {}, True, 2.0, "2.0 GiB"),
    (RA020, {"memory_gib": 2.01}, {}, False, 2.0, "2.0 GiB"),
    (RA021, {}, {}, True, 0, "columns"),
    (RA021, {"schema_faults": ("No band", "No signature")}, {}, False, 2, "No band; No signature."),
    (RA022, {}, {}, True, None, "apache-2.0"),
    (RA022, {"base_model": "llama-9"}, {}, False, None, "llama-9"),
]


@pytest.mark.parametrize(("gate", "fields", "models", "passed", "value", "named"), TABLE)
def test_a_gate_judges_its_facts_and_names_them(gate, fields, models, passed, value, named):
    given = replace(SOUND, **{"risks": {**SOUND.risks, **models}, **fields})
    result = gate.check(given)
    assert (result.code, result.title, result.passed) == (gate.code, gate.title, passed)
    assert named in result.reason
    if value is not ...:
        assert result.value == (value if value is None else pytest.approx(value, abs=1e-9))


def test_every_gate_is_in_the_table_with_both_verdicts():
    for gate in gates(PARAMS.register_, PARAMS.evaluate):
        verdicts = {row[3] for row in TABLE if row[0].code == gate.code}
        assert verdicts == {True, False}, gate.code


def test_codes_are_unique_and_ordered_and_thresholds_come_from_the_file():
    found = gates(PARAMS.register_, PARAMS.evaluate)
    codes = [gate.code for gate in found]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"RA\d{3}", code) for code in codes)
    loose = PARAMS.register_.model_copy(update={"max_ece": 0.9})
    assert gates(loose, PARAMS.evaluate) != found


def test_sound_facts_pass_every_configured_gate_and_one_failure_hides_no_other():
    quick = PARAMS.evaluate.model_copy(update={"resamples": 200})
    among = gates(PARAMS.register_, quick)
    assert [gate.code for gate in among if not gate.check(SOUND).passed] == []
    spoilt = replace(SOUND, dirty=("src/x.py",), leaks=("1 leak",), latency_s=60.0)
    failed = [gate.code for gate in among if not gate.check(spoilt).passed]
    assert failed == ["RA005", "RA008", "RA011"]


def test_the_configured_base_model_is_accepted():
    assert PARAMS.distil.base_model in PARAMS.register_.accepted_base_models
