"""Vital signs of simulated visits, by age and findings, in the notation of the register."""

import random
from collections.abc import Sequence

_PULSE_BY_AGE = ((1, 130), (3, 115), (8, 95), (14, 82), (121, 74))  # years below, beats a minute
_BREATHS_BY_AGE = ((1, 38), (3, 28), (8, 22), (14, 18), (121, 15))  # years below, a minute
_SYSTOLIC_BY_AGE = ((1, 85), (3, 92), (8, 100), (14, 110), (40, 120), (121, 132))  # mmHg
_FEVER, _FAST_PULSE, _FAST_BREATH, _HYPERTENSION = (
    "HP:0001945",
    "HP:0001649",
    "HP:0002789",
    "HP:0000822",
)
_TOLD = 0.6  # share of visits with each reading


def vital_signs(age_years: float, findings: frozenset[str], note: bool, rng: random.Random) -> str:
    """Resting values by age (means after PALS and Fleming 2011), raised by fever and the like."""
    temperature = rng.gauss(38.6 if _FEVER in findings else 36.8, 0.3)
    pulse = rng.gauss(_by_age(_PULSE_BY_AGE, age_years), 7) + 12 * (_FEVER in findings)
    pulse += 25 * (_FAST_PULSE in findings)
    breaths = rng.gauss(_by_age(_BREATHS_BY_AGE, age_years), 1.5) + 10 * (_FAST_BREATH in findings)
    systolic = rng.gauss(_by_age(_SYSTOLIC_BY_AGE, age_years), 6) + 30 * (_HYPERTENSION in findings)
    diastolic = systolic * rng.uniform(0.6, 0.68)
    saturation = rng.choice((96, 97, 98, 99))
    readings = (
        (f"T {temperature:.1f}", f"temperature {temperature:.1f} C"),
        (f"P {pulse:.0f}", f"pulse {pulse:.0f}/min"),
        (
            f"BP {systolic:.0f}/{diastolic:.0f}",
            f"blood pressure {systolic:.0f}/{diastolic:.0f} mmHg",
        ),
        (f"RR {breaths:.0f}", f"respirations {breaths:.0f}/min"),
        (f"sats {saturation}%", f"oxygen saturation {saturation} %"),
    )
    kept = [pair for pair in readings if rng.random() < _TOLD] or [rng.choice(readings)]
    rng.shuffle(kept)
    text = ", ".join(short if note else long for short, long in kept)
    return f"{text[0].upper()}{text[1:]}"


def _by_age(table: Sequence[tuple[int, int]], age_years: float) -> int:
    return next(value for below, value in table if age_years < below)
