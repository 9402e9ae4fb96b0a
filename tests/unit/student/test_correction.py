"""The second round: who is judged wrong by whom, and what is told again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.student.activations import Example
from rarealert.student.examples import LabelledReading, Lessons, Round, chains, find_errors
from rarealert.visits.case import Case, Label
from rarealert.visits.reading import read_visit


def lessons(rows: list[tuple[bool, float]], told: int = 0) -> Lessons:
    examples = tuple(
        Example(f"c{index}", (1, 2), (3,) if index < told else (), rare, target)
        for index, (rare, target) in enumerate(rows)
    )
    return Lessons(examples, tuple(f"d{index}" for index in range(len(rows))), 0)


def logit(risk: float) -> float:
    return float(np.log(risk / (1 - risk)))


def test_label_and_aligned_risk_judge() -> None:
    part = lessons([(True, 0.9), (True, 0.9), (True, 0.9), (False, 0.4)])
    logits = np.array([logit(0.95), logit(0.3), logit(0.55), logit(0.2)])
    found = find_errors(logits, part, tau=0.3, replay_share=0.5, seed=1)
    assert found.wrong == (1, 2)  # the wrong side; the right one, but far from the teachers
    assert found.replayed == (0, 3)


@given(
    rows=st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(-6, 6)), min_size=1),
    tau=st.floats(0.05, 0.95),
    share=st.floats(0.05, 0.9),
)
def test_a_round_never_counts_a_case_twice(rows, tau: float, share: float) -> None:
    part = lessons([(rare, target) for rare, target, _ in rows])
    found = find_errors(np.array([value for *_, value in rows]), part, tau, share, 0)
    assert len(set(found.learnt)) == len(found.learnt)
    assert set(found.learnt) <= set(range(len(rows)))
    wanted = round(len(found.wrong) * share / (1 - share))
    assert len(found.replayed) == min(wanted, len(rows) - len(found.wrong))


class Words:
    """Stands for the encoder: one token a word and an end mark."""

    def tokens(self, text: str) -> list[int]:
        return list(range(100, 100 + len(text.split())))

    def rationale(self, text: str, max_tokens: int) -> tuple[int, ...]:
        words = range(100, 100 + len(text.split()))
        return (*words[: max_tokens - 1], 0)


@pytest.fixture
def cases() -> list[LabelledReading]:
    label = Label(
        label="rare",
        disease_id="ORPHA:589",
        disease_name="Myasthenia gravis",
        orpha_code="ORPHA:589",
        reason="test",
    )
    texts = ["Ptosis.", "Here for a form.", "Ptosis and fever.", "Ptosis.", "Ptosis."]
    return [
        LabelledReading(
            read_visit(Case(case_id=f"c{index}", source="table", chief_complaint=text)), label
        )
        for index, text in enumerate(texts)
    ]


def test_chains_take_wrong_cases_that_can_be_told_and_some_of_the_first_round(cases) -> None:
    part = lessons([(True, 0.9)] * 5, told=4)
    found = Round(wrong=(1, 2, 4), replayed=(0, 3, 1))
    told = chains(cases, part, found, {}, Words(), 60, 5)
    assert [item.case_id for item in told] == ["c2", "c4", "c0", "c1"]
    assert len(told[0].rationale) > 10  # a chain
    assert told[2].rationale == (3,)  # a rationale of the first round
    assert [item.case_id for item in chains(cases, part, found, {}, Words(), 60, 1)] == ["c2", "c0"]
    assert chains(cases, part, found, {}, Words(), 6, 5) == []  # none would come to its end
