"""From the student's logit to a probability, and from the probability to a band.

Platt scaling (Platt 1999) or isotonic regression (Zadrozny & Elkan 2002), whichever has the
lower log loss on held-out folds of the validation part.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Band = Literal["alert", "watch", "low"]

_FLOOR = 1e-3  # an isotonic step of exactly 0 or 1 would claim certainty from a few cases
_PLATT_STRENGTH = 1e3  # inverse penalty: two numbers of hundreds of cases need none
_ALERT_SPECIFICITY = 0.95
_WATCH_SENSITIVITY = 0.90


class Calibration(BaseModel):
    """A fitted map from logit to risk: two numbers for Platt, steps for isotonic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["platt", "isotonic"]
    slope: float = 1.0
    intercept: float = 0.0
    logits: tuple[float, ...] = ()
    risks: tuple[float, ...] = ()

    def risk(self, logits: Floats) -> Floats:
        """Calibrated risk 0-1, shape ``(n,)``, of uncalibrated ``logits``, shape ``(n,)``."""
        if self.kind == "platt":
            return np.asarray(1 / (1 + np.exp(-(self.slope * logits + self.intercept))))
        return np.interp(logits, self.logits, self.risks)

    def estimator(self) -> Any:
        """The same map as scikit-learn's own fitted estimator, for whoever works with that.

        A ``LogisticRegression`` whose ``predict_proba`` reads logits ``(n, 1)``, or an
        ``IsotonicRegression`` whose ``predict`` reads logits ``(n,)``.
        """
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression

        if self.kind == "isotonic":
            steps = IsotonicRegression(y_min=_FLOOR, y_max=1 - _FLOOR, out_of_bounds="clip")
            return steps.fit(self.logits, self.risks)
        model = LogisticRegression(C=_PLATT_STRENGTH)
        model.classes_ = np.array([False, True])
        model.coef_ = np.array([[self.slope]])
        model.intercept_ = np.array([self.intercept])
        model.n_features_in_ = 1
        return model


class Bands(BaseModel):
    """Risks from which a visit is an alert, or one to watch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alert: float
    watch: float

    def band(self, risk: float) -> Band:
        """The band of a calibrated ``risk``."""
        if risk >= self.alert:
            return "alert"
        return "watch" if risk >= self.watch else "low"


def fit_calibration(
    logits: Floats, rare: NDArray[np.bool_], groups: Sequence[str], seed: int
) -> Calibration:
    """The better of Platt and isotonic by log loss on five folds grouped by disease."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    losses = {}
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    parts = [
        (fit, held)
        for fit, held in folds.split(logits[:, None], rare, groups)
        if len(set(rare[fit])) > 1
    ]
    for fitter in (_platt, _isotonic):
        held_risk, held_rare = [], []
        for fit, held in parts:
            held_risk.append(fitter(logits[fit], rare[fit]).risk(logits[held]))
            held_rare.append(rare[held])
        losses[fitter] = log_loss(
            np.concatenate(held_rare), np.concatenate(held_risk), labels=[False, True]
        )
    best = min(losses, key=lambda fitter: losses[fitter])
    return best(logits, rare)


def fit_bands(risk: Floats, rare: NDArray[np.bool_]) -> Bands:
    """Alert at 95 % specificity, watch at 90 % sensitivity, never above the alert."""
    alert = float(np.quantile(risk[~rare], _ALERT_SPECIFICITY, method="higher"))
    above = risk[risk > alert]
    alert = float(above.min()) if len(above) else float(np.nextafter(alert, 2))
    watch = float(np.quantile(risk[rare], 1 - _WATCH_SENSITIVITY, method="lower"))
    return Bands(alert=alert, watch=min(watch, alert))


def _platt(logits: Floats, rare: NDArray[np.bool_]) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_PLATT_STRENGTH).fit(logits[:, None], rare)
    slope = max(float(model.coef_[0, 0]), 1e-6)  # a risk that falls with the logit is no risk
    return Calibration(kind="platt", slope=slope, intercept=float(model.intercept_[0]))


def _isotonic(logits: Floats, rare: NDArray[np.bool_]) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=_FLOOR, y_max=1 - _FLOOR, out_of_bounds="clip")
    model.fit(logits, rare.astype(float))
    return Calibration(
        kind="isotonic",
        logits=tuple(float(value) for value in model.X_thresholds_),
        risks=tuple(float(value) for value in model.y_thresholds_),
    )
