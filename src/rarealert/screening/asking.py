"""What to ask next: the missing information that is expected to change the risk most.

The value of a question is the mean absolute change of the risk over its answers, each weighed by
the chance of getting it: sum over answers a of P(a | visit) * |risk(visit and a) - risk(visit)|,
the expected value of information with the risk itself as the quantity of interest (Howard 1966,
IEEE Trans Syst Sci Cybern 2:22). P(a | visit) of a finding comes from the disease profiles'
posterior, mixed by the present risk; that of an absent field from ``field_questions.tsv``.

Scoring every finding would take the student minutes. By Bayes' rule on the profiles alone the
value of a finding is 2 r (1 - r) |P(finding | rare) - P(finding | common)| with r the risk, so the
findings with the largest difference are scored by the student and the others are not.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from rarealert.cases.case import Case
from rarealert.cases.simulate_vocabulary import VisitFinding
from rarealert.screening.beliefs import Beliefs, Knowledge

Scorer = Callable[[Sequence[Case]], Sequence[float]]
"""Risk 0-1 of each case, in order; the registered student in use, anything in a test."""

CANDIDATES = 3
"""Findings that the student scores with both answers: six short visits. It orders them among
absent fields; which findings are asked is the differential's choice, as docs/results.md measures
it."""


@dataclass(frozen=True)
class Answer:
    """One answer to a question: its chance given the visit, 0 to 1, and the visit with it.

    ``risk`` is what the scorer says of the visit with the answer, ``None`` before it was asked.
    """

    label: str
    chance: float
    case: Case
    risk: float | None = None


@dataclass(frozen=True)
class Question:
    """A question in lay words. ``key`` is an HPO id, or the name of an absent field.

    ``wording`` names the finding as the visit would; ``expected_change`` is in risk, 0 to 1.
    """

    key: str
    kind: Literal["symptom", "sign", "field"]
    text: str
    wording: str
    answers: tuple[Answer, ...]
    expected_change: float


@dataclass(frozen=True)
class Questions:
    """The visit's present risk, and the questions worth most, best first."""

    risk: float
    questions: tuple[Question, ...]


def next_questions(
    case: Case,
    score: Scorer,
    knowledge: Knowledge,
    *,
    count: int = 3,
    candidates: int = CANDIDATES,
    skip: frozenset[str] = frozenset(),
) -> Questions:
    """The ``count`` questions worth most; ``skip`` holds keys asked before.

    The scorer is called twice: for the visit as it is, then once for all answered visits.
    """
    risk = float(score([case])[0])
    asked = worth_scoring(case, risk, knowledge, candidates, skip)
    told = [answer.case for question in asked for answer in question.answers]
    best = ranked(asked, risk, score(told) if told else ())
    return Questions(risk, tuple(best[:count]))


def worth_scoring(
    case: Case,
    risk: float,
    knowledge: Knowledge,
    candidates: int = CANDIDATES,
    skip: frozenset[str] = frozenset(),
) -> list[Question]:
    """The findings that the differential chooses, and the absent fields; none was scored yet."""
    found = finding_questions(case, risk, knowledge.beliefs(case), knowledge, candidates, skip)
    return [*found, *(each for each in field_questions(case) if each.key not in skip)]


def ranked(asked: Sequence[Question], risk: float, risks: Sequence[float]) -> list[Question]:
    """``asked`` by expected change, best first; ``risks`` are those of all answers, in order."""
    told = iter(risks)
    valued = [_valued(question, risk, told) for question in asked]
    return sorted(valued, key=lambda question: -question.expected_change)


def finding_questions(
    case: Case,
    risk: float,
    beliefs: Beliefs,
    knowledge: Knowledge,
    count: int,
    skip: frozenset[str] = frozenset(),
) -> tuple[Question, ...]:
    """The ``count`` unasked findings that split the differential most, best first.

    ``expected_change`` is by Bayes' rule on the profiles alone. Of two findings one of which
    implies the other, only the better is kept.
    """
    rare, common = knowledge.chances(beliefs)
    value = 2 * risk * (1 - risk) * abs(rare - common)
    barred, implied = _known(beliefs, knowledge, skip)
    chosen: list[Question] = []
    for place in (-value).argsort(kind="stable"):
        if len(chosen) == count:
            break
        finding = knowledge.askable[place]
        if not _can_ask(finding, case, barred, implied):
            continue
        chance = float(risk * rare[place] + (1 - risk) * common[place])
        chosen.append(finding_question(case, finding, chance, float(value[place])))
        implied |= finding.ancestors
        barred |= {finding.hpo_id}
    return tuple(chosen)


def _known(
    beliefs: Beliefs, knowledge: Knowledge, skip: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Ids whose kinds are denied or were asked, and ids that a told finding implies."""
    living = knowledge.ontology.terms
    told = [term for term in beliefs.work.present if term in living]
    above = (knowledge.ontology.ancestors(term) for term in (*told, *(skip & living.keys())))
    return skip | frozenset(beliefs.work.excluded), frozenset[str]().union(*above)


def _can_ask(
    finding: VisitFinding, case: Case, barred: frozenset[str], implied: frozenset[str]
) -> bool:
    if finding.hpo_id in implied or barred & finding.ancestors:
        return False
    if case.age_years is not None and not finding.age_min <= case.age_years <= finding.age_max:
        return False
    return case.sex is None or finding.sex in (None, case.sex)


def finding_question(case: Case, finding: VisitFinding, chance: float, value: float) -> Question:
    """A yes-or-no question about ``finding``; ``chance`` is that of a yes."""
    wording = (finding.lay or finding.clinical)[0]
    text = f"Any {wording}?" if finding.symptom else f"On examination: any {wording}?"
    answers = (
        Answer("yes", chance, with_finding(case, finding, present=True)),
        Answer("no", 1 - chance, with_finding(case, finding, present=False)),
    )
    kind: Literal["symptom", "sign"] = "symptom" if finding.symptom else "sign"
    return Question(finding.hpo_id, kind, text, wording, answers, value)


def with_finding(case: Case, finding: VisitFinding, *, present: bool) -> Case:
    """The visit with the answer as a sentence of its history, or of its examination for a sign.

    The student reads text alone, so the sentence is what tells it.
    """
    wording = (finding.lay or finding.clinical)[0]
    said = f"There is {wording}." if present else f"There is no {wording}."
    field = "history_of_present_illness" if finding.symptom else "physical_examination"
    held = getattr(case, field)
    return case.model_copy(update={field: f"{held} {said}" if held else said})


def field_questions(case: Case) -> Iterator[Question]:
    """One question for each absent field that typical answers are known of."""
    for field, rows in _typical_answers().items():
        if getattr(case, field) is None:
            answers = tuple(
                Answer(label, share, case.model_copy(update={field: value}))
                for _, label, share, value in rows
            )
            yield Question(field, "field", rows[0][0], field.replace("_", " "), answers, 0.0)


@lru_cache(maxsize=1)
def _typical_answers() -> dict[str, list[tuple[str, str, float, str | float]]]:
    """Per field: question, label of the answer, share of visits that give it, value."""
    text = files("rarealert.screening").joinpath("field_questions.tsv").read_text("utf-8")
    rows: dict[str, list[tuple[str, str, float, str | float]]] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        value = float(row["value"]) if row["field"] == "age_years" else row["value"]
        told = (row["question"], row["answer"], float(row["share"]), value)
        rows.setdefault(row["field"], []).append(told)
    return rows


def _valued(question: Question, risk: float, risks: Iterator[float]) -> Question:
    answers = tuple(
        Answer(answer.label, answer.chance, answer.case, float(next(risks)))
        for answer in question.answers
    )
    change = sum(answer.chance * abs((answer.risk or 0.0) - risk) for answer in answers)
    return Question(question.key, question.kind, question.text, question.wording, answers, change)
