"""Does asking what is worth most raise AUROC faster than asking at random?

    python benchmarks/asking.py --adapter build/distil/adapter --cases build/split/valid.parquet \
        --out build/asking --count 200

Each held-out visit is cut to age, sex, complaint and past history. A policy then asks one question
at a time, gets the true answer (from the coded findings that the visit was drawn with, or the
field that was cut), and the student scores the visit again. Policies:

- ``page``: what the clinic page asks first, the finding that splits the disease profiles most;
- ``student``: of the page's three findings and the absent fields, the one whose answers are
  expected to change the student's risk most;
- ``likeliest``: the finding with the highest chance of a yes;
- ``random``: any finding with a chance of at least 5 %, or an absent field.

With ``--fresh N`` the file only says which diseases are asked about: N new visits of them are
simulated, half of each label, so that chance in the visits and in the random order is less.

Writes ``asking.json`` and ``asking.png``; prints a Markdown table.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.metrics import auroc
from rarealert.knowledge.hpo import load_ontology
from rarealert.screening.next_questions import (
    Knowledge,
    Question,
    field_questions,
    finding_questions,
    load_knowledge,
    weigh,
    with_finding,
)
from rarealert.simulation.corpus import keys_of, knowledge_cases
from rarealert.simulation.world import load_world
from rarealert.student.model import Student
from rarealert.visits.case import Case, LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import read_cases

CUT = ("history_of_present_illness", "physical_examination", "family_history", "vitals")
POOL = 60  # findings by the differential among which `likeliest` and `random` look
PLAUSIBLE = 0.05  # chance of a yes below which nobody would ask
BATCH = 32
RESAMPLES = 1000
SEED = 20260201

Floats = NDArray[np.float64]
Score = Callable[[Sequence[Case]], list[float]]


@dataclass(frozen=True)
class Patient:
    """A visit as far as it is known, the whole of it, and the keys of what was asked."""

    whole: LabelledCase
    known: Case
    asked: frozenset[str] = frozenset()


Policy = Callable[[Patient, float, random.Random], list[Question]]
"""What may be asked of a patient whose present risk is given; of several, the student chooses."""


def first(items: Sequence[LabelledCase], half: int) -> list[LabelledCase]:
    """The first ``half`` of either label."""
    kept = [[i for i in items if i.label.label == label][:half] for label in ("rare", "nonrare")]
    return [item for part in kept for item in part]


def fresh(items: Sequence[LabelledCase], count: int) -> list[LabelledCase]:
    """``count`` new visits of the diseases of ``items``, rare and non-rare in turn."""
    held = {item.label.disease_id for item in items}
    world = load_world()
    profiles = (
        *(disease.profile for disease in world.rare),
        *(condition.profile for condition in world.conditions),
    )
    others = frozenset().union(*(keys_of(one) for one in profiles if one.disease_id not in held))
    return list(knowledge_cases(count, others, SEED))


def masked(item: LabelledCase) -> Patient:
    """The visit without what is to be asked for, and without its coded findings."""
    hidden = dict.fromkeys((*CUT, "findings_present", "findings_excluded"))
    return Patient(item, item.case.model_copy(update=hidden))


def answered(patient: Patient, question: Question, knowledge: Knowledge) -> Patient:
    """The patient after the true answer; an answer that the visit does not hold changes nothing."""
    asked = patient.asked | {question.key}
    whole = patient.whole.case
    if question.kind == "field":
        told = {question.key: getattr(whole, question.key)}
        return replace(patient, known=patient.known.model_copy(update=told), asked=asked)
    finding = next(each for each in knowledge.askable if each.hpo_id == question.key)
    ancestors = load_ontology().ancestors
    present = any(question.key in ancestors(term) for term in whole.findings_present or ())
    vague = any(term in finding.ancestors for term in whole.findings_present or ())
    if vague and not present:  # told only roughly: whether it was this one is not known
        return replace(patient, asked=asked)
    known = with_finding(patient.known, finding, present=present)
    return replace(patient, known=known, asked=asked)


def policies(knowledge: Knowledge) -> dict[str, Policy]:
    """Each policy by name."""

    def pool(patient: Patient, risk: float, count: int) -> list[Question]:
        beliefs = knowledge.beliefs(read_visit(patient.known))
        found = finding_questions(patient.known, risk, beliefs, knowledge, count, patient.asked)
        return list(found)

    def absent(patient: Patient) -> list[Question]:
        return [q for q in field_questions(patient.known) if q.key not in patient.asked]

    def page(patient: Patient, risk: float, _rng: random.Random) -> list[Question]:
        return pool(patient, risk, 1)

    def student(patient: Patient, risk: float, _rng: random.Random) -> list[Question]:
        return [*pool(patient, risk, 3), *absent(patient)]

    def likeliest(patient: Patient, risk: float, _rng: random.Random) -> list[Question]:
        found = pool(patient, risk, POOL)
        return sorted(found, key=lambda each: -each.answers[0].chance(risk))[:1]

    def at_random(patient: Patient, risk: float, rng: random.Random) -> list[Question]:
        plausible = pool(patient, risk, POOL)
        likely = [q for q in plausible if q.answers[0].chance(risk) >= PLAUSIBLE]
        found = [*likely, *absent(patient)]
        return [rng.choice(found)] if found else []

    named = {"page": page, "student": student, "likeliest": likeliest}
    return {**named, "random": at_random}


def choose(
    offered: Sequence[list[Question]], risks: Sequence[float], score: Score
) -> list[Question | None]:
    """The best question of each patient; all answers of all patients are scored together."""
    open_to = [found if len(found) > 1 else [] for found in offered]
    cases = [answer.case for found in open_to for each in found for answer in each.answers]
    told = iter(score(cases) if cases else ())
    chosen: list[Question | None] = []
    for found, risk in zip(offered, risks, strict=True):
        if len(found) > 1:
            own = [next(told) for each in found for _ in each.answers]
            weighed = weigh(found, risk, own)
            chosen.append(max(weighed, key=lambda question: question.expected_change or 0.0))
        else:
            chosen.append(next(iter(found), None))
    return chosen


def curve(
    items: Sequence[LabelledCase], policy: Policy, score: Score, knowledge: Knowledge, count: int
) -> tuple[Floats, float]:
    """Risks after 0 to ``count`` answers, ``(count + 1, n)``; share of findings answered "yes"."""
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    patients = [masked(item) for item in items]
    risks = [score([patient.known for patient in patients])]
    yes = asked = 0
    for _ in range(count):
        pairs = zip(patients, risks[-1], strict=True)
        offered = [policy(patient, risk, rng) for patient, risk in pairs]
        after = []
        for patient, question in zip(patients, choose(offered, risks[-1], score), strict=True):
            told = patient if question is None else answered(patient, question, knowledge)
            if question is not None and question.kind != "field":
                asked += 1
                yes += told.known == question.answers[0].case
            after.append(told)
        patients = after
        risks.append(score([patient.known for patient in patients]))
    return np.array(risks), yes / max(1, asked)


def reading_of_answers(
    items: Sequence[LabelledCase], score: Score, knowledge: Knowledge
) -> dict[str, float]:
    """How the student reads "There is …" and "There is no …" of what splits the differential most.

    Shares of answers that move the risk the way that the profiles say, and the correlation of both
    answers' shifts of log-odds: 1 is a student that reads the finding and not the "no".
    """
    known = [masked(item).known for item in items]
    asked: list[tuple[int, bool, Question]] = []
    for place, case in enumerate(known):
        beliefs = knowledge.beliefs(read_visit(case))
        rare, common = knowledge.chances(beliefs)
        raises = {f.hpo_id: bool(rare[i] > common[i]) for i, f in enumerate(knowledge.askable)}
        found = finding_questions(case, 0.5, beliefs, knowledge, 3)
        asked += [(place, raises[question.key], question) for question in found]
    before = logit(np.array(score(known))[[place for place, _, _ in asked]])
    told = score([answer.case for _, _, question in asked for answer in question.answers])
    shifts = logit(np.array(told)).reshape(-1, 2) - before[:, None]
    towards = shifts * np.array([[1, -1] if raises else [-1, 1] for _, raises, _ in asked])
    return {
        "n": len(asked),
        "yes_right_way": round(float((towards[:, 0] > 0).mean()), 3),
        "no_right_way": round(float((towards[:, 1] > 0).mean()), 3),
        "correlation": round(float(np.corrcoef(shifts.T)[0, 1]), 3),
    }


def logit(risks: Floats) -> Floats:
    """Log-odds of risks 0-1."""
    inside = np.clip(risks, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def resampled(items: Sequence[LabelledCase], risks: Floats) -> tuple[Floats, Floats]:
    """AUROC of each row of risks, ``(rows,)``, and of each bootstrap draw of whole diseases."""
    labels = np.array([item.label.label == "rare" for item in items])
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.label.disease_id, []).append(place)
    names, rng = sorted(groups), np.random.default_rng(SEED)
    drawn: list[list[float]] = []
    while len(drawn) < RESAMPLES:
        chosen = [p for i in rng.integers(len(names), size=len(names)) for p in groups[names[i]]]
        if 0 < labels[chosen].sum() < len(chosen):
            drawn.append([auroc(labels[chosen], row[chosen]) for row in risks])
    return np.array([auroc(labels, row) for row in risks]), np.array(drawn)


def interval(draws: Floats) -> list[float]:
    """Percentile interval of 95 %."""
    return [round(float(edge), 4) for edge in np.quantile(draws, (0.025, 0.975), axis=0)]


def summary(
    items: Sequence[LabelledCase], curves: dict[str, tuple[Floats, float]]
) -> dict[str, Any]:
    """AUROC after each answer, and each policy's mean gain over ``random``, with intervals."""
    values = {name: resampled(items, risks) for name, (risks, _) in curves.items()}
    told: dict[str, Any] = {"n": len(items), "policies": {}, "above_random": {}}
    for name, (points, draws) in values.items():
        told["policies"][name] = {
            "auroc": [round(float(point), 4) for point in points],
            "interval": [interval(draws[:, step]) for step in range(len(points))],
            "share_yes": round(curves[name][1], 3),
        }
        if name != "random" and "random" in values:
            mean = (points - values["random"][0])[1:].mean()
            gains = (draws - values["random"][1])[:, 1:].mean(axis=1)
            told["above_random"][name] = {
                "mean_auroc_gain": round(float(mean), 4),
                "interval": interval(gains),
            }
    return told


def plot(told: dict[str, Any], path: Path) -> None:
    """AUROC against the number of questions, one line a policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    def gain(name: str) -> str:
        if name not in told["above_random"]:
            return ""
        above = told["above_random"][name]
        low, high = above["interval"]
        return f": {above['mean_auroc_gain']:+.3f} over random ({low:+.3f} to {high:+.3f})"

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for place, (name, each) in enumerate(told["policies"].items()):
        middle = (len(told["policies"]) - 1) / 2
        steps = np.arange(len(each["auroc"])) + 0.06 * (place - middle)
        edges = np.abs(np.array(each["interval"]).T - np.array(each["auroc"]))
        axes.errorbar(
            steps, each["auroc"], yerr=edges, marker="o", capsize=2, lw=1.2, label=name + gain(name)
        )
    axes.set(xlabel="questions answered", ylabel="AUROC of the student")
    axes.set_xticks(range(len(next(iter(told["policies"].values()))["auroc"])))
    axes.set_title(f"Asking {told['n']:,} masked held-out visits", loc="left")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the policies and write what came out."""
    parser = argparse.ArgumentParser(description="AUROC against the number of questions asked.")
    parser.add_argument("--adapter", type=Path, required=True, help="the student's folder")
    parser.add_argument("--cases", type=Path, required=True, help="a part's parquet file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=200, help="visits, half of each label")
    parser.add_argument("--fresh", type=int, default=0, help="new visits of the same diseases")
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--policies", default="random,page,likeliest,student")
    chosen = parser.parse_args()
    student, knowledge = Student.load(chosen.adapter), load_knowledge()

    def score(cases: Sequence[Case]) -> list[float]:
        return [each.risk for each in student.predict([read_visit(case) for case in cases], BATCH)]

    every = read_cases(chosen.cases)
    items = fresh(every, chosen.fresh) if chosen.fresh else first(every, chosen.count // 2)
    chosen.out.mkdir(parents=True, exist_ok=True)
    known = policies(knowledge)
    curves: dict[str, tuple[Floats, float]] = {}
    told: dict[str, Any] = {}
    answers = reading_of_answers(items[:: max(1, len(items) // 40)], score, knowledge)
    print("how answers are read:", answers, flush=True)
    for name in chosen.policies.split(","):
        curves[name] = curve(items, known[name], score, knowledge, chosen.questions)
        told = {**summary(items, curves), "answers": answers}
        text = json.dumps(told, indent=2, sort_keys=True) + "\n"
        (chosen.out / "asking.json").write_text(text, encoding="utf-8")
        print(name, told["policies"][name], told["above_random"].get(name), flush=True)
    plot(told, chosen.out / "asking.png")
    for name, each in told["policies"].items():
        pairs = zip(each["auroc"], each["interval"], strict=True)
        cells = " | ".join(f"{a:.3f} ({low:.3f} to {high:.3f})" for a, (low, high) in pairs)
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
