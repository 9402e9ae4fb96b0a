"""RA011: code and parameters are committed."""

from rarealert.registry.gates.integrity import CleanTree


def test_clean(sound):
    assert CleanTree().check(sound()).passed


def test_a_changed_file_is_named(sound):
    result = CleanTree().check(sound(dirty=("params.yaml",)))
    assert not result.passed
    assert "params.yaml" in result.reason


def test_outside_git_no_commit_can_be_named(sound):
    assert not CleanTree().check(sound(dirty=None)).passed
