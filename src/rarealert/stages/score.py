"""Score the locked test part, and the validation part, with every model: ``rarealert score``.

The only stage that lets a model see the test part. Teachers, ensemble, student, the encoder it is
measured against and the negative controls score the same cases, into
``build/score/predictions.parquet``; the student's risks of test cases told otherwise go into
``robustness.parquet`` beside it. Baseline and controls are fitted here, on the training part.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import BadInputError
from rarealert.evaluation.predictions import (
    BASELINE_PREFIX,
    CONTROL_PREFIX,
    ENSEMBLE,
    PARTS,
    STUDENT,
    TEACHER_PREFIX,
    check_predictions,
    write_predictions,
)
from rarealert.files import sha256_of_file
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.splits.parts import lock_digest
from rarealert.stages.harness import run_stage
from rarealert.teachers.answer import AnswerRow, graded_risk, read_answers
from rarealert.tracking.items import Dataset, Item, Metric, Summary
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import Reading, read_visit
from rarealert.visits.store import is_rare, read_cases

if TYPE_CHECKING:
    import pandas as pd

Risks = Mapping[str, float]

BASELINE = f"{BASELINE_PREFIX}minilm"


def score(params: Params, paths: Paths) -> Iterator[Item]:
    """Predict valid and test with every model and write the checked predictions."""
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("train", *PARTS)}
    check_lock(cases["test"], paths.report("split") / "lock.json")
    for part, of_part in cases.items():
        yield _dataset(f"split.{part}", split / f"{part}.parquet", len(of_part), part)

    scored = [item for part in PARTS for item in cases[part]]
    wanted = {item.case.case_id for item in scored}
    answers = [
        answer
        for answer in read_answers(paths.build("rationales") / "answers.parquet")
        if answer.case_id in wanted
    ]
    models: dict[str, Risks] = dict(_teacher_risks(answers))
    visits = [item.case for item in scored]
    readings = [read_visit(case) for case in visits]
    models[ENSEMBLE] = ensemble_risks(paths.build("align") / "model.skops", answers, readings)
    started = time.perf_counter()
    models[STUDENT] = student_risks(
        paths.build("distil") / "adapter", readings, params.score.batch_size
    )
    yield Metric("student.cases_per_second", len(visits) / (time.perf_counter() - started))
    models[BASELINE] = baseline_risks(params, paths, cases)
    models |= _control_risks(cases["train"], scored, params.score.seed)

    part_of = {item.case.case_id: part for part in PARTS for item in cases[part]}
    frame = _frame(models, part_of)
    check_predictions(frame, {part: [item.case.case_id for item in cases[part]] for part in PARTS})
    _check_ensemble(models[ENSEMBLE], answers)
    write_predictions(paths.build("score") / "predictions.parquet", frame)
    yield from _score_perturbed(params, paths, cases["test"])
    for model, risks in models.items():
        yield Metric(f"{model.replace(':', '.')}.coverage", len(risks) / max(1, len(scored)))
    yield Summary(
        f"{len(models)} models scored {len(cases['test']):,} test and "
        f"{len(cases['valid']):,} validation cases"
    )


def check_lock(test: Sequence[LabelledCase], lock: Path) -> None:
    """Refuse a test part that is not the one the split stage locked.

    Raises:
        BadInputError: the lock is missing or unreadable, or its digest is another one.
    """
    if not lock.is_file():
        raise BadInputError(f"{lock} is missing; run the split stage (dvc repro split).")
    try:
        locked = json.loads(lock.read_text(encoding="utf-8"))["test_lock"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{lock} holds no test_lock; run the split stage again.") from error
    found = lock_digest(item.case.case_id for item in test)
    if found != locked:
        raise BadInputError(
            f"The test part has the digest {found[:12]}, but {lock} locks {str(locked)[:12]}; "
            "restore the locked part, or lock the new one on purpose by running split."
        )


def ensemble_risks(model: Path, answers: Sequence[AnswerRow], readings: Sequence[Reading]) -> Risks:
    """The frozen ensemble's risk of each visit that a teacher answered."""
    from rarealert.ensemble.ensemble import load_ensemble

    return load_ensemble(model).predict(answers, readings)


def student_risks(adapter: Path, readings: Sequence[Reading], batch_size: int) -> Risks:
    """The distilled student's risk of each case."""
    from rarealert.student.model import Student

    said = Student.load(adapter).predict(readings, batch_size)
    return {item.case_id: item.risk for item in said}


def baseline_risks(
    params: Params, paths: Paths, cases: Mapping[str, Sequence[LabelledCase]]
) -> Risks:
    """What packaged MiniLM with LoRA says, having learnt from the student's cases and targets."""
    from rarealert.student.baseline import Recipe, minilm_risks
    from rarealert.student.data import read_labelled, read_targets

    chosen = params.score
    recipe = Recipe(
        chosen.baseline_max_tokens,
        chosen.baseline_epochs,
        chosen.baseline_learning_rate,
        chosen.baseline_rank,
        chosen.baseline_soft_weight,
        chosen.seed,
    )
    targets = read_targets(paths.build("align") / "risk.parquet", "train")
    train, valid = (read_labelled(cases[part]) for part in ("train", "valid"))
    test = [read_visit(item.case) for item in cases["test"]]
    return minilm_risks(train, valid, targets, test, recipe)


def _score_perturbed(params: Params, paths: Paths, test: Sequence[LabelledCase]) -> Iterator[Item]:
    """The student on a sample of test cases after each perturbation; writes their risks."""
    import pandas as pd

    from rarealert.evaluation.robustness import COLUMNS, write_robustness
    from rarealert.simulation.perturbations import perturbed_cases

    perturbed = perturbed_cases(test, params.score.robustness_cases, params.score.seed)
    adapter = paths.build("distil") / "adapter"
    risks = student_risks(
        adapter, [read_visit(item.case) for item in perturbed], params.score.batch_size
    )
    rows = [(item.case_id, item.perturbation, risks[item.case.case_id]) for item in perturbed]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    write_robustness(paths.build("score") / "robustness.parquet", frame)
    yield Metric("robustness.visits", len(perturbed))


def _teacher_risks(answers: Sequence[AnswerRow]) -> dict[str, dict[str, float]]:
    """Risks 0 to 1 by teacher; a failed or missing answer has no entry, never a zero."""
    risks: dict[str, dict[str, float]] = {}
    for item in answers:
        if item.answer is not None:
            of_teacher = risks.setdefault(f"{TEACHER_PREFIX}{item.teacher}", {})
            of_teacher[item.case_id] = graded_risk(item.answer.risk, item.answer.expected_risk)
    return dict(sorted(risks.items()))


def _control_risks(
    train: Sequence[LabelledCase], scored: Sequence[LabelledCase], seed: int
) -> dict[str, dict[str, float]]:
    from rarealert.evaluation.controls import control_frame, fit_controls

    fitted = fit_controls(control_frame([item.case for item in train]), is_rare(train), seed)
    frame = control_frame([item.case for item in scored])
    return {
        f"{CONTROL_PREFIX}{name}": dict(
            zip(frame["case_id"], control.predict(frame).tolist(), strict=True)
        )
        for name, control in fitted.items()
    }


def _frame(models: Mapping[str, Risks], part_of: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    rows = [
        (case_id, part_of[case_id], model, float(risk))
        for model, risks in models.items()
        for case_id, risk in risks.items()
    ]
    return pd.DataFrame(rows, columns=["case_id", "part", "model", "risk"])


def _check_ensemble(risks: Risks, answers: Sequence[AnswerRow]) -> None:
    answered = {item.case_id for item in answers if item.answer is not None}
    silent = answered - set(risks)
    if silent:
        raise BadInputError(
            f"The ensemble has no risk for {len(silent)} cases that a teacher answered, among "
            f"them {min(silent)}; run dvc repro align."
        )


def _dataset(name: str, path: Path, rows: int, context: str) -> Dataset:
    digest = sha256_of_file(path)
    return Dataset(name=name, path=path, digest=digest, rows=rows, context=context)


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("score", score)
