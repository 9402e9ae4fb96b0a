"""A case as text: the one function that teachers, student and screening all read through."""

from rarealert.cases.case import TEXT_FIELDS, Case

RENDERER_VERSION = "1"
"""Part of every cache key and of the packaged student: raise it with any change of the text."""

_MONTHS_A_YEAR = 12


def render(case: Case) -> str:
    """The visit as plain text, one labelled line a field; absent fields have no line.

    Coded findings are left out: each source that codes them says the same in its text, and a
    source that codes none must not be told apart by it.
    """
    lines = [f"Patient: {_person(case)}"] if _person(case) else []
    for name in TEXT_FIELDS:
        text = getattr(case, name)
        if text is not None:
            lines.append(f"{name.replace('_', ' ').capitalize()}: {' '.join(text.split())}")
    return "\n".join(lines)


def _person(case: Case) -> str:
    parts = [] if case.age_years is None else [_age(case.age_years)]
    return ", ".join(parts + ([case.sex] if case.sex else []))


def _age(years: float) -> str:
    if years < 2:  # below two years, age in months is what a clinician writes
        return f"{int(years * _MONTHS_A_YEAR)} months"
    return f"{int(years)} years"
