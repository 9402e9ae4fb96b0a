"""RA020: it fits into a clinic's memory."""

import pytest

from rarealert.registry.gates.operational import Memory


@pytest.mark.parametrize(("used", "passed"), [(1.9, True), (2.0, True), (2.01, False)])
def test_the_limit_is_in_gib(sound, used, passed):
    assert Memory(2.0).check(sound(memory_gib=used)).passed is passed


def test_the_figure_is_rounded_so_that_reports_stay_still(sound):
    first, second = (Memory(4.0).check(sound(memory_gib=gib)) for gib in (1.31, 1.62))
    assert first == second
