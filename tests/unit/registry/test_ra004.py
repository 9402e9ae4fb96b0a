"""RA004: calibrated on the test part."""

from rarealert.registry.gates.statistical import Calibrated


def test_calibrated_risks_pass(sound):
    half = {key: 0.9 if rare else 0.1 for key, rare in sound().rare.items()}
    result = Calibrated(0.15).check(sound({"student": half}))
    assert result.passed
    assert abs(result.value - 0.1) < 1e-9


def test_overconfident_risks_fail(sound):
    wrong = {key: 0.1 if rare else 0.9 for key, rare in sound().rare.items()}
    result = Calibrated(0.15).check(sound({"student": wrong}))
    assert not result.passed
    assert abs(result.value - 0.9) < 1e-9


def test_no_usable_risk_fails(sound):
    assert not Calibrated(0.15).check(sound({"student": {"case-1": float("nan")}})).passed
