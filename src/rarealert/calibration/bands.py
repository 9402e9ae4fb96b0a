"""Bands of risk: alert, watch and low."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Band = Literal["alert", "watch", "low"]

_ALERT_SPECIFICITY = 0.95
_WATCH_SENSITIVITY = 0.90


class Bands(BaseModel):
    """The risks 0 to 1 from which a visit is in the bands "alert" and "watch"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alert: float
    watch: float

    def band(self, risk: float) -> Band:
        """Return the band of a calibrated ``risk``."""
        if risk >= self.alert:
            return "alert"
        return "watch" if risk >= self.watch else "low"


def fit_bands(risk: NDArray[np.float64], rare: NDArray[np.bool_]) -> Bands:
    """Fit alert at 95 % specificity and watch at 90 % sensitivity, never above the alert.

    ``risk`` and ``rare`` are those of the validation cases, shape ``(n,)``.
    """
    alert = float(np.quantile(risk[~rare], _ALERT_SPECIFICITY, method="higher"))
    above = risk[risk > alert]
    alert = float(above.min()) if len(above) else float(np.nextafter(alert, 2))
    watch = float(np.quantile(risk[rare], 1 - _WATCH_SENSITIVITY, method="lower"))
    return Bands(alert=alert, watch=min(watch, alert))
