"""RA019: the stages above are up to date."""

from rarealert.registry.gates.integrity import StagesCurrent


def test_nothing_changed_passes(sound):
    assert StagesCurrent().check(sound()).passed


def test_a_change_is_named_with_its_stage(sound):
    result = StagesCurrent().check(sound(stale=("evaluate: src/x.py", "teach: teach")))
    assert not result.passed
    assert "evaluate: src/x.py" in result.reason
    assert result.value == 2
