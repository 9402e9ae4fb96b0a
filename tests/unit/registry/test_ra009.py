"""RA009: no case text in tracked artifacts."""

from rarealert.registry.gates.integrity import NoCaseText
from rarealert.registry.judged import TextScan


def test_clean_artifacts_pass(sound):
    assert NoCaseText().check(sound()).passed


def test_a_hit_fails_and_names_the_file_only(sound):
    result = NoCaseText().check(sound(scan=TextScan(9, {"evaluate/worst.html": 31})))
    assert not result.passed
    assert "evaluate/worst.html" in result.reason


def test_nothing_searched_is_no_proof(sound):
    assert not NoCaseText().check(sound(scan=TextScan(0, {}))).passed
