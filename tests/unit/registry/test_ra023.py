"""RA023: the approval is the judgement's own."""

import pytest

from rarealert.registry.gates.approval import GenuineJudgement

gate = GenuineJudgement()


def test_a_judgement_that_agrees_with_all_else_passes(approval):
    assert gate.check(approval()).passed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"judgement": None}, "never judged"),
        ({"version": "4"}, "another version"),
        ({"judgement_digest": "dead"}, "changed after it was made"),
        ({"noted_digest": ""}, "changed after it was made"),
        ({"identity": {}}, "adapter in the registry is not the one that was judged"),
        ({"limits": {"RA001": None, "RA002": None, "RA003": 0.0}}, "did not ask RA003"),
        ({"limits": {"RA001": 0.02, "RA002": 0.06}}, "RA002 judged by 0.05 and params.yaml says 0"),
        ({"failed_in_run": 1.0}, "counted other failures"),
        ({"failed_in_run": None}, "counted other failures"),
    ],
)
def test_one_disagreement_is_enough(approval, fields, said):
    result = gate.check(approval(**fields))
    assert not result.passed
    assert said in result.reason


@pytest.mark.parametrize("verdict", [False, None, "yes"])
def test_a_failed_gate_is_named(approval, verdict):
    judgement = dict(approval().judgement)
    judgement["gates"] = [{"code": "RA001", "passed": True}, {"code": "RA002", "passed": verdict}]
    result = gate.check(approval(judgement=judgement, failed_in_run=1.0))
    assert not result.passed
    assert "failed RA002" in result.reason


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("adapter.sha256", "adapter"),
        ("base.sha256", "base model"),
        ("code.sha256", "code"),
        ("config.sha256", "configuration"),
    ],
)
def test_whatever_was_swapped_after_the_judgement_is_named(approval, name, part):
    said = f"The {part} in the registry is not the one that was judged."
    for identity in ({name: "cafe"}, {name: ""}):
        assert gate.check(approval(identity=approval().identity | identity)).reason == said


@pytest.mark.parametrize(
    ("used", "passed"), [(None, True), (0.7, True), (-0.02, True), (-0.03, False), (0.0, False)]
)
def test_a_threshold_that_rests_on_the_champion_is_not_compared(approval, used, passed):
    judgement = dict(approval().judgement)
    judgement["gates"] = [
        {"code": "RA001", "passed": True, "threshold": used},
        {"code": "RA002", "passed": True, "threshold": -0.05},
    ]
    assert gate.check(approval(judgement=judgement)).passed is passed
