"""Asking a panel: what the cache holds is not asked again, and no teacher stops another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rarealert.errors import RareAlertError
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.teacher import Request, Teacher
from rarealert.visits.case import Case

Outcome = Literal["cached", "answered", "failed", "missing", "not_asked"]
Progress = Callable[[str, Outcome], None]
"""Called once a teacher and case, with the teacher's id and what became of it."""

_CHUNK = 512  # cases that all teachers judge before the next ones: shared work on a case stays warm


@dataclass
class Tally:
    """What became of one teacher's cases; the five counts sum to the number of cases."""

    cached: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    not_asked: int = 0
    """Not in the cache, and not put to the teacher: replay only, beyond its budget, given up."""

    @property
    def silent(self) -> bool:
        """Whether every case that was put to the teacher failed."""
        return self.failed > 0 and self.cached + self.answered == 0


def ask_panel(
    teachers: Sequence[Teacher],
    cases: Sequence[Case],
    cache: RationaleCache,
    *,
    known: set[str] | None = None,
    replay_only: bool = False,
    progress: Progress | None = None,
) -> dict[str, Tally]:
    """Put every case to every teacher whose answer the open ``cache`` lacks.

    An exception of a teacher becomes a recorded failure of that case; only errors that a user
    must mend (a full disk) end the run. ``known`` are the cache's answered keys where the caller
    has read them already; new ones are added to it. Returns a tally for each teacher, by id.
    """
    tallies = {teacher.id: Tally() for teacher in teachers}
    known = cache.answered() if known is None else known
    for chunk in _chunks(cases):
        for teacher in teachers:
            tally = tallies[teacher.id]
            for case in chunk:
                outcome = _ask_one(teacher, case, cache, known, replay_only)
                setattr(tally, outcome, getattr(tally, outcome) + 1)
                if progress is not None:
                    progress(teacher.id, outcome)
    return tallies


def _chunks(cases: Sequence[Case]) -> Iterator[list[Case]]:
    left = iter(cases)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


def _ask_one(
    teacher: Teacher, case: Case, cache: RationaleCache, known: set[str], replay_only: bool
) -> Outcome:
    request = teacher.request(case)
    if request is None:
        return "missing"
    if request.key in known:
        return "cached"
    if replay_only:
        return "not_asked"
    return _put(teacher, request, case, cache, known)


def _put(
    teacher: Teacher, request: Request, case: Case, cache: RationaleCache, known: set[str]
) -> Outcome:
    try:
        answer = teacher.ask(case)
    except RareAlertError:
        raise
    except Exception as error:
        cache.fail(request, case.case_id, error)
        return "failed"
    if answer is None:
        return "missing"
    cache.add(request, case.case_id, answer)
    known.add(request.key)
    return "answered"
