"""RA008: one visit is answered in time."""

from rarealert.registry.gates.operational import Latency


def test_in_time(sound):
    assert Latency(5.0).check(sound()).passed


def test_too_slow(sound):
    assert not Latency(0.1).check(sound()).passed


def test_the_figure_is_rounded_so_that_reports_stay_still(sound):
    first, second = (Latency(5.0).check(sound(latency_s=s)) for s in (0.211, 0.239))
    assert first == second


def test_never_asked_is_no_proof(sound):
    assert not Latency(5.0).check(sound(latency_s=None)).passed
