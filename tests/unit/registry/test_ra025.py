"""RA025: the log of promotions is whole."""

from rarealert.registry.gates.approval import LogWhole


def test_an_unbroken_chain_passes(approval):
    assert LogWhole().check(approval()).passed


def test_a_fault_is_said(approval):
    result = LogWhole().check(approval(log_fault="Entry 2 was changed."))
    assert not result.passed
    assert result.reason == "Entry 2 was changed."
