"""``rarealert score``: score the locked test part, and the validation part, with every model.

This is the only stage where a model predicts test cases. Teachers, ensemble, student, the encoder
it is compared with and the negative controls score the same cases, into
``build/score/predictions.parquet``; the student's risks of perturbed test cases go into
``robustness.parquet`` beside it. Encoder and controls are fitted here, on the training part.
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
from rarealert.student.data import LabelledReading, read_labelled, read_targets
from rarealert.teachers.teacher_answer import AnswerRow, graded_risk, read_answers
from rarealert.tracking.items import Dataset, Item, Metric, Summary
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import Reading, read_visit
from rarealert.visits.store import read_cases

if TYPE_CHECKING:
    import pandas as pd

Risks = Mapping[str, float]

BASELINE = f"{BASELINE_PREFIX}minilm"


def score(params: Params, paths: Paths) -> Iterator[Item]:
    """Predict valid and test with every model and write the checked predictions."""
    split = paths.build("split")
    cases: dict[str, list[LabelledReading]] = {}
    for part in ("train", *PARTS):
        file = split / f"{part}.parquet"
        cases[part] = read_labelled(read_cases(file))
        yield Dataset(f"split.{part}", file, sha256_of_file(file), len(cases[part]), part)
    check_lock(cases["test"], paths.report("split") / "lock.json")
    scored = [item for part in PARTS for item in cases[part]]
    readings = [item.reading for item in scored]
    wanted = {item.case.case_id for item in scored}
    answers = read_answers(paths.build("rationales") / "answers.parquet")
    answers = [answer for answer in answers if answer.case_id in wanted]

    models: dict[str, Risks] = dict(teacher_risks(answers))
    models[ENSEMBLE] = ensemble_risks(paths.build("align") / "model.skops", answers, readings)
    _check_ensemble(models[ENSEMBLE], answers)
    adapter, started = paths.build("distil") / "adapter", time.perf_counter()
    models[STUDENT] = student_risks(adapter, readings, params.score.batch_size)
    yield Metric("student.cases_per_second", len(scored) / (time.perf_counter() - started))
    models[BASELINE] = baseline_risks(params, paths, cases)
    models |= _control_risks(cases["train"], scored, params.score.seed)

    frame = _frame(models, {item.case.case_id: part for part in PARTS for item in cases[part]})
    check_predictions(frame, {part: [item.case.case_id for item in cases[part]] for part in PARTS})
    write_predictions(paths.build("score") / "predictions.parquet", frame)
    yield from _score_perturbed(params, paths, cases["test"])
    for model, risks in models.items():
        yield Metric(f"{model.replace(':', '.')}.coverage", len(risks) / max(1, len(scored)))
    yield Summary(
        f"{len(models)} models scored {len(cases['test']):,} test and "
        f"{len(cases['valid']):,} validation cases"
    )


def check_lock(test: Sequence[LabelledReading], lock: Path) -> None:
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

    predictions = Student.load(adapter).predict(readings, batch_size)
    return {item.case_id: item.risk for item in predictions}


def baseline_risks(
    params: Params, paths: Paths, cases: Mapping[str, Sequence[LabelledReading]]
) -> Risks:
    """The risks of packaged MiniLM with LoRA, fitted to the student's cases and targets."""
    from rarealert.student.baseline import Recipe, minilm_risks

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
    test = [item.reading for item in cases["test"]]
    return minilm_risks(cases["train"], cases["valid"], targets, test, recipe)


def _score_perturbed(
    params: Params, paths: Paths, test: Sequence[LabelledReading]
) -> Iterator[Item]:
    """The student on a sample of test cases after each perturbation; writes their risks."""
    import pandas as pd

    from rarealert.evaluation.robustness import COLUMNS, write_robustness
    from rarealert.simulation.perturbations import perturbed_cases

    chosen = params.score
    recorded = [LabelledCase(case=item.case, label=item.label) for item in test]
    perturbed = perturbed_cases(recorded, chosen.robustness_cases, chosen.seed)
    adapter = paths.build("distil") / "adapter"
    readings = [read_visit(item.case) for item in perturbed]
    risks = student_risks(adapter, readings, chosen.batch_size)
    rows = [(item.case_id, item.perturbation, risks[item.case.case_id]) for item in perturbed]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    write_robustness(paths.build("score") / "robustness.parquet", frame)
    yield Metric("robustness.visits", len(perturbed))


def teacher_risks(answers: Sequence[AnswerRow]) -> dict[str, dict[str, float]]:
    """Risks 0-1 by teacher; a failed or missing answer has no entry, never a zero."""
    risks: dict[str, dict[str, float]] = {}
    for item in answers:
        if item.answer is not None:
            of_teacher = risks.setdefault(f"{TEACHER_PREFIX}{item.teacher}", {})
            of_teacher[item.case_id] = graded_risk(item.answer.risk, item.answer.expected_risk)
    return dict(sorted(risks.items()))


def _control_risks(
    train: Sequence[LabelledReading], scored: Sequence[LabelledReading], seed: int
) -> dict[str, dict[str, float]]:
    from rarealert.evaluation.controls import control_frame, fit_controls

    rare = [item.is_rare for item in train]
    fitted = fit_controls(control_frame([item.case for item in train]), rare, seed)
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
    missing = answered - set(risks)
    if missing:
        raise BadInputError(
            f"The ensemble has no risk for {len(missing)} cases that a teacher answered, among "
            f"them {min(missing)}; run dvc repro align."
        )


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("score", score)
