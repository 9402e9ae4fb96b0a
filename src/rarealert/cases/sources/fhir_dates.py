"""FHIR's dates, which may be a moment, a day, a month or a year."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime

_DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class When:
    """The days between which something happened, both included, and the moment if it is known.

    A moment's day is the one of its own time zone: the clinic's.
    """

    first: date
    last: date
    moment: datetime | None = None


def when(value: object) -> When | None:
    """``value`` as ``fhir.resources`` gives a date; ``None`` where it is absent."""
    if isinstance(value, datetime):
        return When(value.date(), value.date(), value if value.tzinfo else None)
    if isinstance(value, date):
        return When(value, value)
    if not isinstance(value, str):
        return None
    parts = [int(part) for part in value.split("-")]
    year, first, last = parts[0], 1, 12
    if len(parts) > 1:
        first = last = parts[1]
    return When(date(year, first, 1), date(year, last, monthrange(year, last)[1]))


def age_in_years(born: When, day: date) -> float:
    """Age on ``day``: completed years, and below two years their fraction.

    A birth known to the year or month counts as its middle. Before the birth it is negative.
    """
    birth = born.first + (born.last - born.first) / 2
    if born.first <= day < birth:
        birth = day
    years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    return float(years) if years >= 2 else (day - birth).days / _DAYS_A_YEAR
