"""An endpoint as a teacher: what it is asked, by digest, and one exchange with its repairs."""

import asyncio
import time
from dataclasses import dataclass, field
from functools import cached_property

from rarealert.cases.case import Case
from rarealert.cases.render import RENDERER_VERSION
from rarealert.teachers.answer import Answer, Flag
from rarealert.teachers.cache import Usage
from rarealert.teachers.endpoints.completion import Completion
from rarealert.teachers.endpoints.expectation import expected_risk
from rarealert.teachers.endpoints.ledger import OwnPurse, Purse
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.prompt import (
    Message,
    commands_the_model,
    messages_for,
    prompt_method,
    repair_messages,
)
from rarealert.teachers.endpoints.reply import ReplyError, check_finish, parse_reply, wire_schema
from rarealert.teachers.endpoints.session import EndpointError, EndpointSession, settings_sent
from rarealert.teachers.panel import EndpointSpec
from rarealert.teachers.teacher import Request, canonical_json, digest

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

    def ask(self, case: Case) -> Answer:
        """One case by itself; ``ask_endpoints`` asks many at once."""

        async def once() -> Answer:
            async with self.open() as session:
                return await self.converse(session, case, Exchange())

        return asyncio.run(once())

    async def converse(self, session: EndpointSession, case: Case, exchange: Exchange) -> Answer:
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
