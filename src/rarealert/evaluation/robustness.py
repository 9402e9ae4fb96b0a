"""What the student says of the same visit told otherwise: changes of its risk, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.errors import BadInputError
from rarealert.evaluation.discrimination import FloatArray, IntArray, Ranking, auroc_of
from rarealert.evaluation.intervals import Bootstrap, draw
from rarealert.evaluation.measures import Estimate, Study
from rarealert.files import whole

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("case_id", "perturbation", "risk")


@dataclass(frozen=True)
class Retold:
    """One perturbation: the ``index`` of its cases in the study and the risk of each retold."""

    index: IntArray
    risks: FloatArray


def robustness(
    study: Study, model: str, retold: Mapping[str, Retold], plan: Bootstrap
) -> dict[str, dict[str, Any]]:
    """How the risks of ``model`` move, by perturbation.

    ``mean_change`` and ``mean_absolute_change`` of the risk, ``changed_alerts`` (share of cases
    that cross the alert threshold either way) and ``auroc_change``, each an estimate with its
    interval over whole diseases, and ``largest_change``. ``auroc_change`` is absent where the
    cases hold one label, ``changed_alerts`` where the model has no threshold.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, told in retold.items():
        if not told.index.size:
            continue
        before = study.risks[model][told.index]
        change = told.risks - before
        row: dict[str, Any] = {
            "n": int(told.index.size),
            "n_rare": int(study.labels[told.index].sum()),
            "largest_change": float(np.abs(change).max()),
        }
        means = {"mean_change": change, "mean_absolute_change": np.abs(change)}
        if model in study.thresholds:
            alert = study.thresholds[model].at_95_specificity
            means["changed_alerts"] = ((told.risks >= alert) != (before >= alert)).astype(float)
        groups = np.unique(study.diseases[told.index], return_inverse=True)[1].reshape(-1)
        for figure, values in means.items():
            row[figure] = _mean(values, groups, plan)
        row["auroc_change"] = _auroc_change(study, model, told, plan)
        found[name] = {key: value for key, value in row.items() if value is not None}
    return found


def _mean(values: FloatArray, groups: IntArray, plan: Bootstrap) -> Estimate | None:
    """The mean of ``values`` and its interval over resamples of ``groups``."""
    if np.unique(groups).size < 2:
        return None
    sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    chunks = [(weights @ sums) / (weights @ sizes) for weights in plan.weights(sizes.size)]
    value = float(values.mean())
    interval = plan.interval(value, np.concatenate(chunks))
    return None if interval is None else Estimate(value, *interval, n=values.size)


def _auroc_change(study: Study, model: str, told: Retold, plan: Bootstrap) -> Estimate | None:
    labels = study.labels[told.index]
    if np.unique(labels).size < 2:
        return None
    after = np.full(study.labels.size, np.nan)
    after[told.index] = told.risks
    both = Study(study.labels, study.clusters, {"0": study.risks[model], "1": after}, {})
    jobs = {name: both.job(name, told.index, {"auroc": auroc_of}) for name in ("0", "1")}
    drawn = draw(jobs, study.diseases, plan)
    values = [float(auroc_of(Ranking(labels, job.risks).count())[0]) for job in jobs.values()]
    value = values[1] - values[0]
    interval = plan.interval(value, drawn["1"]["auroc"] - drawn["0"]["auroc"])
    return None if interval is None else Estimate(value, *interval, n=told.index.size)


def write_robustness(path: Path, frame: "pd.DataFrame") -> None:
    """Write ``frame`` with the columns ``COLUMNS`` to a file that appears once it is whole."""
    ordered = frame.sort_values(["perturbation", "case_id"], kind="stable")
    with whole(path) as partial:
        ordered[list(COLUMNS)].astype({"risk": np.float64}).to_parquet(partial, index=False)


def read_robustness(path: Path, case_ids: list[str]) -> dict[str, Retold]:
    """The retold risks at ``path``; ``case_ids`` are the study's cases in their order.

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
            f"{path} can't be read as retold risks; delete it and run dvc repro score."
        ) from error
    bad = frame["risk"].isna() | (frame["risk"] < 0) | (frame["risk"] > 1)
    bad |= ~frame["case_id"].isin(case_ids) | frame.duplicated(["case_id", "perturbation"])
    if bad.any():
        row = frame[bad].iloc[0]
        raise BadInputError(
            f"{path}: {row['perturbation']} of case {row['case_id']} has the risk {row['risk']}, "
            "is foreign to the test part or stands there twice; run dvc repro score."
        )
    place = {case_id: at for at, case_id in enumerate(case_ids)}
    return {
        str(name): Retold(
            np.array([place[case_id] for case_id in rows["case_id"]], dtype=np.intp),
            rows["risk"].to_numpy(np.float64),
        )
        for name, rows in frame.groupby("perturbation")
    }
