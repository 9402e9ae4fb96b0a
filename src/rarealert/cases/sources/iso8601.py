"""Ages as ISO 8601 durations, as phenopackets write them."""

import re

_NUMBER = r"(\d{1,7}(?:[.,]\d{1,6})?)"
_DURATION = re.compile(
    rf"P(?!$)(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?!$)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
_YEARS_EACH = (
    1.0,
    1 / 12,
    7 / 365.25,
    1 / 365.25,
    1 / (24 * 365.25),
    1 / (24 * 60 * 365.25),
    1 / (24 * 3600 * 365.25),
)


def age_in_years(duration: str) -> float | None:
    """Years of ``P3Y6M`` and its like (a year is 365.25 days), ``None`` for anything else."""
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        return None
    parts = [float((part or "0").replace(",", ".")) for part in match.groups()]
    return sum(part * each for part, each in zip(parts, _YEARS_EACH, strict=True))
