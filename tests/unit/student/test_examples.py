"""Examples and rationales to learn, and the cases of the correction round."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.student import examples as module
from rarealert.student.activations import Example
from rarealert.student.data import LabelledReading
from rarealert.student.encoding import EncodedFinding, Facts, Prompt, PromptTokens
from rarealert.student.examples import (
    CorrectionCases,
    ExampleSet,
    choose_rationales,
    correction_examples,
    digest_of_examples,
    find_wrong_cases,
    make_examples,
)
from rarealert.visits.case import Case, Label
from rarealert.visits.reading import Reading, read_visit


class Words:
    """An encoder of one token a word and an end mark; every prompt has three tokens."""

    def prompt(self, reading: Reading) -> Prompt:
        return Prompt(PromptTokens((1, 2, 3)), reading, (), truncated=False)

    def tokens(self, text: str) -> list[int]:
        return list(range(100, 100 + len(text.split())))

    def rationale(self, text: str, max_tokens: int) -> tuple[int, ...]:
        return (*self.tokens(text)[: max_tokens - 1], 0)


def test_a_case_without_an_aligned_risk_is_judged_by_its_label(cases, targets) -> None:
    known = dict(list(targets.items())[2:])
    examples = make_examples(cases, known, Words())
    labels = [float(item.is_rare) for item in cases[:2]]
    assert examples.target.tolist() == [*labels, *known.values()]


def test_rationales_are_taken_only_where_the_aligned_risk_is_right(cases, targets) -> None:
    wrong = {key: 1 - value for key, value in targets.items()}
    assert choose_rationales(cases, wrong, {}, 64, 1) == {}
    assert len(choose_rationales(cases, targets, {}, 16, 1)) == 16


def part_of(rows: list[tuple[bool, float]], rationales: int = 0) -> ExampleSet:
    examples = tuple(
        Example(f"c{index}", PromptTokens((1, 2)), (3,) if index < rationales else (), *row)
        for index, row in enumerate(rows)
    )
    return ExampleSet(examples, tuple(f"d{index}" for index in range(len(rows))), 0)


def logit(risk: float) -> float:
    return float(np.log(risk / (1 - risk)))


def test_a_case_is_wrong_by_its_label_or_by_its_aligned_risk() -> None:
    part = part_of([(True, 0.9), (True, 0.9), (True, 0.9), (False, 0.4)])
    logits = np.array([logit(0.95), logit(0.3), logit(0.55), logit(0.2)])
    found = find_wrong_cases(logits, part, tau=0.3, replay_share=0.5, seed=1)
    assert found == CorrectionCases(wrong=(1, 2), replayed=(0, 3))


@given(
    rows=st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(-6, 6)), min_size=1),
    tau=st.floats(0.05, 0.95),
    share=st.floats(0.05, 0.9),
)
def test_a_round_never_counts_a_case_twice(rows, tau: float, share: float) -> None:
    part = part_of([(rare, target) for rare, target, _ in rows])
    found = find_wrong_cases(np.array([value for *_, value in rows]), part, tau, share, 0)
    assert len(set(found.all)) == len(found.all)
    assert set(found.all) <= set(range(len(rows)))
    wanted = round(len(found.wrong) * share / (1 - share))
    assert len(found.replayed) == min(wanted, len(rows) - len(found.wrong))


def test_corrected_rationales_come_first_and_replayed_ones_keep_their_share() -> None:
    label = Label(
        label="rare",
        disease_id="ORPHA:589",
        disease_name="Myasthenia gravis",
        orpha_code="ORPHA:589",
        reason="test",
    )
    texts = ["Ptosis.", "Here for a form.", "Ptosis and fever.", "Ptosis.", "Ptosis."]
    cases = [
        LabelledReading(read_visit(Case(case_id="a", source="s", chief_complaint=text)), label)
        for text in texts
    ]
    part = part_of([(True, 0.9)] * 5, rationales=4)
    found = CorrectionCases(wrong=(1, 2, 4), replayed=(0, 3, 1))

    def corrected(max_tokens: int, count: int) -> list[Example]:
        return correction_examples(cases, part, found, {}, Words(), max_tokens, count)

    both = corrected(60, 5)
    assert [item.case_id for item in both] == ["c2", "c4", "c0", "c1"]  # c1 names no finding
    assert len(both[0].rationale) > 10
    assert both[2].rationale == (3,)  # of the first round
    assert [item.case_id for item in corrected(60, 1)] == ["c2", "c0"]
    assert corrected(6, 5) == []  # no rationale would reach its end


TOKENS = PromptTokens((1, 2, 3), (1,), Facts((EncodedFinding(1, (5,)),), 30.0, "male", 1, 3))
EXAMPLE = Example("a", TOKENS, (4,), True, 0.75)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": replace(TOKENS, ids=(1, 2, 4))},
        {"prompt": replace(TOKENS, denied=())},
        {"prompt": replace(TOKENS, facts=Facts())},
        {"rationale": (5,)},
        {"target": 0.76},
        {"rare": False},
        {"given": 1},
    ],
)
def test_examples_encoded_in_another_way_have_another_digest(change: dict[str, object]) -> None:
    def digest(example: Example) -> str:
        return digest_of_examples(ExampleSet((example,), ("d",), 0))

    assert digest(EXAMPLE) == digest(replace(EXAMPLE))
    assert digest(EXAMPLE) != digest(replace(EXAMPLE, **change))


@pytest.mark.parametrize("version", ["ENCODING_VERSION", "GENERATOR_VERSION"])
def test_a_new_version_has_another_digest(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    part = ExampleSet((EXAMPLE,), ("d",), 0)
    before = digest_of_examples(part)
    monkeypatch.setattr(module, version, "another")
    assert digest_of_examples(part) != before
