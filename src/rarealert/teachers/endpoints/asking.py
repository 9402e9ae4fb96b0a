"""Asking endpoints: many cases at once, none twice, within limits, pace and budget.

Each teacher has as many workers as its concurrency allows; they draw from one iterator, so that
1.6 million questions take no more memory than those in flight. An answer is in the cache before its
worker draws the next case.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from rarealert.cases.case import Case
from rarealert.errors import RareAlertError
from rarealert.teachers.ask import Outcome, Tally
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.endpoints.ledger import Ledger, OwnLedger
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.session import BudgetSpentError, EndpointSession, GivenUpError
from rarealert.teachers.endpoints.teacher import EndpointTeacher, Exchange
from rarealert.teachers.progress import Board
from rarealert.teachers.teacher import Request, digest


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
