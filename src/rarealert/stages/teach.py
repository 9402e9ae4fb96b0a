"""Ask every teacher of the panel about every case (``rarealert teach``).

Answers go to the append-only cache ``build/teach/cache/``. A question with an answer there is never
asked again, so a killed run continues where it stopped. This is the only stage that may use the
network. Teachers get the case without its label.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import sha256_of_file
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Dataset, Item, Metric, Parameters, Summary, Table, Trace
from rarealert.tracking.lineage import ENDPOINTS_CLOSED

if TYPE_CHECKING:
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.collect import Board, Tally
    from rarealert.teachers.endpoints.endpoint import EndpointOutcome
    from rarealert.teachers.teacher import Teacher
    from rarealert.visits.case import Case

_PARTS = ("train", "valid", "test")
_OUTCOMES = ("answered", "cached", "failed", "missing", "not_asked")

# DVC counts a stage as done even if one of its teachers was given up
_REST = (
    "After fixing that, run `dvc repro -fs teach`, which asks for missing answers only, and then "
    "`dvc repro`."
)


def teach(params: Params, paths: Paths) -> Iterator[Item]:
    """Fill the cache; yields the tally of each teacher.

    Raises:
        BadInputError: a part, the panel or a recorded file is missing or damaged, or no teacher
            answered a single case.
    """
    from rarealert.teachers.cache import RationaleCache
    from rarealert.teachers.collect import Board
    from rarealert.teachers.panel import load_panel
    from rarealert.teachers.roster import assemble
    from rarealert.visits.store import read_cases

    panel = load_panel(params.teach.panel, paths.root)
    cases: list[Case] = []
    for part in _PARTS:
        path = paths.build("split") / f"{part}.parquet"
        found = [item.case for item in read_cases(path)]
        yield Dataset(part, path, sha256_of_file(path), len(found), "teaching")
        cases += found
    teachers = assemble(panel, paths.data, frozenset(case.source for case in cases))
    with (
        RationaleCache(paths.build("teach") / "cache") as cache,
        Board([teacher.id for teacher in teachers], len(cases)) as board,
    ):
        damaged, known = cache.set_aside_damage()
        outcome = _ask(params, teachers, cases, cache, known, board)
    yield from _report(outcome, damaged)
    yield from _traces(outcome)
    if not any(tally.cached + tally.answered for tally in outcome.tallies.values()):
        raise BadInputError(_no_answer(params, outcome))
    yield Summary(_sentence(outcome.tallies, len(cases), damaged))


def _ask(
    params: Params,
    teachers: "list[Teacher]",
    cases: "list[Case]",
    cache: "RationaleCache",
    known: set[str],
    board: "Board",
) -> "EndpointOutcome":
    """Ask each kind of teacher in its own way; the tallies are in panel order."""
    from rarealert.teachers.collect import ask_panel
    from rarealert.teachers.endpoints.endpoint import (
        EndpointOutcome,
        EndpointTeacher,
        ask_endpoints,
    )
    from rarealert.teachers.endpoints.limits import Budget
    from rarealert.teachers.local import LocalTeacher, ask_local, judge_here
    from rarealert.teachers.on_ray import ask_endpoints_on_ray, judge_on_ray

    on_ray, replay = params.teach.engine == "ray", params.teach.replay_only
    endpoints = [one for one in teachers if isinstance(one, EndpointTeacher)]
    local = [one for one in teachers if isinstance(one, LocalTeacher)]
    others = [one for one in teachers if one not in endpoints and one not in local]
    judging = judge_on_ray if on_ray else judge_here
    options: dict[str, Any] = {"replay_only": replay, "board": board}
    tallies = ask_panel(others, cases, cache, known, **options)
    for one in local:
        tallies[one.id] = ask_local(one, cases, cache, known, judging=judging, **options)
    outcome = EndpointOutcome()
    if replay or ENDPOINTS_CLOSED in os.environ:
        tallies |= ask_panel(endpoints, cases, cache, known, replay_only=True, board=board)
    elif endpoints:
        spent = sum(entry.cost_usd for entry in cache.stats().values())
        budget = Budget(params.teach.cost_cap_usd, spent)
        options = {"trace_sample": params.teach.trace_sample, "board": board}
        if on_ray:
            outcome = ask_endpoints_on_ray(endpoints, cases, cache.folder, known, budget, **options)
        else:
            outcome = ask_endpoints(endpoints, cases, cache, known, budget, **options)
    outcome.tallies = {one.id: (tallies | outcome.tallies)[one.id] for one in teachers}
    return outcome


def _report(outcome: "EndpointOutcome", damaged: int) -> Iterator[Item]:
    import pandas as pd

    tallies = outcome.tallies
    frame = pd.DataFrame([{"teacher": name, **vars(tally)} for name, tally in tallies.items()])
    yield Table("teachers.json", frame)
    for result in _OUTCOMES:
        yield Metric(f"answers_{result}", float(frame[result].sum()))
    yield Metric("cache_lines_set_aside", float(damaged))
    yield Metric("cases_that_instruct_the_model", float(len(outcome.flagged)))
    if outcome.flagged:
        yield Table("flagged.json", pd.DataFrame({"case_id": sorted(outcome.flagged)}))
    yield Parameters({"teachers": ", ".join(tallies)})
    failed = [
        f"The teacher {name} failed on all {tally.failed} cases it was asked about; the others "
        "went on. The exception types are in build/teach/cache/failures-*.jsonl."
        for name, tally in tallies.items()
        if tally.all_failed
    ]
    flagged = [
        f"{len(outcome.flagged)} cases contain text that tries to instruct the model. Their "
        "answers are flagged instruction_in_case; the ids are in flagged.json of this MLflow run."
    ]
    rest = [_REST] if outcome.notes or failed else []
    for sentence in (*outcome.notes, *failed, *rest, *(flagged if outcome.flagged else ())):
        print(sentence, file=sys.stderr)


def _traces(outcome: "EndpointOutcome") -> Iterator[Item]:
    for sample in outcome.samples:
        exchange = sample.exchange
        yield Trace(
            name=sample.teacher,
            started_ns=exchange.started_ns,
            seconds=exchange.usage.seconds or 0.0,
            inputs={
                "case_id": sample.case_id,
                "request": sample.request_key,
                "messages_digest": sample.input_digest,
            },
            outputs={
                "outcome": sample.outcome,
                "risk": sample.risk,
                "calls": exchange.calls,
                "prompt_tokens": exchange.prompt_tokens,
                "completion_tokens": exchange.completion_tokens,
                "cost_usd": exchange.cost_usd,
                "finish_reason": exchange.finish_reason,
                "response_digest": sample.response_digest,
            },
            error=sample.error,
        )


def _sentence(tallies: "dict[str, Tally]", cases: int, damaged: int) -> str:
    total = {name: sum(getattr(one, name) for one in tallies.values()) for name in _OUTCOMES}
    text = (
        f"{len(tallies)} teachers, {cases:,} cases: {total['answered']:,} new answers, "
        f"{total['cached']:,} from the cache, {total['failed']:,} failed"
    )
    text += f", {total['not_asked']:,} not asked" if total["not_asked"] else ""
    return text + (f", {damaged} damaged cache lines set aside" if damaged else "")


def _no_answer(params: Params, outcome: "EndpointOutcome") -> str:
    panel = f"the panel {params.teach.panel!r}"
    if params.teach.replay_only:
        return (
            f"No teacher of {panel} has an answer in build/teach/cache. Set teach.replay_only to "
            "false, or dvc pull the cache."
        )
    failed = any(tally.failed for tally in outcome.tallies.values())
    step = (
        "The reasons are in the lines above: fix them and run the command again."
        if outcome.notes or failed
        else "Choose a teach.panel whose teachers answer on ingest.sources."
    )
    return f"No teacher of {panel} answered a single case. {step}"


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("teach", teach)
