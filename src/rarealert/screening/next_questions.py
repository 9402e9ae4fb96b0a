"""What to ask next: findings that separate rare from common diseases, and absent fields.

The value of a question is the mean absolute change of the risk over its answers, sum over answers a
of P(a | visit) * |risk(visit and a) - risk(visit)|: the expected value of information with the risk
as the quantity of interest (Howard 1966, IEEE Trans Syst Sci Cybern 2:22). A question has two:

- ``profile_change``: by Bayes' rule on the disease profiles alone, which for a finding is
  2 r (1 - r) |P(finding | rare) - P(finding | common)| with r the risk. It orders the findings: no
  other order raised AUROC faster than asking at random (docs/results.md).
- ``expected_change``: by the student's risk of each answered visit. It orders absent fields, which
  the profiles do not cover, and is shown with each finding.

P(a | visit) of a finding comes from the profiles' posterior, mixed by the present risk; that of an
absent field from ``field_questions.tsv``.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from rarealert.simulation.vocabulary import VisitFinding
from rarealert.visits.case import MAX_TEXT, Case
from rarealert.visits.reading import Reading, read_visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rarealert.knowledge.hpo import Ontology
    from rarealert.knowledge.profiles import Vector
    from rarealert.teachers.reasoners.engine import Engine, Workup

_TEMPERING = 0.5
"""Exponent of each likelihood: findings are not independent, so their joint is overconfident."""

RiskFunction = Callable[[Sequence[Reading]], Sequence[float]]
"""Risk 0-1 of each reading, in order."""


@dataclass(frozen=True, eq=False)
class Beliefs:
    """The posteriors of one visit, each summing to 1 over its table of diseases.

    ``work`` holds the visit's findings; ``rare`` and ``common`` have shape ``(n_diseases,)``.
    """

    work: "Workup"
    rare: "Vector"
    common: "Vector"


@dataclass(frozen=True)
class LikelyDisease:
    """A rare disease that the findings fit."""

    orpha_code: str
    name: str


@dataclass(frozen=True)
class LikelyHead:
    """An Orphanet classification head, its share of the belief in rare diseases, and examples."""

    head: str
    share: float
    diseases: tuple[LikelyDisease, ...]


class Knowledge:
    """Disease profiles and the findings that a first visit can ask for; use ``load_knowledge``.

    Findings are independent given the disease, with the likelihoods of the reasoners' engine
    (true-path rule, imprecise findings through the ontology; after LIRICAL, Robinson et al. 2020,
    Am J Hum Genet 107:403). The student is not used.
    """

    def __init__(self, engine: "Engine", askable: Mapping[str, VisitFinding]) -> None:
        import numpy as np

        self.ontology: Ontology = engine.ontology
        self._engine = engine
        self.askable = tuple(askable.values())
        ids = [finding.hpo_id for finding in self.askable]
        tables = (engine.rare, engine.common)
        self._chances: tuple[NDArray[np.float32], ...] = tuple(
            np.exp(np.array([engine.log_likelihoods(table, term) for term in ids])).astype("f4")
            for table in tables
        )
        engine.log_likelihoods.cache_clear()  # the matrices hold them in an eighth of the memory

    def beliefs(self, reading: Reading) -> Beliefs:
        """The posteriors after the findings of the visit, coded ones and those in its text."""
        engine, work = self._engine, self._work_up(reading)
        rare = _TEMPERING * engine.joint_log_likelihood(engine.rare, work)
        common = _TEMPERING * engine.joint_log_likelihood(engine.common, work)
        return Beliefs(work, _posterior(rare), _posterior(common + engine.common.prior))

    def _work_up(self, reading: Reading) -> "Workup":
        from rarealert.teachers.reasoners.engine import work_up

        work = work_up(reading, self.ontology)
        case, living = reading.case, self.ontology.terms
        present = dict.fromkeys((*work.present, *(case.findings_present or ())))
        excluded = dict.fromkeys((*work.excluded, *(case.findings_excluded or ())))
        return replace(
            work,
            present=tuple(term for term in present if term in living),
            excluded=tuple(term for term in excluded if term in living and term not in present),
        )

    def chances(self, beliefs: Beliefs) -> "tuple[Vector, Vector]":
        """P(finding | rare) and P(finding | common) of each askable finding, ``(n_askable,)``."""
        rare, common = self._chances
        return rare @ beliefs.rare, common @ beliefs.common

    def heads(self, beliefs: Beliefs, count: int = 4, examples: int = 3) -> tuple[LikelyHead, ...]:
        """The ``count`` classification heads with the largest share of the belief in rare diseases.

        Empty where the visit has no finding: all diseases are then alike. Each head lists the
        ``examples`` likeliest diseases below it.
        """
        import numpy as np

        from rarealert.knowledge.heads import load_derived_heads

        if not beliefs.work.present:
            return ()
        heads = load_derived_heads()
        weights: dict[str, float] = {}
        diseases: dict[str, list[LikelyDisease]] = {}
        for row in np.argsort(-beliefs.rare, kind="stable"):
            profile = self._engine.rare.profiles[row]
            head = heads.get(profile.disease_id)
            if head is None:
                continue
            weights[head] = weights.get(head, 0.0) + float(beliefs.rare[row])
            listed = diseases.setdefault(head, [])
            if len(listed) < examples:
                listed.append(LikelyDisease(profile.disease_id, profile.name))
        ranked = sorted(weights, key=lambda head: (-weights[head], head))[:count]
        return tuple(LikelyHead(head, weights[head], tuple(diseases[head])) for head in ranked)


def _posterior(logs: "Vector") -> "Vector":
    import numpy as np

    weights: Vector = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """The packaged knowledge, built once a process (some seconds, about 100 MB)."""
    from rarealert.simulation.vocabulary import load_vocabulary
    from rarealert.teachers.reasoners.engine import load_engine

    return Knowledge(load_engine(), load_vocabulary())


@dataclass(frozen=True)
class AnswerOption:
    """One answer to a question: its chance 0-1 in either kind of visit, and the visit with it.

    ``risk`` is that of the visit with the answer, ``None`` before it was scored.
    """

    label: str
    chance_if_rare: float
    chance_if_common: float
    case: Case
    risk: float | None = None

    def chance(self, risk: float) -> float:
        """P(answer | visit), 0 to 1, for a visit of this ``risk``."""
        return risk * self.chance_if_rare + (1 - risk) * self.chance_if_common


@dataclass(frozen=True)
class Question:
    """A question in lay words. ``key`` is an HPO id, or the name of an absent field.

    ``wording`` names the finding as the visit would. ``profile_change`` and ``expected_change`` are
    in risk, 0 to 1: the former ``None`` for a field, the latter before its answers were scored.
    """

    key: str
    kind: Literal["symptom", "sign", "field"]
    text: str
    wording: str
    answers: tuple[AnswerOption, ...]
    profile_change: float | None = None
    expected_change: float | None = None


@dataclass(frozen=True)
class Questions:
    """Findings to ask for and absent fields, each best first, and the heads that findings fit."""

    findings: tuple[Question, ...]
    fields: tuple[Question, ...]
    heads: tuple[LikelyHead, ...]


def next_questions(
    reading: Reading,
    risk: float,
    score: RiskFunction,
    knowledge: Knowledge,
    *,
    count: int = 3,
    skip: frozenset[str] = frozenset(),
) -> Questions:
    """The ``count`` most useful findings, and all absent fields; none with a key in ``skip``.

    ``risk`` is the visit's, 0-1. ``score`` is called once, with the visits of all answers.
    """
    beliefs = knowledge.beliefs(reading)
    found = finding_questions(reading.case, risk, beliefs, knowledge, count, skip)
    absent = [each for each in field_questions(reading.case) if each.key not in skip]
    visits = [read_visit(answer.case) for each in (*found, *absent) for answer in each.answers]
    weighed = weigh([*found, *absent], risk, score(visits) if visits else ())
    fields = sorted(weighed[len(found) :], key=lambda each: -(each.expected_change or 0.0))
    return Questions(tuple(weighed[: len(found)]), tuple(fields), knowledge.heads(beliefs))


def weigh(questions: Sequence[Question], risk: float, risks: Sequence[float]) -> list[Question]:
    """Add ``expected_change``; ``risks`` are those of all answers, in order."""
    remaining = iter(risks)
    return [_weighed(question, risk, remaining) for question in questions]


def _weighed(question: Question, risk: float, risks: Iterator[float]) -> Question:
    answers = tuple(replace(answer, risk=float(next(risks))) for answer in question.answers)
    change = sum(each.chance(risk) * abs((each.risk or 0.0) - risk) for each in answers)
    return replace(question, answers=answers, expected_change=change)


def finding_questions(
    case: Case,
    risk: float,
    beliefs: Beliefs,
    knowledge: Knowledge,
    count: int,
    skip: frozenset[str] = frozenset(),
) -> tuple[Question, ...]:
    """The ``count`` unknown findings of the largest ``profile_change``, best first.

    Of two findings one of which implies the other, only the better is kept.
    """
    rare, common = knowledge.chances(beliefs)
    difference = abs(rare - common)
    barred, implied = _known(beliefs, knowledge, skip)
    chosen: list[Question] = []
    for place in (-difference).argsort(kind="stable"):
        if len(chosen) == count:
            break
        finding = knowledge.askable[place]
        if not _can_ask(finding, case, barred, implied):
            continue
        chances = float(rare[place]), float(common[place])
        change = 2 * risk * (1 - risk) * float(difference[place])
        chosen.append(finding_question(case, finding, chances, change))
        implied |= finding.ancestors
        barred |= {finding.hpo_id}
    return tuple(chosen)


def _known(
    beliefs: Beliefs, knowledge: Knowledge, skip: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Ids whose descendants need no question, and ids that a present finding implies."""
    living = knowledge.ontology.terms
    present = [term for term in beliefs.work.present if term in living]
    above = (knowledge.ontology.ancestors(term) for term in (*present, *(skip & living.keys())))
    return skip | frozenset(beliefs.work.excluded), frozenset[str]().union(*above)


def _can_ask(
    finding: VisitFinding, case: Case, barred: frozenset[str], implied: frozenset[str]
) -> bool:
    if finding.hpo_id in implied or barred & finding.ancestors:
        return False
    if case.age_years is not None and not finding.age_min <= case.age_years <= finding.age_max:
        return False
    return case.sex is None or finding.sex in (None, case.sex)


def finding_question(
    case: Case, finding: VisitFinding, chances: tuple[float, float], change: float
) -> Question:
    """A yes-or-no question; ``chances`` are those of a yes if rare and if common.

    Its text is that of ``question_wordings.tsv``; a finding that is not listed there, which few
    visits need, is named by HPO's lay synonym, or by HPO's name.
    """
    rare, common = chances
    wording = _wording(finding)
    plain = f"Any {wording}?" if finding.symptom else f"On examination: any {wording}?"
    text = _question_wordings().get(finding.hpo_id, plain)
    answers = (
        AnswerOption("yes", rare, common, with_finding(case, finding, present=True)),
        AnswerOption("no", 1 - rare, 1 - common, with_finding(case, finding, present=False)),
    )
    kind: Literal["symptom", "sign"] = "symptom" if finding.symptom else "sign"
    return Question(finding.hpo_id, kind, text, wording, answers, change)


def _wording(finding: VisitFinding) -> str:
    return (finding.lay or finding.clinical)[0]


def with_finding(case: Case, finding: VisitFinding, *, present: bool) -> Case:
    """The visit with the answer as a sentence of its history, or of its examination for a sign.

    The student reads text alone, so the answer must be in the text.
    """
    sentence = f"There is {'' if present else 'no '}{_wording(finding)}."
    field = "history_of_present_illness" if finding.symptom else "physical_examination"
    before = (getattr(case, field) or "")[: MAX_TEXT - len(sentence) - 1].rstrip()
    return case.model_copy(update={field: f"{before} {sentence}" if before else sentence})


def field_questions(case: Case) -> Iterator[Question]:
    """One question for each absent field with known typical answers."""
    for field, rows in _typical_answers().items():
        if getattr(case, field) is None:
            answers = tuple(
                AnswerOption(label, share, share, case.model_copy(update={field: value}))
                for _, label, share, value in rows
            )
            yield Question(field, "field", rows[0][0], field.replace("_", " "), answers)


@lru_cache(maxsize=1)
def _question_wordings() -> dict[str, str]:
    """Questions in lay words by HPO id, for the findings that visits most often need."""
    return {row["hpo_id"]: row["question"] for row in _table("question_wordings.tsv")}


@lru_cache(maxsize=1)
def _typical_answers() -> dict[str, list[tuple[str, str, float, str | float]]]:
    """Per field: question, label of the answer, share of visits that give it, value."""
    rows: dict[str, list[tuple[str, str, float, str | float]]] = {}
    for row in _table("field_questions.tsv"):
        value = float(row["value"]) if row["field"] == "age_years" else row["value"]
        answer = (row["question"], row["answer"], float(row["share"]), value)
        rows.setdefault(row["field"], []).append(answer)
    return rows


def _table(name: str) -> Iterator[dict[str, str]]:
    text = files("rarealert.screening").joinpath(name).read_text("utf-8")
    return csv.DictReader(text.splitlines(), delimiter="\t")
