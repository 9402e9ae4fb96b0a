"""How well do the reasoners rank without the profiles that the student never saw?

Command: ``python benchmarks/equal_knowledge.py`` in a workspace whose ``score`` ran. The student
learns from no profile of a disease of the validation or test part (docs/decisions/0120); the
reasoners hold all of them, those that simulated patients were drawn from included. Here each
reasoner judges the test part twice: with all it knows, and with those profiles taken away. Prints
AUROC with 95 % intervals over whole diseases, and the paired difference to the student.

It reads the test part. Choose nothing by what it prints.
"""

import sys
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq

from rarealert.cases.case import Case
from rarealert.cases.render import render
from rarealert.cases.simulate_knowledge import keys_of
from rarealert.cases.store import disease_groups, is_rare, read_cases
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.information import load_information_content
from rarealert.knowledge.profiles import load_common_conditions, load_rare_profiles
from rarealert.knowledge.recognise import load_recogniser
from rarealert.metrics.intervals import Bootstrap
from rarealert.metrics.panel import Estimate, Study, compare, evaluate
from rarealert.paths import Paths
from rarealert.student.knowledge import read_barred
from rarealert.teachers.reasoners import METHODS
from rarealert.teachers.reasoners.engine import Engine, load_engine
from rarealert.teachers.reasoners.retrieval import Space

PLAN = Bootstrap(2000, 0.95, 0)
EQUAL = "{}, without held-out profiles"


def main() -> None:
    """Measure, and print a table."""
    paths = Paths.here()
    items = read_cases(paths.build("split") / "test.parquet")
    cases = [item.case for item in items]
    barred = read_barred(paths.build("split") / "held_out.json")
    risks = {"student": _student(paths, cases)}
    for pattern, engine in (("{}", load_engine()), (EQUAL, _without(barred))):
        risks |= {pattern.format(name): said for name, said in _judged(engine, cases).items()}
    study = Study(
        np.asarray(is_rare(items), dtype=float), np.asarray(disease_groups(items)), risks, {}
    )
    told = evaluate(study, {"all": np.arange(len(items))}, ("auroc",), PLAN)["all"]
    pairs = {name: ("student", name) for name in risks if name != "student"}
    beside = compare(study, pairs, "auroc", PLAN)
    print("| model | AUROC | student minus it | p (Holm) |\n| --- | --- | --- | --- |")
    for name, result in told.items():
        one = beside.get(name)
        ending = f"{_cell(one.difference)} | {one.p_holm:.4f}" if one else "- | -"
        print(f"| {name} | {_cell(result.estimates['auroc'])} | {ending} |")
    print(f"\nn = {len(items)}, {len(set(study.clusters))} diseases, {len(barred)} keys held out")


def _student(paths: Paths, cases: Sequence[Case]) -> np.ndarray:
    rows = pq.read_table(
        paths.build("score") / "predictions.parquet", columns=["case_id", "model", "part", "risk"]
    ).to_pylist()
    said = {
        row["case_id"]: row["risk"]
        for row in rows
        if row["model"] == "student" and row["part"] == "test"
    }
    return np.asarray([said[case.case_id] for case in cases])


def _without(barred: frozenset[str]) -> Engine:
    """The engine without any disease that has a key in ``barred``."""
    return Engine(
        load_ontology(),
        load_recogniser(),
        [profile for profile in load_rare_profiles() if not keys_of(profile) & barred],
        [one for one in load_common_conditions() if not keys_of(one.profile) & barred],
        dict(load_information_content()),
    )


def _judged(engine: Engine, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    space = Space(engine)
    with patch.object(sys.modules[Space.__module__], "load_space", lambda: space):
        found = [
            {
                name: method(engine, engine.work_up(render(case))).risk
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
