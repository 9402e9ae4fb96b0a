"""What a teacher's own probabilities add to the risks that it is judged by."""

from rarealert.stages.score import _teacher_risks
from rarealert.teachers.answer import AnswerRow, TeacherAnswer


def test_a_teachers_ties_are_broken_by_what_it_expected() -> None:
    expected = {"low": 20.5, "high": 60.0, "unsaid": None}
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
    risks = _teacher_risks(answers)["teacher:a"]
    assert risks["low"] < risks["unsaid"] == 0.5 < risks["high"]
    assert all(abs(risk - 0.5) < 0.005 for risk in risks.values())
