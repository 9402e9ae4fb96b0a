"""Endpoint teachers: one exchange with its repairs, and many cases at once within the limits.

Each teacher has as many workers as its concurrency allows. They draw from one iterator, so memory
grows with the calls in flight and not with the cases. A worker draws its next case once the answer
to its last one is in the cache.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property

from rarealert.errors import RareAlertError
from rarealert.files import canonical_json, digest
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.collect import Board, Outcome, Tally
from rarealert.teachers.endpoints.client import (
    BudgetSpentError,
    EndpointClient,
    EndpointError,
    GivenUpError,
    Ledger,
    settings_sent,
)
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.prompt import (
    Message,
    commands_the_model,
    messages_for,
    prompt_method,
    repair_messages,
)
from rarealert.teachers.endpoints.reply import (
    Completion,
    ReplyError,
    check_finish,
    expected_risk,
    parse_reply,
    wire_schema,
)
from rarealert.teachers.panel import EndpointSpec
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import Flag, TeacherAnswer
from rarealert.visits.case import Case
from rarealert.visits.reading import RENDERER_VERSION, Reading, read_visit

REPAIRS = 2
"""Corrections that a model may send for one case before the case has failed."""


@dataclass
class Exchange:
    """The calls for one case, repairs included; their usage is kept with answer or failure."""

    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    finish_reason: str | None = None
    request_id: str | None = None
    response: str | None = field(default=None, repr=False)
    error: EndpointError | None = field(default=None, repr=False)
    """The error of the last try that may have been billed without a reply."""

    def charge(self, cost_usd: float, error: EndpointError | None) -> None:
        """Add the cost of a try, with or without a reply."""
        self.cost_usd += cost_usd
        self.error = error

    def note(self, completion: Completion) -> None:
        """Add a reply; its cost was added by ``charge``."""
        self.calls += 1
        self.ended_ns = time.time_ns()
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.finish_reason = completion.finish_reason
        self.request_id = completion.request_id
        self.response = completion.content

    @property
    def usage(self) -> Usage:
        """As the cache stores it; the seconds include waits and retries."""
        ended_ns = self.ended_ns or time.time_ns()
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=self.cost_usd,
            seconds=round((ended_ns - self.started_ns) / 1e9, 3),
            finish_reason=self.finish_reason,
            request_id=self.request_id,
        )


@dataclass(frozen=True)
class EndpointTeacher:
    """The model of ``spec``; it answers on every source."""

    spec: EndpointSpec
    sources: frozenset[str] | None = None

    @property
    def id(self) -> str:
        """The name in the panel."""
        return self.spec.id

    @cached_property
    def schema(self) -> dict[str, object]:
        """The JSON Schema of a reply."""
        return wire_schema(self.spec)

    def request(self, reading: Reading) -> Request:
        """Model, messages, schema, settings and base URL by value or digest; never the key."""
        sent = settings_sent(self.spec, self.schema)
        sent.pop("response_format", None)
        messages = messages_for(reading, self.spec, self.schema)
        return Request(
            teacher=self.id,
            kind="endpoint",
            method=prompt_method(),
            input_digest=digest(canonical_json(messages)),
            renderer=RENDERER_VERSION,
            model=self.spec.model,
            base_url=self.spec.base_url,
            settings={
                **sent,
                "schema": digest(canonical_json(self.schema)),
                "structured_output": self.spec.structured_output,
                "weights": self.spec.weights,
            },
        )

    def ask(self, reading: Reading) -> TeacherAnswer:
        """The answer to one visit; ``ask_endpoints`` asks about many at once."""
        return asyncio.run(self.ask_once(reading, Exchange()))

    async def ask_once(self, reading: Reading, exchange: Exchange) -> TeacherAnswer:
        """The answer to one visit without a cost cap; fills ``exchange``."""
        ledger = Ledger(Budget(None))
        async with EndpointClient(self.spec, self.schema, ledger) as client:
            return await self.converse(client, reading, exchange)

    async def converse(
        self, client: EndpointClient, reading: Reading, exchange: Exchange
    ) -> TeacherAnswer:
        """The answer to a visit after at most ``REPAIRS`` corrections; fills ``exchange``.

        Raises:
            ReplyError: no valid reply, or one that a correction cannot repair.
            EndpointError: the endpoint gave no reply, or the budget is spent.
        """
        messages: list[Message] = messages_for(reading, self.spec, self.schema)
        flags: tuple[Flag, ...] = ("instruction_in_case",) if commands_the_model(reading) else ()
        for repair in range(REPAIRS + 1):
            reply = await client.complete(messages, exchange.charge)
            exchange.note(reply)
            try:
                check_finish(reply.finish_reason, reply.refusal)
                marks: tuple[Flag, ...] = (*flags, "repaired") if repair else flags
                mean = expected_risk(reply.content, reply.tokens)
                return parse_reply(reply.content, self.spec, mean, marks)
            except ReplyError as error:
                if not error.repairable or repair == REPAIRS:
                    raise
                messages = [*messages, *repair_messages(reply.content, error.problem)]
        raise AssertionError("the last repair returns or raises")


@dataclass(frozen=True)
class Sampled:
    """One exchange of the traced sample: digests and counts, no text."""

    teacher: str
    case_id: str
    request_key: str
    input_digest: str
    outcome: Outcome
    error: str | None
    risk: int | None
    exchange: Exchange

    @property
    def response_digest(self) -> str | None:
        """sha256 of the last reply's text."""
        reply = self.exchange.response
        return None if reply is None else digest(reply.encode(errors="replace"))


@dataclass
class EndpointOutcome:
    """The result of asking endpoints."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """A sentence for each teacher that was given up, and one if the budget was spent."""
    samples: list[Sampled] = field(default_factory=list)
    flagged: set[str] = field(default_factory=set)
    """Ids of cases with new answers whose text looks like instructions to the model."""


def ask_endpoints(
    teachers: Sequence[EndpointTeacher],
    cases: Sequence[Case],
    cache: RationaleCache,
    known: set[str],
    budget: Budget,
    *,
    trace_sample: int = 0,
    board: Board | None = None,
) -> EndpointOutcome:
    """Ask every endpoint about every case whose key is not in ``known``, many at once.

    A failed case is recorded and the run goes on. A dead endpoint stops only its own teacher; a
    spent budget stops all after the calls in flight. The first ``trace_sample`` exchanges of each
    teacher are sampled. ``known`` grows by the keys of new answers.

    Raises:
        RareAlertError: the user has to act first, for example because the disk is full.
    """
    run = EndpointRun(cases, Ledger(budget, cache), known, trace_sample, board)
    outcome = asyncio.run(run.ask(teachers))
    if budget.exhausted:
        outcome.notes.append(cap_reached(budget))
    return outcome


def cap_reached(budget: Budget) -> str:
    """The sentence for a user whose budget is spent."""
    return (
        f"The cost cap of {budget.cap_usd:.2f} US dollars (teach.cost_cap_usd) is reached: "
        f"{budget.spent_usd:.2f} are spent, and all answers are kept. Raise it for the rest."
    )


@dataclass
class EndpointRun:
    """The questions to some teachers in one event loop."""

    cases: Iterable[Case]
    ledger: Ledger
    known: set[str]
    trace_sample: int
    board: Board | None = None
    outcome: EndpointOutcome = field(default_factory=EndpointOutcome)

    async def ask(self, teachers: Sequence[EndpointTeacher]) -> EndpointOutcome:
        """Ask all teachers at once, as ``ask_endpoints`` describes."""
        self.outcome.tallies = {teacher.id: Tally() for teacher in teachers}
        await _gather(self._ask_teacher(teacher) for teacher in teachers)
        return self.outcome

    async def _ask_teacher(self, teacher: EndpointTeacher) -> None:
        client = EndpointClient(teacher.spec, teacher.schema, self.ledger)
        questions = self._questions(teacher)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(client)
            except GivenUpError as error:
                self.outcome.notes.append(str(error))
            slots = range(teacher.spec.limits.concurrency)
            await _gather(self._work(teacher, client, questions) for _ in slots)

    def _questions(self, teacher: EndpointTeacher) -> Iterator[tuple[Reading, Request]]:
        """The open cases with their requests; equal visits are asked about once."""
        drawn: set[str] = set()
        for case in self.cases:
            reading = read_visit(case)
            request = teacher.request(reading)
            if request.key in self.known or request.key in drawn:
                self._count(teacher, "cached")
                continue
            drawn.add(request.key)
            yield reading, request

    async def _work(
        self,
        teacher: EndpointTeacher,
        client: EndpointClient,
        questions: Iterator[tuple[Reading, Request]],
    ) -> None:
        for reading, request in questions:
            if client.breaker.dead or self.ledger.exhausted:
                self._count(teacher, "not_asked")
            else:
                await self._ask_one(teacher, client, reading, request)

    async def _ask_one(
        self, teacher: EndpointTeacher, client: EndpointClient, reading: Reading, request: Request
    ) -> None:
        exchange, case_id = Exchange(), reading.case.case_id
        try:
            answer = await teacher.converse(client, reading, exchange)
        except RareAlertError:
            raise
        except (BudgetSpentError, GivenUpError) as error:
            if str(error) and str(error) not in self.outcome.notes:
                self.outcome.notes.append(str(error))
            if exchange.calls or exchange.cost_usd:  # its cost counts in the next run
                kind = type(exchange.error or error).__name__
                await self.ledger.keep(request, case_id, kind, exchange.usage, None)
            self._count(teacher, "not_asked", exchange)
        except Exception as error:
            kind = type(error).__name__
            await self.ledger.keep(request, case_id, kind, exchange.usage, None)
            self._sample(request, case_id, exchange, "failed", error=kind)
            self._count(teacher, "failed", exchange)
        else:
            await self.ledger.keep(request, case_id, answer, exchange.usage, exchange.response)
            self.known.add(request.key)
            if "instruction_in_case" in answer.flags:
                self.outcome.flagged.add(case_id)
            self._sample(request, case_id, exchange, "answered", risk=answer.risk)
            self._count(teacher, "answered", exchange)

    def _count(
        self, teacher: EndpointTeacher, outcome: Outcome, exchange: Exchange | None = None
    ) -> None:
        self.outcome.tallies[teacher.id].count(outcome)
        if self.board is not None:
            self.board.advance(teacher.id, outcome, exchange.usage if exchange else None)

    def _sample(
        self,
        request: Request,
        case_id: str,
        exchange: Exchange,
        outcome: Outcome,
        error: str | None = None,
        risk: int | None = None,
    ) -> None:
        name, samples = request.teacher, self.outcome.samples
        if sum(one.teacher == name for one in samples) < self.trace_sample:
            digests = request.key, request.input_digest
            samples.append(Sampled(name, case_id, *digests, outcome, error, risk, exchange))


async def _gather(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Run all of ``work`` at once; if one raises, the others are cancelled first."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
