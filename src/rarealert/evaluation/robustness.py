"""Robustness: how the student's risks change when the same visits are perturbed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.errors import BadInputError
from rarealert.evaluation.intervals import Bootstrap, Estimate, draw
from rarealert.evaluation.metrics import FloatArray, IntArray, auroc_of
from rarealert.evaluation.study import Study
from rarealert.files import whole

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("case_id", "perturbation", "risk")


@dataclass(frozen=True)
class Perturbed:
    """Risks after one perturbation: ``index`` of the cases in the study, and their new risks."""

    index: IntArray
    risks: FloatArray


def robustness(
    study: Study, model: str, perturbed: Mapping[str, Perturbed], plan: Bootstrap
) -> dict[str, dict[str, Any]]:
    """Changes of the risks of ``model``, by perturbation.

    ``mean_change`` and ``mean_absolute_change`` of the risk, ``changed_alerts`` (share of cases
    that cross the alert threshold either way) and ``auroc_change``, each an estimate with its
    interval over whole diseases, and ``largest_change``. ``auroc_change`` is absent where the
    cases have one label, ``changed_alerts`` where the model has no threshold.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, after in perturbed.items():
        if not after.index.size:
            continue
        before = study.risks[model][after.index]
        change = after.risks - before
        row: dict[str, Any] = {
            "n": int(after.index.size),
            "n_rare": int(study.labels[after.index].sum()),
            "largest_change": float(np.abs(change).max()),
        }
        means = {"mean_change": change, "mean_absolute_change": np.abs(change)}
        if model in study.thresholds:
            alert = study.thresholds[model].at_95_specificity
            means["changed_alerts"] = ((after.risks >= alert) != (before >= alert)).astype(float)
        groups = np.unique(study.diseases[after.index], return_inverse=True)[1].reshape(-1)
        for figure, values in means.items():
            row[figure] = _mean(values, groups, plan)
        row["auroc_change"] = _auroc_change(study, model, after, plan)
        found[name] = {key: value for key, value in row.items() if value is not None}
    return found


def _mean(values: FloatArray, groups: IntArray, plan: Bootstrap) -> Estimate | None:
    """The mean of ``values`` and its interval over resamples of ``groups``."""
    if np.unique(groups).size < 2:
        return None
    sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    draws = [(weights @ sums) / (weights @ sizes) for weights in plan.weights(sizes.size)]
    return plan.estimate(float(values.mean()), np.concatenate(draws), values.size)


def _auroc_change(study: Study, model: str, after: Perturbed, plan: Bootstrap) -> Estimate | None:
    before = study.job(model, after.index, {"auroc": auroc_of})
    if not before.has_both_labels:
        return None
    jobs = {"before": before, "after": replace(before, model="perturbed", risks=after.risks)}
    drawn = draw(jobs, study.diseases, plan)
    value = jobs["after"].observed["auroc"] - before.observed["auroc"]
    draws = drawn["after"]["auroc"] - drawn["before"]["auroc"]
    return plan.estimate(value, draws, after.index.size)


def write_robustness(path: Path, frame: "pd.DataFrame") -> None:
    """Write ``frame`` with the columns ``COLUMNS`` atomically."""
    ordered = frame.sort_values(["perturbation", "case_id"], kind="stable")
    with whole(path) as partial:
        ordered[list(COLUMNS)].astype({"risk": np.float64}).to_parquet(partial, index=False)


def read_robustness(path: Path, case_ids: Sequence[str]) -> dict[str, Perturbed]:
    """The risks at ``path`` by perturbation; ``case_ids`` are the study's cases in their order.

    Raises:
        BadInputError: the file is missing, is not Parquet, names a case outside the study or one
            twice, or holds a risk that is no probability.
    """
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the score stage (dvc repro score).")
    try:
        frame = pd.read_parquet(path, columns=list(COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            f"{path} can't be read as risks of perturbed visits; delete it and run dvc repro score."
        ) from error
    bad = frame["risk"].isna() | (frame["risk"] < 0) | (frame["risk"] > 1)
    bad |= ~frame["case_id"].isin(case_ids) | frame.duplicated(["case_id", "perturbation"])
    if bad.any():
        row = frame[bad].iloc[0]
        raise BadInputError(
            f"{path}: {row['perturbation']} of case {row['case_id']} has the risk {row['risk']}; "
            "expected a number in 0-1, once for each case of the test part. Run dvc repro score."
        )
    place = {case_id: at for at, case_id in enumerate(case_ids)}
    return {
        str(name): Perturbed(
            np.array([place[case_id] for case_id in rows["case_id"]], dtype=np.intp),
            rows["risk"].to_numpy(np.float64),
        )
        for name, rows in frame.groupby("perturbation")
    }
