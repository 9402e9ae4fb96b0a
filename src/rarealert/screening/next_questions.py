"""What the findings of a visit say of the disease behind it: posteriors over profiles.

Findings are taken as independent given the disease, with the likelihoods of the reasoners'
engine (true-path rule, imprecise findings through the ontology; after LIRICAL, Robinson et al.
2020, Am J Hum Genet 107:403). This is knowledge alone: the student has no part in it.

What to ask next: the findings that split the diseases most, and what each answer would change.

Two values of a question stand beside each other. Both are the mean absolute change of the risk over
its answers, sum over answers a of P(a | visit) * |risk(visit and a) - risk(visit)|: the expected
value of information with the risk itself as the quantity of interest (Howard 1966, IEEE Trans Syst
Sci Cybern 2:22).

- ``profile_change``: by Bayes' rule on the disease profiles alone, which for a finding is
  2 r (1 - r) |P(finding | rare) - P(finding | common)| with r the risk. Findings are asked in its
  order, the only one shown to raise AUROC faster than asking at random (docs/results.md).
- ``expected_change``: what the student would make of the answers. It is told with each question and
  orders absent fields, of which the profiles say nothing; it does not choose among findings
  (docs/decisions/0019-screening-in-a-clinic.md).

P(a | visit) of a finding comes from the profiles' posterior, mixed by the present risk; that of an
absent field from ``field_questions.tsv``.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from rarealert.knowledge.hpo import Ontology
from rarealert.screening.visit_files import MAX_TEXT
from rarealert.simulation.vocabulary import VisitFinding
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rarealert.knowledge.profiles import Vector
    from rarealert.simulation.vocabulary import VisitFinding
    from rarealert.teachers.reasoners.engine import Engine, Workup

_TEMPERING = 0.5
"""Exponent of each likelihood: findings are not independent, so their joint is overconfident."""


@dataclass(frozen=True, eq=False)
class Beliefs:
    """The posteriors of one visit, each summing to 1 over its own table of diseases.

    ``work`` is what was read from the visit; ``rare`` and ``common`` have one weight a disease.
    """

    work: "Workup"
    rare: "Vector"
    common: "Vector"


@dataclass(frozen=True)
class LikelyDisease:
    """A rare disease with the share of the belief in rare diseases that it holds, 0 to 1."""

    orpha_code: str
    name: str
    head: str | None
    share: float


@dataclass(frozen=True)
class LikelyHead:
    """An Orphanet classification head, its share of the belief in rare diseases, and examples."""

    head: str
    share: float
    diseases: tuple[LikelyDisease, ...]


class Knowledge:
    """The engine and the findings that a first visit can ask for; use ``load_knowledge``."""

    def __init__(self, engine: "Engine", askable: "Mapping[str, VisitFinding]") -> None:
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

    def beliefs(self, case: Case) -> Beliefs:
        """The posteriors after the findings of ``case``, coded ones and those in its text."""
        from rarealert.teachers.reasoners.engine import work_up

        work = _with_coded(work_up(read_visit(case), self.ontology), case)
        engine = self._engine
        rare = _TEMPERING * engine.joint_log_likelihood(engine.rare, work)
        common = _TEMPERING * engine.joint_log_likelihood(engine.common, work)
        return Beliefs(work, _posterior(rare), _posterior(common + engine.common.prior))

    def chances(self, beliefs: Beliefs) -> "tuple[Vector, Vector]":
        """P(finding | rare) and P(finding | common) of each askable finding, ``(n_askable,)``."""
        rare, common = self._chances
        return rare @ beliefs.rare, common @ beliefs.common

    def heads(self, beliefs: Beliefs, count: int = 4, examples: int = 3) -> tuple[LikelyHead, ...]:
        """The ``count`` classification heads that hold most of the belief in rare diseases.

        Empty where the visit has no finding: all diseases are then alike. Each head names the
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
            share, head = float(beliefs.rare[row]), heads.get(profile.disease_id)
            if head is None:
                continue
            weights[head] = weights.get(head, 0.0) + share
            known = diseases.setdefault(head, [])
            if len(known) < examples:
                known.append(LikelyDisease(profile.disease_id, profile.name, head, share))
        ranked = sorted(weights, key=lambda head: (-weights[head], head))[:count]
        return tuple(LikelyHead(head, weights[head], tuple(diseases[head])) for head in ranked)


def _with_coded(work: "Workup", case: Case) -> "Workup":
    from dataclasses import replace

    told = _merged(work.present, case.findings_present)
    denied = _merged(work.excluded, case.findings_excluded)
    return replace(work, present=told, excluded=tuple(t for t in denied if t not in told))


def _merged(read: Sequence[str], coded: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*read, *(coded or ()))))


def _posterior(logs: "Vector") -> "Vector":
    import numpy as np

    weights: Vector = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """The packaged knowledge, put together once a process (some seconds, about 100 MB)."""
    from rarealert.simulation.vocabulary import load_vocabulary
    from rarealert.teachers.reasoners.engine import load_engine

    return Knowledge(load_engine(), load_vocabulary())


Scorer = Callable[[Sequence[Case]], Sequence[float]]
"""Risk 0-1 of each case, in order; the registered student in use, anything in a test."""


@dataclass(frozen=True)
class Answer:
    """One answer to a question: the visit with it, and its chance, 0 to 1, in either kind of visit.

    ``risk`` is what the scorer says of the visit with the answer, ``None`` before it was asked.
    """

    label: str
    chance_if_rare: float
    chance_if_common: float
    case: Case
    risk: float | None = None

    def chance(self, risk: float) -> float:
        """P(answer | visit), 0 to 1, where the visit's risk is ``risk``."""
        return risk * self.chance_if_rare + (1 - risk) * self.chance_if_common


@dataclass(frozen=True)
class Question:
    """A question in lay words. ``key`` is an HPO id, or the name of an absent field.

    ``wording`` names the finding as the visit would. ``profile_change`` and ``expected_change`` are
    in risk, 0 to 1: the former ``None`` for a field, the latter before the student was asked.
    """

    key: str
    kind: Literal["symptom", "sign", "field"]
    text: str
    wording: str
    answers: tuple[Answer, ...]
    profile_change: float | None = None
    expected_change: float | None = None


@dataclass(frozen=True)
class Questions:
    """The visit's present risk, findings to ask for, and absent fields; each best first."""

    risk: float
    findings: tuple[Question, ...]
    fields: tuple[Question, ...]


def next_questions(
    case: Case,
    score: Scorer,
    knowledge: Knowledge,
    *,
    count: int = 3,
    skip: frozenset[str] = frozenset(),
) -> Questions:
    """The ``count`` findings worth asking for most, and all absent fields but ``skip``'s keys.

    The scorer is called twice: for the visit as it is, then once for all answered visits.
    """
    risk = float(score([case])[0])
    found = finding_questions(case, risk, knowledge.beliefs(case), knowledge, count, skip)
    absent = [each for each in field_questions(case) if each.key not in skip]
    told = [answer.case for each in (*found, *absent) for answer in each.answers]
    weighed = weigh([*found, *absent], risk, score(told) if told else ())
    fields = sorted(weighed[len(found) :], key=lambda each: -(each.expected_change or 0.0))
    return Questions(risk, tuple(weighed[: len(found)]), tuple(fields))


def weigh(asked: Sequence[Question], risk: float, risks: Sequence[float]) -> list[Question]:
    """``asked`` with what the student makes of the answers; ``risks`` are theirs, in order."""
    told = iter(risks)
    return [_weighed(question, risk, told) for question in asked]


def finding_questions(
    case: Case,
    risk: float,
    beliefs: Beliefs,
    knowledge: Knowledge,
    count: int,
    skip: frozenset[str] = frozenset(),
) -> tuple[Question, ...]:
    """The ``count`` unasked findings of the largest ``profile_change``, best first.

    Of two findings one of which implies the other, only the better is kept.
    """
    rare, common = knowledge.chances(beliefs)
    apart = abs(rare - common)
    barred, implied = _known(beliefs, knowledge, skip)
    chosen: list[Question] = []
    for place in (-apart).argsort(kind="stable"):
        if len(chosen) == count:
            break
        finding = knowledge.askable[place]
        if not _can_ask(finding, case, barred, implied):
            continue
        chances = float(rare[place]), float(common[place])
        change = 2 * risk * (1 - risk) * float(apart[place])
        chosen.append(finding_question(case, finding, chances, change))
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


def finding_question(
    case: Case, finding: VisitFinding, chances: tuple[float, float], change: float
) -> Question:
    """A yes-or-no question; ``chances`` are those of a yes if rare and if common.

    Its text is that of ``question_wordings.tsv``; a finding that is not listed there, which few
    visits ask for, is named as HPO's lay synonym does, or as HPO itself.
    """
    rare, common = chances
    wording = (finding.lay or finding.clinical)[0]
    plain = f"Any {wording}?" if finding.symptom else f"On examination: any {wording}?"
    text = _question_wordings().get(finding.hpo_id, plain)
    answers = (
        Answer("yes", rare, common, with_finding(case, finding, present=True)),
        Answer("no", 1 - rare, 1 - common, with_finding(case, finding, present=False)),
    )
    kind: Literal["symptom", "sign"] = "symptom" if finding.symptom else "sign"
    return Question(finding.hpo_id, kind, text, wording, answers, change)


def with_finding(case: Case, finding: VisitFinding, *, present: bool) -> Case:
    """The visit with the answer as a sentence of its history, or of its examination for a sign.

    The student reads text alone, so the sentence is what tells it.
    """
    wording = (finding.lay or finding.clinical)[0]
    said = f"There is {wording}." if present else f"There is no {wording}."
    field = "history_of_present_illness" if finding.symptom else "physical_examination"
    held = (getattr(case, field) or "")[: MAX_TEXT - len(said) - 1].rstrip()
    return case.model_copy(update={field: f"{held} {said}" if held else said})


def field_questions(case: Case) -> Iterator[Question]:
    """One question for each absent field that typical answers are known of."""
    for field, rows in _typical_answers().items():
        if getattr(case, field) is None:
            answers = tuple(
                Answer(label, share, share, case.model_copy(update={field: value}))
                for _, label, share, value in rows
            )
            yield Question(field, "field", rows[0][0], field.replace("_", " "), answers)


@lru_cache(maxsize=1)
def _question_wordings() -> dict[str, str]:
    """Questions in lay words by HPO id, for the findings that are asked for most."""
    return {row["hpo_id"]: row["question"] for row in _table("question_wordings.tsv")}


@lru_cache(maxsize=1)
def _typical_answers() -> dict[str, list[tuple[str, str, float, str | float]]]:
    """Per field: question, label of the answer, share of visits that give it, value."""
    rows: dict[str, list[tuple[str, str, float, str | float]]] = {}
    for row in _table("field_questions.tsv"):
        value = float(row["value"]) if row["field"] == "age_years" else row["value"]
        told = (row["question"], row["answer"], float(row["share"]), value)
        rows.setdefault(row["field"], []).append(told)
    return rows


def _table(name: str) -> Iterator[dict[str, str]]:
    text = files("rarealert.screening").joinpath(name).read_text("utf-8")
    return csv.DictReader(text.splitlines(), delimiter="\t")


def _weighed(question: Question, risk: float, risks: Iterator[float]) -> Question:
    answers = tuple(replace(answer, risk=float(next(risks))) for answer in question.answers)
    change = sum(each.chance(risk) * abs((each.risk or 0.0) - risk) for each in answers)
    return replace(question, answers=answers, expected_change=change)
