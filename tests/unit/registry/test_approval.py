"""The gates at promotion, one table: what the registry holds, verdict, what the reason names."""

from dataclasses import replace

import pytest

from rarealert.registry.gates.approval import (
    Approval,
    CardAttached,
    GenuineJudgement,
    LogWhole,
)

IDENTITY = {
    "adapter.sha256": "f00d",
    "base.sha256": "ba5e",
    "code.sha256": "c0de",
    "config.sha256": "5e77",
}
RA001 = {"code": "RA001", "passed": True, "threshold": 0.78}
RA002 = {"code": "RA002", "passed": True, "threshold": -0.05}
SOUND = Approval(
    name="toy",
    version="3",
    judgement={
        "model_name": "toy",
        "version": "3",
        "identity": IDENTITY,
        "gates": [RA001, RA002],
        "evidence": "beef",
    },
    judgement_digest="beef",
    noted_digest="beef",
    failed_in_run=0.0,
    limits={"RA001": 0.02, "RA002": 0.05},
    identity=IDENTITY,
    card="Adapter `f00d`.",
    card_of_adapter="Adapter `f00d`.",
    log_fault=None,
)
JUDGEMENT, CARD, LOG = GenuineJudgement(), CardAttached(), LogWhole()


def judged(*gates, **fields):
    return {"judgement": {**SOUND.judgement, "gates": list(gates)}, **fields}


def swapped(part, digest):
    return {"identity": IDENTITY | {f"{part}.sha256": digest}}


def cards(both):
    return {"card": both, "card_of_adapter": both}


PARTS = {"adapter": "adapter", "base": "base model", "code": "code", "config": "configuration"}
TABLE = [
    # gate, changed fields, passed, named in the reason
    (JUDGEMENT, {}, True, ""),
    (JUDGEMENT, {"judgement": None}, False, "never judged"),
    (JUDGEMENT, {"version": "4"}, False, "another version"),
    (JUDGEMENT, {"judgement_digest": "dead"}, False, "changed"),
    (JUDGEMENT, {"noted_digest": ""}, False, "changed"),
    (JUDGEMENT, {"identity": {}}, False, "adapter"),
    *[
        (JUDGEMENT, swapped(part, digest), False, f"The {named} in the registry")
        for part, named in PARTS.items()
        for digest in ("cafe", "")
    ],
    (JUDGEMENT, {"limits": {"RA001": None, "RA002": None, "RA003": 0.0}}, False, "RA003"),
    (JUDGEMENT, {"limits": {"RA001": 0.02, "RA002": 0.06}}, False, "RA002"),
    (JUDGEMENT, {"failed_in_run": 1.0}, False, "number of failures"),
    (JUDGEMENT, {"failed_in_run": None}, False, "number of failures"),
    *[
        (JUDGEMENT, judged(RA001, RA002 | {"passed": no}, failed_in_run=1.0), False, "failed RA002")
        for no in (False, None, "yes")
    ],
    # RA001's threshold depends on the champion where both were judged on other cases
    *[
        (JUDGEMENT, judged(RA001 | {"threshold": used}, RA002), passed, "")
        for used, passed in [(None, True), (0.7, True), (-0.02, True), (-0.03, False), (0.0, False)]
    ],
    (CARD, {}, True, ""),
    (CARD, cards(None), False, "no model card"),
    (CARD, cards("Adapter `cafe`."), False, "another adapter"),
    (CARD, {"card_of_adapter": None}, True, ""),
    (CARD, {"card_of_adapter": "Adapter `f00d`, cured."}, False, "differs"),
    (LOG, {}, True, ""),
    (LOG, {"log_fault": "Entry 2 was changed."}, False, "Entry 2 was changed."),
]


@pytest.mark.parametrize(("gate", "fields", "passed", "named"), TABLE)
def test_a_gate_judges_what_the_registry_holds(gate, fields, passed, named):
    result = gate.check(replace(SOUND, **fields))
    assert (result.code, result.passed) == (gate.code, passed)
    assert named in result.reason
