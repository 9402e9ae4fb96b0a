"""Abstention and conformal sets: which cases a model should not decide, and what that brings.

Everything is chosen on the validation part and measured on the test part.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rarealert.calibration.conformal import fit_cuts
from rarealert.evaluation.intervals import Bootstrap, ResampleTask, draw
from rarealert.evaluation.metrics import FloatArray, RiskCounts, sensitivity_of, specificity_of
from rarealert.evaluation.study import Study

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of validation cases that the model decides; it abstains on the others."""

LEVELS = (0.8, 0.9, 0.95)
"""Nominal coverage of the conformal sets: the share of each label's cases that they contain."""


def balanced_error_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Mean of the share of rare cases missed and of non-rare cases flagged at ``threshold``."""
    right = sensitivity_of(counts, threshold) + specificity_of(counts, threshold)
    return np.asarray(1 - right / 2)


def balanced_threshold(labels: FloatArray, risks: FloatArray) -> float:
    """The risk with the lowest balanced error on these cases (Youden, Cancer 3:32, 1950)."""
    counts = RiskCounts.of(labels, risks)
    missed = (counts.rare_up_to - counts.rare)[0] / counts.n_rare[0]
    silent = (counts.nonrare_up_to - counts.nonrare)[0] / counts.n_nonrare[0]
    return float(counts.risk[int(np.argmin(missed - silent))])


def abstention(
    study: Study, valid: Mapping[str, tuple[FloatArray, FloatArray]], plan: Bootstrap
) -> dict[str, list[dict[str, Any]]]:
    """Balanced error of each model over the share of cases it decides.

    The confidence of a model in a case is the share of validation risks between the case and the
    threshold with the lowest balanced error. It does not depend on calibration, so models can be
    compared (after Geifman and El-Yaniv, NeurIPS 2017). ``valid`` holds labels and risks of the
    validation cases that each model answered.

    Returns:
        Rows by model, one a coverage: ``target`` and achieved ``coverage`` (0-1), ``n`` cases
        decided and their ``balanced_error`` with its interval.
    """
    jobs: dict[tuple[str, float], ResampleTask] = {}
    coverage: dict[tuple[str, float], float] = {}
    for model, (labels, risks) in valid.items():
        answered = study.answered(model)
        if not answered.size or np.unique(labels).size < 2:
            continue
        threshold = balanced_threshold(labels, risks)
        order = np.sort(risks)
        on_valid = _confidence(order, threshold, risks)
        on_test = _confidence(order, threshold, study.risks[model][answered])
        metrics = {"balanced_error": partial(balanced_error_of, threshold=threshold)}
        for target in COVERAGES:
            least = np.quantile(on_valid, 1 - target) if target < 1 else -np.inf
            job = study.job(model, answered[on_test >= least], metrics)
            if job.has_both_labels:
                jobs[model, target] = job
                coverage[model, target] = job.index.size / answered.size
    drawn = draw({f"{model} {target}": job for (model, target), job in jobs.items()},
                 study.diseases, plan)  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {}
    for (model, target), job in jobs.items():
        error = job.estimates(drawn[f"{model} {target}"], plan)["balanced_error"]
        if error is not None:
            row = {"target": target, "coverage": coverage[model, target], "n": error.n}
            rows.setdefault(model, []).append({**row, "balanced_error": error})
    return rows


def conformal(
    study: Study, model: str, labels: FloatArray, risks: FloatArray, plan: Bootstrap
) -> list[dict[str, Any]]:
    """Prediction sets of ``model`` that contain the right label of each kind at a given level.

    Split conformal prediction by class (Vovk, ACML 2012; Sadinle et al., JASA 114:223, 2019):
    with the validation ``labels`` and ``risks``, rare belongs to the set where the risk reaches
    ``rare_from``, non-rare where it is at most ``nonrare_to``. The guarantee holds for cases of
    known diseases; the test part's diseases are new, so the coverage is measured, not assumed.
    """
    index = study.answered(model)
    if min(np.unique(labels).size, np.unique(study.labels[index]).size) < 2:
        return []
    rows = []
    for level in LEVELS:
        cuts = fit_cuts(labels == 1, risks, level)
        rare_from = -np.inf if cuts.rare_from is None else cuts.rare_from
        above = np.inf if cuts.nonrare_to is None else float(np.nextafter(cuts.nonrare_to, np.inf))
        metrics = {
            "coverage_rare": partial(sensitivity_of, threshold=rare_from),
            "coverage_nonrare": partial(specificity_of, threshold=above),
        }
        job = study.job(model, index, metrics)
        drawn = draw({model: job}, study.diseases, plan)[model]
        may_be_rare, may_be_not = cuts.contains(job.risks)
        rows.append(
            {
                "level": level,
                "n": int(index.size),
                "rare_from": cuts.rare_from,
                "nonrare_to": cuts.nonrare_to,
                "one_label": float((may_be_rare ^ may_be_not).mean()),
                "both_labels": float((may_be_rare & may_be_not).mean()),
                "no_label": float((~may_be_rare & ~may_be_not).mean()),
                **job.estimates(drawn, plan),
            }
        )
    return rows


def _confidence(order: FloatArray, threshold: float, risks: FloatArray) -> FloatArray:
    """Share of the sorted validation risks between ``threshold`` and each risk."""
    left = np.searchsorted(order, risks, side="left")
    place = (left + np.searchsorted(order, risks, side="right")) / 2
    # The threshold itself is the first flagged risk: the boundary is just below it.
    boundary = float(np.searchsorted(order, threshold, side="left"))
    return np.asarray(np.abs(place - boundary) / order.size)
