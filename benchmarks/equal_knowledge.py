"""How well do student and reasoners rank with the profiles of the judged diseases, and without?

Command: ``python benchmarks/equal_knowledge.py`` in a workspace whose ``distil`` ran. Student and
reasoners look findings up in all profiles, those that simulated patients were drawn from included
(docs/decisions/0005). Here each judges the test part twice: with all profiles, and without those of
the diseases of validation and test part, as if nobody had described them yet. The student is the
same in both: it was fitted with all profiles, and what it learnt of findings is without them
anyway. Prints AUROC with 95 % intervals over whole diseases, and the paired difference to the
student with the same profiles.

It reads the test part. Choose nothing by what it prints.
"""

import sys
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np

from rarealert.evaluation.intervals import Bootstrap, Estimate
from rarealert.evaluation.study import Study, compare, evaluate
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.profiles import (
    CommonCondition,
    DiseaseProfile,
    load_common_conditions,
    load_information_content,
    load_rare_profiles,
)
from rarealert.paths import Paths
from rarealert.simulation.corpus import keys_of
from rarealert.student.data import read_held_out
from rarealert.student.model import Student
from rarealert.student.package import load_package
from rarealert.student.profile_match import ProfileMatch, make_library
from rarealert.teachers.reasoners.engine import Engine, work_up
from rarealert.teachers.reasoners.ranking import Space
from rarealert.teachers.reasoners.reasoner import METHODS
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit
from rarealert.visits.store import disease_groups, is_rare, read_cases

PLAN = Bootstrap(2000, 0.95, 0)
EQUAL = "{}, without held-out profiles"


def main() -> None:
    """Measure, and print a table."""
    paths = Paths.here()
    items = read_cases(paths.build("split") / "test.parquet")
    cases = [item.case for item in items]
    barred = read_held_out(paths.build("split") / "held_out.json")
    risks: dict[str, np.ndarray] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for pattern, kept in (("{}", frozenset[str]()), (EQUAL, barred)):
        student = pattern.format("student")
        risks[student] = _student(paths, cases, kept)
        for name, said in _judged(_without(kept), cases).items():
            risks[pattern.format(name)] = said
            pairs[pattern.format(name)] = student, pattern.format(name)
    study = Study(
        np.asarray(is_rare(items), dtype=float), np.asarray(disease_groups(items)), risks, {}
    )
    told = evaluate(study, {"all": np.arange(len(items))}, ("auroc",), PLAN)["all"]
    beside = compare(study, pairs, "auroc", PLAN)
    print("| model | AUROC | student minus it | p (Holm) |\n| --- | --- | --- | --- |")
    for name, result in told.items():
        one = beside.get(name)
        ending = f"{_cell(one.difference)} | {one.p_holm:.4f}" if one else "- | -"
        print(f"| {name} | {_cell(result.estimates['auroc'])} | {ending} |")
    print(f"\nn = {len(items)}, {len(set(study.clusters))} diseases, {len(barred)} keys held out")


def _student(paths: Paths, cases: Sequence[Case], barred: frozenset[str]) -> np.ndarray:
    card, base, head, _ = load_package(paths.build("distil") / "adapter")
    content = load_information_content()
    match = ProfileMatch(make_library(*_profiles(barred), content))
    said = Student(card, base, head, match).predict(
        [read_visit(case) for case in cases], batch_size=32
    )
    return np.asarray([one.risk for one in said])


def _profiles(barred: frozenset[str]) -> tuple[list[DiseaseProfile], list[CommonCondition]]:
    """All profiles without any disease that has a key in ``barred``."""
    return (
        [profile for profile in load_rare_profiles() if not keys_of(profile) & barred],
        [one for one in load_common_conditions() if not keys_of(one.profile) & barred],
    )


def _without(barred: frozenset[str]) -> Engine:
    kept = _profiles(barred)
    return Engine(load_ontology(), *kept, load_information_content())


def _judged(engine: Engine, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    space = Space(engine)
    with patch.object(sys.modules[Space.__module__], "load_space", lambda: space):
        found = [
            {
                name: method(engine, work_up(read_visit(case), engine.ontology)).risk
                for name, method in METHODS.items()
            }
            for case in cases
        ]
    return {name: np.asarray([one[name] for one in found]) / 100 for name in METHODS}


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"


if __name__ == "__main__":
    main()
