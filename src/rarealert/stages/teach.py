"""Ask every teacher of the panel about every case (``rarealert teach``).

Answers go to the append-only cache ``build/teach/cache/``; what it holds is never asked again, so
a killed run goes on where it stopped. The only stage that may talk to a network. Teachers get the
case without its label.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from rarealert.errors import BadInputError
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Parameters, Summary, Table

if TYPE_CHECKING:
    from rarealert.cases.case import Case
    from rarealert.teachers.ask import Tally
    from rarealert.teachers.teacher import Teacher

PARTS = ("train", "valid", "test")


def teach(params: Params, paths: Paths) -> Iterator[Item]:
    """Fill the cache; yields the tally of each teacher.

    Raises:
        BadInputError: a part, the panel or a recorded file is missing or damaged, or no teacher
            answered a single case.
    """
    from rarealert.teachers.ask import ask_panel
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.panel import load_panel
    from rarealert.teachers.roster import assemble

    panel = load_panel(params.teach.panel)
    cases: list[Case] = []
    for part in PARTS:
        found, dataset = _part(paths, part)
        cases.extend(found)
        yield dataset
    teachers = assemble(panel, paths.data, frozenset(case.source for case in cases))
    with RationaleCache(paths.build("teach") / "cache") as cache:
        damaged = cache.set_aside_damage()
        with _Bars(teachers, len(cases)) as bars:
            tallies = ask_panel(
                teachers, cases, cache, replay_only=params.teach.replay_only, progress=bars.advance
            )
    yield from _report(tallies, damaged)
    if not any(tally.cached + tally.answered for tally in tallies.values()):
        raise BadInputError(_nobody(params))
    yield Summary(_sentence(tallies, len(cases), damaged))


def _part(paths: Paths, part: str) -> tuple["list[Case]", Dataset]:
    from rarealert.cases.store import read_cases
    from rarealert.teachers.teacher import digest

    path = paths.build("split") / f"{part}.parquet"
    cases = [item.case for item in read_cases(path)]
    return cases, Dataset(part, path, digest(path.read_bytes()), len(cases), "teaching")


class _Bars:
    """A progress bar a teacher on a terminal, nothing elsewhere; one sentence a silent teacher."""

    def __init__(self, teachers: "list[Teacher]", cases: int):
        from tqdm import tqdm

        width = max(len(teacher.id) for teacher in teachers)
        self._bars = {
            teacher.id: tqdm(
                total=cases,
                desc=teacher.id.ljust(width),
                unit="case",
                position=position,
                file=sys.stderr,
                disable=not sys.stderr.isatty(),
            )
            for position, teacher in enumerate(teachers)
        }
        self._failed = dict.fromkeys(self._bars, 0)

    def advance(self, teacher: str, outcome: str) -> None:
        """Count one case of ``teacher``."""
        bar = self._bars[teacher]
        if outcome == "failed":
            self._failed[teacher] += 1
            bar.set_postfix(failed=self._failed[teacher], refresh=False)
        bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()


def _report(tallies: "dict[str, Tally]", damaged: int) -> Iterator[Item]:
    import pandas as pd

    frame = pd.DataFrame([{"teacher": name, **vars(tally)} for name, tally in tallies.items()])
    yield Table("teachers.json", frame)
    for outcome in ("cached", "answered", "failed", "missing", "not_asked"):
        yield Metric(f"answers_{outcome}", float(frame[outcome].sum()))
    yield Metric("cache_lines_set_aside", float(damaged))
    yield Parameters({"teachers": ", ".join(tallies)})
    for name, tally in tallies.items():
        if tally.silent:
            print(
                f"The teacher {name} failed on all {tally.failed} cases put to it; the others "
                "went on. The exception types are in build/teach/cache/failures-*.jsonl.",
                file=sys.stderr,
            )


def _sentence(tallies: "dict[str, Tally]", cases: int, damaged: int) -> str:
    asked = sum(tally.answered for tally in tallies.values())
    cached = sum(tally.cached for tally in tallies.values())
    failed = sum(tally.failed for tally in tallies.values())
    text = (
        f"{len(tallies)} teachers, {cases:,} cases: {asked:,} new answers, "
        f"{cached:,} from the cache, {failed:,} failed"
    )
    return text + (f", {damaged} damaged cache lines set aside" if damaged else "")


def _nobody(params: Params) -> str:
    if params.teach.replay_only:
        return (
            f"No teacher of the panel {params.teach.panel!r} has an answer in build/teach/cache; "
            "set teach.replay_only to false or dvc pull the cache."
        )
    return (
        f"No teacher of the panel {params.teach.panel!r} answered a single case; "
        "choose a panel that speaks of ingest.sources in teach.panel."
    )


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("teach", teach)
