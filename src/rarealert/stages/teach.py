"""Ask every teacher of the panel about every case (``rarealert teach``).

Answers go to the append-only cache ``build/teach/cache/``; what it holds is never asked again, so
a killed run goes on where it stopped. The only stage that may talk to a network. Teachers get the
case without its label.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Parameters, Summary, Table, Trace
from rarealert.tracking.lineage import ENDPOINTS_CLOSED

if TYPE_CHECKING:
    from rarealert.teachers.asking import Tally
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.endpoints.teacher import Asked
    from rarealert.teachers.progress import Board
    from rarealert.teachers.teacher import Teacher
    from rarealert.visits.case import Case

PARTS = ("train", "valid", "test")

_REST = (
    "Once that is mended, `dvc repro -fs teach` asks for what is missing and for nothing else, and "
    "`dvc repro` goes on with it."
)
"""DVC takes a stage that ended well for done, also where a teacher of it was given up."""


def teach(params: Params, paths: Paths) -> Iterator[Item]:
    """Fill the cache; yields the tally of each teacher.

    Raises:
        BadInputError: a part, the panel or a recorded file is missing or damaged, or no teacher
            answered a single case.
    """
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.panel import load_panel
    from rarealert.teachers.progress import Board
    from rarealert.teachers.roster import assemble

    panel = load_panel(params.teach.panel, paths.root)
    cases: list[Case] = []
    for part in PARTS:
        found, dataset = _part(paths, part)
        cases.extend(found)
        yield dataset
    teachers = assemble(panel, paths.data, frozenset(case.source for case in cases))
    with RationaleCache(paths.build("teach") / "cache") as cache:
        damaged = cache.set_aside_damage()
        with Board([teacher.id for teacher in teachers], len(cases)) as board:
            asked = _ask(params, teachers, cases, cache, board)
    yield from _report(asked, damaged)
    yield from _traces(asked)
    if not any(tally.cached + tally.answered for tally in asked.tallies.values()):
        raise BadInputError(_nobody(params, asked))
    yield Summary(_sentence(asked.tallies, len(cases), damaged))


def _ask(
    params: Params,
    teachers: "list[Teacher]",
    cases: "list[Case]",
    cache: "RationaleCache",
    board: "Board",
) -> "Asked":
    """Put the cases to each kind of teacher in its way; the tallies come in panel order."""
    from rarealert.teachers.asking import ask_panel
    from rarealert.teachers.endpoints.limits import Budget
    from rarealert.teachers.endpoints.teacher import Asked, EndpointTeacher, ask_endpoints
    from rarealert.teachers.local.on_ray import judge_on_ray
    from rarealert.teachers.local.teacher import LocalTeacher, ask_local, judge_here
    from rarealert.teachers.ray_engine import ask_endpoints_on_ray

    on_ray = params.teach.engine == "ray"
    judging = judge_on_ray if on_ray else judge_here
    known, replay = cache.answered(), params.teach.replay_only
    closed = replay or ENDPOINTS_CLOSED in os.environ
    endpoints = [one for one in teachers if isinstance(one, EndpointTeacher)]
    locals_ = [one for one in teachers if isinstance(one, LocalTeacher)]
    others = [one for one in teachers if one not in endpoints and one not in locals_]
    heard: dict[str, Any] = {"known": known, "progress": board.advance}
    found = ask_panel(others, cases, cache, replay_only=replay, **heard)
    for one in locals_:
        found[one.id] = ask_local(
            one, cases, cache, known, replay_only=replay, board=board, judging=judging
        )
    asked = Asked()
    if closed:
        found |= ask_panel(endpoints, cases, cache, replay_only=True, **heard)
    elif endpoints:
        spent = sum(entry.cost_usd for entry in cache.stats().values())
        budget = Budget(params.teach.cost_cap_usd, spent)
        said: dict[str, Any] = {
            "known": known,
            "trace_sample": params.teach.trace_sample,
            "board": board,
        }
        if on_ray:
            asked = ask_endpoints_on_ray(endpoints, cases, cache.folder, budget, **said)
        else:
            asked = ask_endpoints(endpoints, cases, cache, budget, **said)
    asked.tallies = {one.id: (found | asked.tallies)[one.id] for one in teachers}
    return asked


def _part(paths: Paths, part: str) -> tuple["list[Case]", Dataset]:
    from rarealert.teachers.teacher import digest
    from rarealert.visits.store import read_cases

    path = paths.build("split") / f"{part}.parquet"
    cases = [item.case for item in read_cases(path)]
    return cases, Dataset(part, path, digest(path.read_bytes()), len(cases), "teaching")


def _report(asked: "Asked", damaged: int) -> Iterator[Item]:
    import pandas as pd

    tallies = asked.tallies
    frame = pd.DataFrame([{"teacher": name, **vars(tally)} for name, tally in tallies.items()])
    yield Table("teachers.json", frame)
    for outcome in ("cached", "answered", "failed", "missing", "not_asked"):
        yield Metric(f"answers_{outcome}", float(frame[outcome].sum()))
    yield Metric("cache_lines_set_aside", float(damaged))
    yield Metric("cases_that_instruct_the_model", float(len(asked.flagged)))
    if asked.flagged:
        yield Table("flagged.json", pd.DataFrame({"case_id": sorted(asked.flagged)}))
    yield Parameters({"teachers": ", ".join(tallies)})
    silent = [
        f"The teacher {name} failed on all {tally.failed} cases put to it; the others "
        "went on. The exception types are in build/teach/cache/failures-*.jsonl."
        for name, tally in tallies.items()
        if tally.silent
    ]
    flagged = [
        f"{len(asked.flagged)} cases hold text that tries to instruct the model; their answers are "
        "flagged instruction_in_case, the ids are in flagged.json of this MLflow run."
    ]
    rest = [_REST] if asked.notes or silent else []
    for sentence in (*asked.notes, *silent, *rest, *(flagged if asked.flagged else ())):
        print(sentence, file=sys.stderr)


def _traces(asked: "Asked") -> Iterator[Item]:
    for one in asked.samples:
        yield Trace(
            name=one.teacher,
            started_ns=one.exchange.started_ns,
            seconds=one.exchange.usage.seconds or 0.0,
            inputs={
                "case_id": one.case_id,
                "request": one.request_key,
                "messages_digest": one.input_digest,
            },
            outputs={
                "outcome": one.outcome,
                "risk": one.risk,
                "calls": one.exchange.calls,
                "prompt_tokens": one.exchange.prompt_tokens,
                "completion_tokens": one.exchange.completion_tokens,
                "cost_usd": one.exchange.cost_usd,
                "finish_reason": one.exchange.finish_reason,
                "response_digest": one.response_digest,
            },
            error=one.error,
        )


def _sentence(tallies: "dict[str, Tally]", cases: int, damaged: int) -> str:
    asked = sum(tally.answered for tally in tallies.values())
    cached = sum(tally.cached for tally in tallies.values())
    failed = sum(tally.failed for tally in tallies.values())
    not_asked = sum(tally.not_asked for tally in tallies.values())
    text = (
        f"{len(tallies)} teachers, {cases:,} cases: {asked:,} new answers, "
        f"{cached:,} from the cache, {failed:,} failed"
    )
    text += f", {not_asked:,} not asked" if not_asked else ""
    return text + (f", {damaged} damaged cache lines set aside" if damaged else "")


def _nobody(params: Params, asked: "Asked") -> str:
    if params.teach.replay_only:
        return (
            f"No teacher of the panel {params.teach.panel!r} has an answer in build/teach/cache; "
            "set teach.replay_only to false or dvc pull the cache."
        )
    if asked.notes or any(tally.failed for tally in asked.tallies.values()):
        return (
            f"No teacher of the panel {params.teach.panel!r} answered a single case; why stands in "
            "the lines above: mend it and run the command again."
        )
    return (
        f"No teacher of the panel {params.teach.panel!r} answered a single case; "
        "choose a panel that speaks of ingest.sources in teach.panel."
    )


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("teach", teach)
