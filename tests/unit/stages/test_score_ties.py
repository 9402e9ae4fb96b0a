"""A teacher's expected risk breaks the ties of its stated ones."""

from rarealert.stages.score import teacher_risks
from rarealert.teachers.teacher_answer import AnswerRow, TeacherAnswer


def test_equal_stated_risks_are_ordered_by_expected_risk() -> None:
    expected = {"low": 20.5, "high": 60.0, "none": None}
    answers = [
        AnswerRow(
            case_id=name,
            teacher="a",
            status="ok",
            answer=TeacherAnswer(
                insights=(), differential=(), risk=50, explanation="x", expected_risk=value
            ),
        )
        for name, value in expected.items()
    ]
    risks = teacher_risks(answers)["teacher:a"]
    assert risks["low"] < risks["none"] == 0.5 < risks["high"]
    assert all(abs(risk - 0.5) < 0.005 for risk in risks.values())
