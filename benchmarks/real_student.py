"""How well does the student rank and calibrate cases of diseases that it never saw, over all cases?

Command: ``python benchmarks/real_student.py KEPT`` in a workspace whose ``rationales`` ran, such as
that of ``make repro-real`` (settings: those that its ``tune`` chose). The locked test part is a
quarter of the cases and was read for each version of the student. Here every case is judged once:
five folds without a disease, a patient or a near-duplicate on two sides, and for each of them
split, align and distil anew, with one fold to test, the next to validate and three to train. The
passes of LoRA are left out, for they move the AUROC of real cases by less than 0.001 and take most
of the time, and so are rationales, on which no risk depends: what is judged is the fitted head with
all that it reads. TF-IDF is fitted on the same training parts. Prints, for each source, AUROC,
calibration slope and ECE with 95 % intervals over whole diseases, and the paired differences.
A fold that is done lies in the folder KEPT and is not done again.

It reads the test part. Choose nothing by what it prints.
"""

import csv
import json
import shutil
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from rarealert.evaluation.controls import control_frame, fit_controls
from rarealert.evaluation.intervals import Bootstrap, Estimate
from rarealert.evaluation.study import Study, compare, evaluate
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.splits.leakage import near_duplicates, tied_groups
from rarealert.stages.align import align
from rarealert.stages.distil import distil
from rarealert.stages.score import student_risks
from rarealert.stages.split import split
from rarealert.visits.case import Case, LabelledCase
from rarealert.visits.reading import read_visit, render
from rarealert.visits.store import disease_groups, is_rare, read_cases

FOLDS = 5
METRICS = ("auroc", "calibration_slope", "ece")
PLAN = Bootstrap(2000, 0.95, 0)
PARTS = ("test", "valid")  # of the fold itself and of the next; the others train

Risks = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Corpus:
    """All cases with their folds, the workspace they come from, and where folds are kept."""

    cases: list[LabelledCase]
    fold_of: np.ndarray
    paths: Paths
    kept: Path


def main() -> None:
    """Measure, and print two tables for each source."""
    paths, kept = Paths.here(), Path(sys.argv[1]).absolute()
    params = load_params(paths.params)
    cases = sorted(
        read_cases(paths.build("ingest") / "cases.parquet"), key=lambda item: item.case.case_id
    )
    corpus = Corpus(cases, folds(cases, params), paths, kept)
    told: Risks = {}
    for fold in range(FOLDS):
        for model, risks in judged(fold, corpus, params).items():
            told.setdefault(model, {}).update(risks)
    sources = np.asarray([item.case.source for item in cases])
    for source in (*np.unique(sources), None):
        among = np.flatnonzero(sources == source) if source else np.arange(len(cases))
        report(str(source or "pooled"), [cases[row] for row in among], told)


def folds(cases: list[LabelledCase], params: Params) -> np.ndarray:
    """The fold of each case; whatever ``split`` never parts is in one."""
    chosen = params.split
    duplicates = near_duplicates(
        [render(item.case) for item in cases],
        chosen.near_duplicate_jaccard,
        chosen.minhash_permutations,
        chosen.seed,
    )
    group = np.empty(len(cases), dtype=int)
    for number, positions in enumerate(tied_groups(cases, duplicates)):
        group[list(positions)] = number
    labels = zip(cases, is_rare(cases), strict=True)
    stratum = [f"{item.case.source} {rare}" for item, rare in labels]
    fold_of = np.empty(len(cases), dtype=int)
    plan = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=chosen.seed)
    for number, (_, held_out) in enumerate(plan.split(stratum, stratum, group)):
        fold_of[held_out] = number
    return fold_of


def judged(fold: int, corpus: Corpus, params: Params) -> Risks:
    """Risks of the fold's cases by model, from a student that saw neither them nor their like."""
    done = corpus.kept / f"fold-{fold}.json"
    if done.is_file():
        return json.loads(done.read_text())
    home = aligned(fold, corpus, params)
    deque(distil(fitted_alone(params), home), maxlen=0)
    train = read_cases(home.build("split") / "train.parquet")
    test = [item.case for item in read_cases(home.build("split") / "test.parquet")]
    adapter, readings = home.build("distil") / "adapter", [read_visit(case) for case in test]
    found: Risks = {
        "student": dict(student_risks(adapter, readings, params.score.batch_size)),
        "tfidf": tfidf_risks(train, test, params.score.seed),
    }
    done.write_text(json.dumps(found))
    print(f"fold {fold}: {len(train)} train, {len(test)} test", flush=True)
    return found


def aligned(fold: int, corpus: Corpus, params: Params) -> Paths:
    """A workspace in which the fold is the test part, with what ``align`` made of the others."""
    home = Paths(corpus.kept / f"fold-{fold}")
    if (home.build("align") / "risk.parquet").is_file():
        return home
    shutil.rmtree(home.root, ignore_errors=True)
    (home.root / "build").mkdir(parents=True)
    for stage in ("ingest", "rationales", "tune"):
        home.build(stage).symlink_to(corpus.paths.build(stage))
    home.data.mkdir()
    with (home.data / "folds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("case_id", "part"))
        for item, number in zip(corpus.cases, corpus.fold_of, strict=True):
            place = (number - fold) % FOLDS
            rows.writerow((item.case.case_id, (*PARTS, *["train"] * FOLDS)[place]))
    assigned = params.split.model_copy(update={"assign": "data/folds.csv"})
    for stage in (split, align):
        deque(stage(params.model_copy(update={"split": assigned}), home), maxlen=0)
    return home


def fitted_alone(params: Params) -> Params:
    """The same without LoRA's passes and rationales."""
    nothing = dict.fromkeys(
        ("epochs", "correction_epochs", "rationale_cases", "correction_rationales"), 0
    )
    return params.model_copy(update={"distil": params.distil.model_copy(update=nothing)})


def tfidf_risks(train: list[LabelledCase], test: list[Case], seed: int) -> dict[str, float]:
    """What TF-IDF, fitted on ``train``, says of ``test``, by case id."""
    frame = control_frame([item.case for item in train])
    tfidf = fit_controls(frame, is_rare(train), seed)["tfidf"]
    asked = control_frame(test)
    return dict(zip(asked["case_id"], tfidf.predict(asked).tolist(), strict=True))


def report(name: str, cases: list[LabelledCase], told: Risks) -> None:
    """Print what each model reaches on ``cases``, and the student minus TF-IDF."""
    risks = {
        model: np.asarray([said[item.case.case_id] for item in cases])
        for model, said in told.items()
    }
    rare, groups = np.asarray(is_rare(cases), dtype=float), np.asarray(disease_groups(cases))
    study = Study(rare, groups, risks, {})
    result = evaluate(study, {"all": np.arange(len(cases))}, METRICS, PLAN)["all"]
    print(f"\n| {name}, n = {len(cases)} ({len(set(groups))} diseases) | {' | '.join(METRICS)} |")
    print(f"| --- {'| --- ' * len(METRICS)}|")
    for model, one in result.items():
        print(f"| {model} | {' | '.join(cell(one.estimates[metric]) for metric in METRICS)} |")
    pair = compare(study, {"difference": ("student", "tfidf")}, "auroc", PLAN)["difference"]
    print(f"\nstudent minus TF-IDF: {cell(pair.difference)}, p {pair.p_holm:.4f}", flush=True)


def cell(estimate: Estimate) -> str:
    """A figure with its interval."""
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"


if __name__ == "__main__":
    main()
