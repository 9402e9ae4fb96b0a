"""Ask a panel of teachers about every case whose answer is not in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Self

from rarealert.errors import RareAlertError
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.teacher import Teacher
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

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
    """A progress bar for each teacher in ``teachers`` over ``cases`` cases, on a terminal only."""

    def __init__(self, teachers: Sequence[str], cases: int):
        from tqdm import tqdm

        self._bars = {
            name: tqdm(total=cases, desc=name, position=place, disable=None)
            for place, name in enumerate(teachers)
        }
        self._figures = {name: {"failed": 0.0, "tokens": 0.0, "USD": 0.0} for name in teachers}

    def advance(self, teacher: str, outcome: Outcome, usage: Usage | None = None) -> None:
        """Count one case of ``teacher`` with its tokens and cost."""
        used, figures = usage or Usage(), self._figures[teacher]
        figures["failed"] += outcome == "failed"
        figures["tokens"] += (used.prompt_tokens or 0) + (used.completion_tokens or 0)
        figures["USD"] += used.cost_usd or 0.0
        self._bars[teacher].set_postfix(figures, refresh=False)
        self._bars[teacher].update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()


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
