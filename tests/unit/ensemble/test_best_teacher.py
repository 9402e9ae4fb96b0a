"""The best teacher is told with the cases that it was judged on."""

from rarealert.ensemble.explanation import TeacherReport, best_teacher


def _report(teacher: str, auroc: float | None, answered: int) -> TeacherReport:
    return TeacherReport(teacher, answered, auroc, 0.5, 0.0, 0.0)


def test_the_best_is_named_with_its_cases() -> None:
    reports = [_report("a", 0.7, 90), _report("b", 0.9, 40), _report("c", None, 90)]
    assert best_teacher(reports) == {"teacher": "b", "auroc": 0.9, "cases": 40}


def test_nobody_is_best_where_nobody_can_be_judged() -> None:
    assert best_teacher([_report("a", None, 3)]) is None
