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
        ({"adapter_digest": "cafe"}, "not the one that was judged"),
        ({"expected_codes": frozenset({"RA001", "RA002", "RA003"})}, "did not ask RA003"),
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
