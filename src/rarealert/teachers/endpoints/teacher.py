"""An endpoint as a teacher: what it is asked, by digest, and one exchange with its repairs.

Asking endpoints: many cases at once, none twice, within limits, pace and budget.

Each teacher has as many workers as its concurrency allows; they draw from one iterator, so that
1.6 million questions take no more memory than those in flight. An answer is in the cache before its
worker draws the next case.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property

from rarealert.errors import RareAlertError
from rarealert.teachers.answer import Flag, TeacherAnswer
from rarealert.teachers.asking import Outcome, Tally
from rarealert.teachers.cache import RationaleCache, Usage
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
from rarealert.teachers.endpoints.session import (
    BudgetSpentError,
    EndpointError,
    EndpointSession,
    GivenUpError,
    Ledger,
    OwnLedger,
    OwnPurse,
    Purse,
    settings_sent,
)
from rarealert.teachers.panel import EndpointSpec
from rarealert.teachers.progress import Board
from rarealert.teachers.teacher import Request, canonical_json, digest
from rarealert.visits.case import Case
from rarealert.visits.reading import RENDERER_VERSION

REPAIRS = 2
"""Times a model is told what was wrong with its reply before the case is a failure."""


@dataclass
class Exchange:
    """What one case took so far, over repairs too: kept beside the answer or the failure."""

    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    finish_reason: str | None = None
    request_id: str | None = None
    response: str | None = field(default=None, repr=False)

    fault: EndpointError | None = field(default=None, repr=False)
    """Why the last try that may have been billed gave no reply."""

    def charge(self, cost_usd: float, fault: EndpointError | None) -> None:
        """Add what a try costs, whether or not it gave a reply."""
        self.cost_usd += cost_usd
        self.fault = fault

    def note(self, said: Completion) -> None:
        """Add a reply; ``charge`` has counted what it cost."""
        self.calls += 1
        self.ended_ns = time.time_ns()
        self.prompt_tokens += said.prompt_tokens
        self.completion_tokens += said.completion_tokens
        self.finish_reason = said.finish_reason
        self.request_id = said.request_id
        self.response = said.content

    @property
    def seconds(self) -> float:
        """From its beginning to its last reply, waits and retries included."""
        return ((self.ended_ns or time.time_ns()) - self.started_ns) / 1e9

    @property
    def usage(self) -> Usage:
        """As the cache keeps it."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=self.cost_usd,
            seconds=round(self.seconds, 3),
            finish_reason=self.finish_reason,
            request_id=self.request_id,
        )


@dataclass(frozen=True)
class EndpointTeacher:
    """The model of ``spec``; it can speak of every source."""

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

    def messages(self, case: Case) -> list[Message]:
        """The conversation that puts ``case`` to the model."""
        return messages_for(case, self.spec, self.schema)

    def request(self, case: Case) -> Request:
        """Model, messages, schema, settings and base URL by value or digest; never the key."""
        sent = settings_sent(self.spec, self.schema)
        sent.pop("response_format", None)
        return Request(
            teacher=self.id,
            kind="endpoint",
            method=prompt_method(),
            input_digest=digest(canonical_json(self.messages(case))),
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

    def open(self, purse: Purse | None = None) -> EndpointSession:
        """A session of its endpoint, to be entered; without a purse it may cost what it costs."""
        return EndpointSession(self.spec, self.schema, purse or OwnPurse(Budget(None)))

    def ask(self, case: Case) -> TeacherAnswer:
        """One case by itself; ``ask_endpoints`` asks many at once."""

        async def once() -> TeacherAnswer:
            async with self.open() as session:
                return await self.converse(session, case, Exchange())

        return asyncio.run(once())

    async def converse(
        self, session: EndpointSession, case: Case, exchange: Exchange
    ) -> TeacherAnswer:
        """The answer to ``case``, after at most ``REPAIRS`` corrections; fills ``exchange``.

        Raises:
            ReplyError: no valid reply, or one that no correction would mend.
            EndpointError: the endpoint gave none, or the budget is spent.
        """
        messages = self.messages(case)
        flags: tuple[Flag, ...] = ("instruction_in_case",) if commands_the_model(case) else ()
        for repair in range(REPAIRS + 1):
            said = await session.complete(messages, exchange.charge)
            exchange.note(said)
            try:
                check_finish(said.finish_reason, said.refusal)
                marks: tuple[Flag, ...] = (*flags, "repaired") if repair else flags
                mean = expected_risk(said.content, said.tokens)
                return parse_reply(said.content, self.spec, mean, marks)
            except ReplyError as error:
                if not error.repairable or repair == REPAIRS:
                    raise
                messages = [*messages, *repair_messages(said.content, error.problem)]
        raise AssertionError("the last repair returns or raises")


@dataclass(frozen=True)
class Sampled:
    """One exchange of the sample that is traced: digests and counts, no text."""

    teacher: str
    case_id: str
    request_key: str
    input_digest: str
    outcome: str
    error: str | None
    risk: int | None
    exchange: Exchange

    @property
    def response_digest(self) -> str | None:
        """sha256 of the last reply's text."""
        said = self.exchange.response
        return None if said is None else digest(said.encode(errors="replace"))


@dataclass
class Asked:
    """What became of a run over endpoints."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """One sentence a teacher that was given up, and one where the budget was spent."""
    samples: list[Sampled] = field(default_factory=list)
    flagged: set[str] = field(default_factory=set)
    """Ids of cases whose text tries to command the model, among the new answers."""


def ask_endpoints(
    teachers: Sequence[EndpointTeacher],
    cases: Sequence[Case],
    cache: RationaleCache,
    budget: Budget,
    *,
    known: set[str],
    trace_sample: int = 0,
    board: Board | None = None,
) -> Asked:
    """Put every case to every endpoint whose answer ``known`` (keys of the open cache) lacks.

    Failures of a case are recorded and the run goes on; a dead endpoint stops only itself; a spent
    budget stops all, after what is in flight. The first ``trace_sample`` exchanges of each teacher
    are sampled.

    Raises:
        RareAlertError: something a user must mend, such as a full disk.
    """
    run = EndpointRun(cases, OwnLedger(budget, cache), known, trace_sample, board)
    asked = asyncio.run(run.ask(teachers))
    if budget.exhausted:
        asked.notes.append(cap_reached(budget))
    return asked


def cap_reached(budget: Budget) -> str:
    """One sentence for a user whose budget is spent."""
    return (
        f"The cost cap of {budget.cap_usd:.2f} US dollars (teach.cost_cap_usd) is "
        f"reached, {budget.spent_usd:.2f} are spent; all answers are kept. Raise it for the rest."
    )


@dataclass
class EndpointRun:
    """Some teachers' questions in one event loop; ``known`` grows by the keys of new answers."""

    cases: Iterable[Case]
    ledger: Ledger
    known: set[str]
    trace_sample: int
    board: Board | None = None
    asked: Asked = field(default_factory=Asked)

    async def ask(self, teachers: Sequence[EndpointTeacher]) -> Asked:
        """Put the cases to the teachers, all at once, as ``ask_endpoints`` says."""
        self.asked.tallies = {teacher.id: Tally() for teacher in teachers}
        tasks = [asyncio.create_task(self._teacher(teacher)) for teacher in teachers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self.asked

    async def _teacher(self, teacher: EndpointTeacher) -> None:
        session = teacher.open(self.ledger)
        questions = self._questions(teacher)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(session)
            except GivenUpError as error:
                self.asked.notes.append(str(error))
            workers = [
                asyncio.create_task(self._work(teacher, session, questions))
                for _ in range(teacher.spec.limits.concurrency)
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _questions(self, teacher: EndpointTeacher) -> Iterator[tuple[Case, Request]]:
        """The cases still to be asked; equal visits are one question, asked once."""
        drawn: set[str] = set()
        for case in self.cases:
            request = teacher.request(case)
            if request.key in self.known or request.key in drawn:
                self._count(teacher, "cached")
                continue
            drawn.add(request.key)
            yield case, request

    async def _work(
        self,
        teacher: EndpointTeacher,
        session: EndpointSession,
        questions: Iterator[tuple[Case, Request]],
    ) -> None:
        for case, request in questions:
            if session.breaker.dead or self.ledger.exhausted:
                self._count(teacher, "not_asked")
            else:
                await self._one(teacher, session, case, request)

    async def _one(
        self, teacher: EndpointTeacher, session: EndpointSession, case: Case, request: Request
    ) -> None:
        exchange = Exchange()
        try:
            answer = await teacher.converse(session, case, exchange)
        except RareAlertError:
            raise
        except (BudgetSpentError, GivenUpError) as error:
            if str(error) and str(error) not in self.asked.notes:
                self.asked.notes.append(str(error))
            # a first reply was paid for, or a try that gave none; the rest was not to be had
            if exchange.calls or exchange.cost_usd:
                kept = exchange.fault or error
                await self.ledger.fail(request, case.case_id, kept, exchange.usage)
            self._count(teacher, "not_asked", exchange)
        except Exception as error:
            await self.ledger.fail(request, case.case_id, error, exchange.usage)
            self._sample(teacher, case, request, exchange, "failed", error=type(error).__name__)
            self._count(teacher, "failed", exchange)
        else:
            await self.ledger.add(request, case.case_id, answer, exchange.usage, exchange.response)
            self.known.add(request.key)
            if "instruction_in_case" in answer.flags:
                self.asked.flagged.add(case.case_id)
            self._sample(teacher, case, request, exchange, "answered", risk=answer.risk)
            self._count(teacher, "answered", exchange)

    def _count(
        self, teacher: EndpointTeacher, outcome: Outcome, exchange: Exchange | None = None
    ) -> None:
        tally = self.asked.tallies[teacher.id]
        setattr(tally, outcome, getattr(tally, outcome) + 1)
        if self.board is not None:
            self.board.advance(teacher.id, outcome, exchange.usage if exchange else None)

    def _sample(
        self,
        teacher: EndpointTeacher,
        case: Case,
        request: Request,
        exchange: Exchange,
        outcome: str,
        error: str | None = None,
        risk: int | None = None,
    ) -> None:
        taken = sum(one.teacher == teacher.id for one in self.asked.samples)
        if taken < self.trace_sample:
            self.asked.samples.append(
                Sampled(
                    teacher.id,
                    case.case_id,
                    request.key,
                    request.input_digest,
                    outcome,
                    error,
                    risk,
                    exchange,
                )
            )
