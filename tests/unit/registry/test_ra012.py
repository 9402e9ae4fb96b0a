"""RA012: the evaluation report belongs to these predictions."""

import copy

import pytest

from rarealert.registry.gates.integrity import ReportTrue


def test_the_reports_own_predictions_pass(sound):
    assert ReportTrue().check(sound()).passed


@pytest.mark.parametrize("change", [{"value": 0.95}, {"n": 80}])
def test_an_edited_report_fails(sound, change):
    reported = copy.deepcopy(sound().reported)
    reported["models"]["student"]["auroc"] |= change
    assert not ReportTrue().check(sound(reported=reported)).passed


def test_swapped_predictions_fail(sound, risks_of):
    assert not ReportTrue().check(sound({"student": risks_of(3.0, 5)})).passed


def test_a_report_without_the_student_fails(sound):
    assert not ReportTrue().check(sound(reported={"models": {}})).passed
