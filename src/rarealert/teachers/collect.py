"""Ask a panel of teachers about every case whose answer is not in the cache."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, Self

from rarealert.errors import RareAlertError
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.teacher import Teacher
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Outcome = Literal["cached", "answered", "failed", "missing", "not_asked"]

_CHUNK = 512  # visits read at a time: each is read once for all teachers


@dataclass
class Tally:
    """Outcomes of one teacher's cases; the five counts sum to the number of cases."""

    cached: int = 0
    answered: int = 0
    failed: int = 0
    missing: int = 0
    not_asked: int = 0
    """Not in the cache and not asked: replay only, beyond the budget, or teacher given up."""

    def count(self, outcome: Outcome) -> None:
        """Add one case."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    @property
    def all_failed(self) -> bool:
        """Whether the teacher was asked and gave no answer at all."""
        return self.failed > 0 and self.cached + self.answered == 0


class Board:
    """Progress of each teacher in ``teachers`` over ``cases`` cases, on a terminal only."""

    def __init__(self, teachers: Sequence[str], cases: int):
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if sys.stderr.isatty():
            self._progress = _columns()
            self._tasks = {
                name: self._progress.add_task(name, total=cases, failed=0, tokens=0, cost=0.0)
                for name in teachers
            }

    def advance(self, teacher: str, outcome: Outcome, usage: Usage | None = None) -> None:
        """Count one case of ``teacher`` with its tokens and cost."""
        if self._progress is None:
            return
        fields = self._progress.tasks[self._tasks[teacher]].fields
        used = usage or Usage()
        self._progress.update(
            self._tasks[teacher],
            advance=1,
            failed=fields["failed"] + (outcome == "failed"),
            tokens=fields["tokens"] + (used.prompt_tokens or 0) + (used.completion_tokens or 0),
            cost=fields["cost"] + (used.cost_usd or 0.0),
        )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _columns() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]:,} failed"),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TextColumn("${task.fields[cost]:.2f}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def ask_panel(
    teachers: Sequence[Teacher],
    cases: Sequence[Case],
    cache: RationaleCache,
    known: set[str],
    *,
    replay_only: bool = False,
    board: Board | None = None,
) -> dict[str, Tally]:
    """Ask every teacher about every case whose key is not in ``known``, one after the other.

    ``known`` are the keys that the open ``cache`` answers; keys of new answers are added to it. An
    exception of a teacher is recorded as a failure of that case. Returns a tally for each teacher,
    by id.

    Raises:
        RareAlertError: the user has to act first, for example because the disk is full.
    """
    tallies = {teacher.id: Tally() for teacher in teachers}
    left = iter(cases)
    while readings := [read_visit(case) for case in islice(left, _CHUNK)]:
        for teacher in teachers:
            for reading in readings:
                outcome = _ask_one(teacher, reading, cache, known, replay_only)
                tallies[teacher.id].count(outcome)
                if board is not None:
                    board.advance(teacher.id, outcome)
    return tallies


def _ask_one(
    teacher: Teacher, reading: Reading, cache: RationaleCache, known: set[str], replay_only: bool
) -> Outcome:
    request = teacher.request(reading)
    if request is None:
        return "missing"
    if request.key in known:
        return "cached"
    if replay_only:
        return "not_asked"
    try:
        answer = teacher.ask(reading)
    except RareAlertError:
        raise
    except Exception as error:
        cache.fail(request, reading.case.case_id, error)
        return "failed"
    if answer is None:
        return "missing"
    cache.add(request, reading.case.case_id, answer)
    known.add(request.key)
    return "answered"
