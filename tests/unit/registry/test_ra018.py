"""RA018: no teacher knows the answer."""

from rarealert.registry.gates.integrity import NoTeacherKnows

gate = NoTeacherKnows(0.99)


def test_teachers_who_err_pass(sound):
    assert gate.check(sound()).passed


def test_a_teacher_who_was_told_fails_and_is_named(sound):
    told = {key: 0.2 + 0.5 * rare for key, rare in sound().rare.items()}
    result = gate.check(sound({"teacher:told": told}))
    assert not result.passed
    assert "teacher:told" in result.reason
    assert result.value == 1


def test_without_a_teacher_there_is_no_proof(sound):
    assert not gate.check(sound({"teacher:good": {}, "teacher:poor": {}})).passed
