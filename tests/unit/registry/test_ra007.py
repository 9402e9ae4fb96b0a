"""RA007: the reloaded model gives the same risks."""

from rarealert.registry.gates.operational import ReloadParity

gate = ReloadParity(1e-5)


def test_the_same_risks_pass(sound):
    assert gate.check(sound()).passed


def test_another_risk_fails(sound):
    reloaded = dict(sound().reloaded)
    reloaded["case-3"] += 1e-3
    result = gate.check(sound(reloaded=reloaded))
    assert not result.passed
    assert abs(result.value - 1e-3) < 1e-9


def test_not_a_number_fails(sound):
    assert not gate.check(sound(reloaded={**sound().reloaded, "case-3": float("nan")})).passed


def test_too_few_cases_fail(sound):
    few = dict(list(sound().reloaded.items())[:7])
    assert not gate.check(sound(reloaded=few)).passed


def test_a_version_that_cannot_be_loaded_fails_and_says_why(sound):
    result = gate.check(sound(reloaded={}, load_error="Another base model lies here."))
    assert not result.passed
    assert "Another base model" in result.reason
