"""The rationale cache seen from these cases and this panel, and how much of it there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rarealert.cases.case import Case
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.teacher import Teacher

_DIGITS = 4


def project(
    teachers: Sequence[Teacher], cases: Sequence[Case], cache: RationaleCache
) -> list[TeacherAnswer]:
    """One row a teacher and case, teacher by teacher in panel order, cases in their order.

    Answers come from the cache alone: the same cache, cases and panel give the same rows. A
    request that only ever failed is ``failed``; one that was never answered is ``missing``.
    """
    keys = [[_key(teacher, case) for case in cases] for teacher in teachers]
    answers = dict(cache.answers({key for row in keys for key in row if key is not None}))
    failed = cache.failed()
    rows = []
    for teacher, row in zip(teachers, keys, strict=True):
        for case, key in zip(cases, row, strict=True):
            answer = answers.get(key) if key is not None else None
            status = "ok" if answer else "failed" if key in failed else "missing"
            fields = {"case_id": case.case_id, "teacher": teacher.id, "status": status}
            rows.append(TeacherAnswer.model_validate({**fields, "answer": answer}))
    return rows


def _key(teacher: Teacher, case: Case) -> str | None:
    request = teacher.request(case)
    return None if request is None else request.key


@dataclass(frozen=True)
class Coverage:
    """How much one teacher said. ``sources`` maps a source to its counts by status."""

    share: float | None
    """Share of answered cases 0-1 among the judged cases of the sources it can speak of."""
    listened: bool
    sources: Mapping[str, Mapping[str, int]]


def coverage(
    teachers: Sequence[Teacher],
    cases: Sequence[Case],
    rows: Sequence[TeacherAnswer],
    judged: frozenset[str],
    min_coverage: float,
) -> dict[str, Coverage]:
    """The coverage of each teacher, by id.

    A teacher of one corpus is judged within that corpus: what it was never asked is no gap. Only
    cases whose id is in ``judged`` (train and valid) decide who is listened to, so that the test
    part decides nothing; the counts are of all cases. A teacher without a single judged case of
    its sources is not listened to, and its share is ``None``.
    """
    source_of = {case.case_id: case.source for case in cases}
    by_teacher: dict[str, list[TeacherAnswer]] = {teacher.id: [] for teacher in teachers}
    for row in rows:
        by_teacher[row.teacher].append(row)
    found = {}
    for teacher in teachers:
        own = [
            row
            for row in by_teacher[teacher.id]
            if teacher.sources is None or source_of[row.case_id] in teacher.sources
        ]
        counts: dict[str, dict[str, int]] = {}
        for row in own:
            entry = counts.setdefault(source_of[row.case_id], {"failed": 0, "missing": 0, "ok": 0})
            entry[row.status] += 1
        judged_rows = [row for row in own if row.case_id in judged]
        share = None
        if judged_rows:
            share = sum(row.status == "ok" for row in judged_rows) / len(judged_rows)
        listened = share is not None and share > 0 and share >= min_coverage
        rounded = None if share is None else round(share, _DIGITS)
        found[teacher.id] = Coverage(rounded, listened, dict(sorted(counts.items())))
    return found
