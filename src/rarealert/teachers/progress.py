"""A live line a teacher on a terminal: done, failed, tokens, cost and time left."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rarealert.teachers.cache import Usage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Board:
    """Progress of each teacher in ``teachers`` over ``cases`` cases; silent off a terminal."""

    def __init__(self, teachers: Sequence[str], cases: int):
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if sys.stderr.isatty():
            self._progress = _columns()
            self._tasks = {
                name: self._progress.add_task(name, total=cases, failed=0, tokens=0, cost=0.0)
                for name in teachers
            }

    def advance(self, teacher: str, outcome: str, usage: Usage | None = None) -> None:
        """Count one case of ``teacher``, and what it took."""
        if self._progress is None:
            return
        fields = self._progress.tasks[self._tasks[teacher]].fields
        said = usage or Usage()
        self._progress.update(
            self._tasks[teacher],
            advance=1,
            failed=fields["failed"] + (outcome == "failed"),
            tokens=fields["tokens"] + (said.prompt_tokens or 0) + (said.completion_tokens or 0),
            cost=fields["cost"] + (said.cost_usd or 0.0),
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
