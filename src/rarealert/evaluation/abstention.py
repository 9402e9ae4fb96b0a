"""When a model should say that it does not know: abstention curves and conformal sets.

Everything is chosen on the validation part; the test part only shows what it brought.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rarealert.calibration.conformal import fit_cuts
from rarealert.evaluation.discrimination import (
    FloatArray,
    Ranking,
    RiskCounts,
    sensitivity_of,
    specificity_of,
)
from rarealert.evaluation.intervals import Bootstrap, Job, draw
from rarealert.evaluation.measures import Estimate, Study

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of validation cases that the model decides on; it abstains on the rest."""

LEVELS = (0.8, 0.9, 0.95)
"""Share of each label's cases whose conformal set is to hold their label."""


def balanced_error_of(counts: RiskCounts, threshold: float) -> FloatArray:
    """Mean of the share of rare cases missed and of non-rare cases flagged at ``threshold``."""
    right = sensitivity_of(counts, threshold) + specificity_of(counts, threshold)
    return np.asarray(1 - right / 2)


def balanced_threshold(labels: FloatArray, risks: FloatArray) -> float:
    """The risk with the lowest balanced error on these cases (Youden, Cancer 3:32, 1950)."""
    counts = Ranking(labels, risks).count()
    missed = (counts.rare_up_to - counts.rare)[0] / counts.n_rare[0]
    silent = (counts.nonrare_up_to - counts.nonrare)[0] / counts.n_nonrare[0]
    return float(counts.risk[int(np.argmin(missed - silent))])


def abstention(
    study: Study, valid: Mapping[str, tuple[FloatArray, FloatArray]], plan: Bootstrap
) -> dict[str, list[dict[str, Any]]]:
    """Balanced error of each model over the share of cases it decides on.

    A model's sureness of a case is how many validation risks lie between the case and the
    threshold with the lowest balanced error: a scale that does not depend on calibration, so that
    models compare (after Geifman and El-Yaniv, NeurIPS 2017). ``valid`` holds labels and risks
    of the validation cases that each model answered. A row a coverage: ``target`` and achieved
    ``coverage`` (0-1), ``n`` decided and the ``balanced_error`` with its interval.
    """
    jobs: dict[str, Job] = {}
    coverage: dict[str, float] = {}
    for model, (labels, risks) in valid.items():
        answered = study.answered(model, np.arange(study.labels.size))
        if not answered.size or np.unique(labels).size < 2:
            continue
        at = balanced_threshold(labels, risks)
        order = np.sort(risks)
        known = _sureness(order, at, risks)
        sure = _sureness(order, at, study.risks[model][answered])
        for target in COVERAGES:
            kept = answered[sure >= np.quantile(known, 1 - target)] if target < 1 else answered
            if np.unique(study.labels[kept]).size == 2:
                name = f"{model}\n{target}"
                metrics = {"balanced_error": partial(balanced_error_of, threshold=at)}
                jobs[name] = study.job(model, kept, metrics)
                coverage[name] = kept.size / answered.size
    drawn = draw(jobs, study.diseases, plan)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, job in jobs.items():
        model, _, target_text = name.partition("\n")
        found = _estimate(job, "balanced_error", drawn[name]["balanced_error"], plan)
        if found is not None:
            rows.setdefault(model, []).append(
                {
                    "target": float(target_text),
                    "coverage": coverage[name],
                    "n": found.n,
                    "balanced_error": found,
                }
            )
    return rows


def conformal(
    study: Study, model: str, labels: FloatArray, risks: FloatArray, plan: Bootstrap
) -> list[dict[str, Any]]:
    """Prediction sets of ``model`` that hold the right label of each kind at a given level.

    Split conformal prediction by class (Vovk, ACML 2012; Sadinle et al., JASA 114:223, 2019):
    with the validation ``labels`` and ``risks``, rare belongs to the set where the risk reaches
    ``rare_from``, non-rare where it is at most ``nonrare_to``. The promise holds for cases of
    known diseases; the test part's diseases are new, so the coverage is measured, not assumed.
    """
    index = study.answered(model, np.arange(study.labels.size))
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
                **{name: _estimate(job, name, drawn[name], plan) for name in metrics},
            }
        )
    return rows


def _sureness(order: FloatArray, threshold: float, risks: FloatArray) -> FloatArray:
    """Share of the sorted validation risks between ``threshold`` and each risk."""

    def place(values: FloatArray) -> FloatArray:
        left = np.searchsorted(order, values, side="left")
        return np.asarray((left + np.searchsorted(order, values, side="right")) / 2)

    # The threshold itself is the first flagged risk: the boundary lies just below it.
    boundary = float(np.searchsorted(order, threshold, side="left"))
    return np.asarray(np.abs(place(risks) - boundary) / order.size)


def _estimate(job: Job, name: str, drawn: FloatArray, plan: Bootstrap) -> Estimate | None:
    value = float(job.metrics[name](Ranking(job.labels, job.risks).count())[0])
    interval = None if np.isnan(value) else plan.interval(value, drawn)
    return None if interval is None else Estimate(value, *interval, n=job.index.size)
