"""A calibrated risk at another prevalence of rare disease."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarealert.errors import BadInputError


def shift_prevalence(
    risk: ArrayLike, calibrated_at: float, prevalence: float
) -> NDArray[np.float64]:
    """Restate ``risk`` for a population in which a share ``prevalence`` of visits is rare.

    Adds the difference of the prevalences' log odds to those of the risk (Saerens, Latinne and
    Decaestecker, Neural Comput 14:21, 2002, eq. 2.4). Rare and non-rare patients must present
    alike at both prevalences. Risks of 0 and 1 are unchanged.

    Args:
        risk: calibrated risks 0 to 1, any shape.
        calibrated_at: share of rare cases among those the risk was calibrated on.
        prevalence: share of rare cases in the population asked about.

    Raises:
        BadInputError: a prevalence is not strictly between 0 and 1.
    """
    if not (0 < calibrated_at < 1 and 0 < prevalence < 1):
        raise BadInputError(
            f"The prevalences are {calibrated_at:g} and {prevalence:g}; each must be above 0 and "
            "below 1. Correct them and run again."
        )
    value = np.asarray(risk, dtype=np.float64)
    rare = value * prevalence / calibrated_at
    return np.asarray(rare / (rare + (1 - value) * (1 - prevalence) / (1 - calibrated_at)))
