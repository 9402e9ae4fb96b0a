"""What a threshold means where rare disease is as rare as it is, not as common as in a study."""

from dataclasses import dataclass

from rarealert.errors import BadInputError

PREVALENCES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares of rare disease among visits, from open primary care to a specialist's clinic."""


@dataclass(frozen=True)
class AtPrevalence:
    """Predictive values at one prevalence; ``None`` where no visit would be on that side.

    ``alerts_per_1000`` counts visits; ``number_needed_to_evaluate`` is alerts per true one.
    """

    prevalence: float
    ppv: float | None
    npv: float | None
    alerts_per_1000: float
    number_needed_to_evaluate: float | None


def at_prevalence(sensitivity: float, specificity: float, prevalence: float) -> AtPrevalence:
    """Predictive values by Bayes' rule, holding sensitivity and specificity (all 0 to 1).

    Vecchio, N Engl J Med 274:1171 (1966). Assumes that cases of either kind look the same at
    any prevalence, which a study's selection seldom grants in full.

    Raises:
        BadInputError: a value lies outside 0-1.
    """
    if not all(0 <= value <= 1 for value in (sensitivity, specificity, prevalence)):
        raise BadInputError("Sensitivity, specificity and prevalence must lie in 0-1.")
    true_alerts = sensitivity * prevalence
    false_alerts = (1 - specificity) * (1 - prevalence)
    true_silence = specificity * (1 - prevalence)
    alerts = true_alerts + false_alerts
    return AtPrevalence(
        prevalence=prevalence,
        ppv=true_alerts / alerts if alerts else None,
        npv=true_silence / (1 - alerts) if alerts < 1 else None,
        alerts_per_1000=1000 * alerts,
        number_needed_to_evaluate=alerts / true_alerts if true_alerts else None,
    )
