"""The client of one endpoint: key, rate limits, breaker, and a call with its retries."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.endpoints.limits import (
    Breaker,
    Budget,
    Pace,
    backoff,
    price_of,
    retry_after,
)
from rarealert.teachers.endpoints.prompt import Message
from rarealert.teachers.endpoints.reply import Completion, read_completion
from rarealert.teachers.panel import EndpointSpec
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import TeacherAnswer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REDACTED = "[key]"
_CHARS_A_TOKEN = 3  # English has about 4; a low figure keeps the worst case a worst case
_OVERHEAD_TOKENS = 32  # of the chat template
_UNUSABLE = {404: "does not know the model", 405: "is no chat endpoint for the model"}
_BUSY = (408, 409, 425, 429)
_REJECTIONS = 10  # in a row; then the panel's settings are wrong, not a case


Entry = tuple[Request, str, TeacherAnswer | str, Usage, str | None]
"""Request, case id, answer or the name of an exception, usage, and the model's raw response."""


def keep(
    cache: RationaleCache,
    request: Request,
    case_id: str,
    result: TeacherAnswer | str,
    usage: Usage,
    response: str | None,
) -> None:
    """Add the answer, or the failure, to the cache."""
    if isinstance(result, str):
        cache.fail(request, case_id, result, usage)
    else:
        cache.add(request, case_id, result, usage, response)


class Ledger:
    """The cost cap and the open cache that all endpoint teachers of a run share.

    Without a cache nothing is kept.
    """

    def __init__(self, budget: Budget, cache: RationaleCache | None = None):
        self._budget = budget
        self._cache = cache

    @property
    def exhausted(self) -> bool:
        """Whether a call did not fit under the cap; then no more are made."""
        return self._budget.exhausted

    async def reserve(self, worst_usd: float) -> bool:
        """As ``Budget.reserve``."""
        return self._budget.reserve(worst_usd)

    def settle(self, worst_usd: float, cost_usd: float) -> None:
        """As ``Budget.settle``."""
        self._budget.settle(worst_usd, cost_usd)

    async def keep(self, *entry: *Entry) -> None:
        """Keep an answer or a failure; an answered question is never asked again after this."""
        if self._cache is not None:
            keep(self._cache, *entry)


class EndpointError(Exception):
    """A call without a reply; the cache keeps the name of its class."""

    billed: ClassVar[bool] = False
    """Whether the host may charge for the call all the same."""

    def __init__(self, message: str = "", retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(EndpointError):
    """Status 429 at every attempt."""


class ServerError(EndpointError):
    """Status 5xx at every attempt."""


class UnreadableError(ServerError):
    """A body that is no completion, at every attempt."""

    billed = True


class TimedOutError(EndpointError):
    """No complete reply within ``timeout_s``, at every attempt."""

    billed = True


class UnreachableError(EndpointError):
    """No connection at every attempt."""


class RejectedError(EndpointError):
    """The endpoint rejects such a request (400, 422), so it is not repeated."""


class GivenUpError(EndpointError):
    """The endpoint is not asked again in this run; the message is a sentence for the user."""


class BudgetSpentError(EndpointError):
    """The call might exceed the cost cap, so it was not made."""


Charge = Callable[[float, EndpointError | None], None]
"""Receives the cost of a try in US dollars, and its error where it gave no reply."""


def worst_tokens(messages: list[Message], spec: EndpointSpec) -> tuple[int, int]:
    """Upper estimates of the prompt and completion tokens of one call."""
    chars = sum(len(message["content"]) for message in messages)
    return chars // _CHARS_A_TOKEN + _OVERHEAD_TOKENS, spec.max_tokens


class EndpointClient:
    """An open client of one endpoint; an async context manager.

    The key is read from its environment variable on entry and kept in the client alone.

    Raises:
        GivenUpError: on entry, if the variable is not set or holds no valid key.
    """

    def __init__(self, spec: EndpointSpec, schema: dict[str, object], ledger: Ledger):
        self.spec = spec
        self.ledger = ledger
        self.breaker = Breaker(spec.limits)
        self._schema = schema
        self._pace = Pace(spec.limits)
        self._client: AsyncOpenAI | None = None
        self._key: str | None = None
        self._rejections = 0

    async def __aenter__(self) -> Self:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        name = self.spec.key_variable
        self._key = os.environ.get(name, "").strip() if name is not None else None
        if name is not None and not self._key:
            raise self._given_up(f"set the environment variable {name} to its key")
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise self._given_up(f"the key in {name} has an invalid character; copy it again")
        self._client = AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.spec.base_url,
            organization="",
            project="",
            max_retries=0,
            timeout=self.spec.limits.timeout_s,
            # the SDK's client for high concurrency: it parses HTTP in C
            http_client=DefaultAioHttpClient(timeout=self.spec.limits.timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    def _given_up(self, reason: str) -> GivenUpError:
        self.breaker.give_up()
        return GivenUpError(f"The teacher {self.spec.id} was not asked: {reason}.")

    def redact(self, text: str) -> str:
        """``text`` without the key, in case an endpoint echoes it."""
        return text.replace(self._key, REDACTED) if self._key else text

    async def complete(self, messages: list[Message], charge: Charge) -> Completion:
        """One call, retried while the endpoint is busy, broken or silent.

        ``charge`` is called for every try that costs, or may cost, anything.

        Raises:
            EndpointError: one of its subclasses; ``GivenUpError`` once the endpoint is dead.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        again = (RateLimitedError, ServerError, TimedOutError, UnreachableError)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.spec.limits.attempts),
            wait=backoff(self.spec.limits),
            retry=retry_if_exception_type(again),
            reraise=True,
        )
        return await retrying(self._attempt, messages, charge)

    async def _attempt(self, messages: list[Message], charge: Charge) -> Completion:
        await self._pace.wait(sum(worst_tokens(messages, self.spec)))
        if not await self.breaker.admit():
            raise GivenUpError(
                f"The teacher {self.spec.id} was given up after {self.spec.limits.outage_s:.0f} s "
                f"without a good response from {self.spec.base_url}; its answers so far are kept."
            )
        worst = price_of(self.spec.price, *worst_tokens(messages, self.spec))
        if not await self.ledger.reserve(worst):
            self.breaker.released()
            raise BudgetSpentError
        cost = 0.0
        try:
            completion = await self._call(messages, worst)
            cost = completion.cost_usd
            charge(cost, None)
        except EndpointError as error:
            if error.billed:
                cost = worst
                charge(cost, error)
            self._judge(error)
            raise
        finally:
            self.ledger.settle(worst, cost)
        self._rejections = 0
        self.breaker.succeeded()
        return completion

    def _judge(self, error: EndpointError) -> None:
        """Tell the breaker; ten rejections in a row mean a wrong panel entry."""
        if isinstance(error, GivenUpError):
            self.breaker.give_up()
        elif not isinstance(error, RejectedError):
            self.breaker.failed(error.retry_after_s)
        else:
            self.breaker.succeeded()
            self._rejections += 1
            if self._rejections >= _REJECTIONS:
                self.breaker.give_up()
                raise GivenUpError(
                    f"The endpoint of the teacher {self.spec.id} rejected {_REJECTIONS} requests "
                    "in a row (400). Check structured_output, temperature, max_tokens_field and "
                    "top_logprobs of its panel entry."
                ) from None

    async def _call(self, messages: list[Message], worst_usd: float) -> Completion:
        """One call through the SDK, with body and response as bytes.

        The SDK's models of every message and log-probability would take most of a call's time.
        """
        import httpx2
        import openai

        assert self._client is not None
        try:
            async with asyncio.timeout(self.spec.limits.timeout_s):
                response = await self._client.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=self._body(messages),
                    options={"security": {"bearer_auth": True}},
                )
            return read_completion(
                response.content, response.headers, self.spec.price, self.redact, worst_usd
            )
        except (TimeoutError, openai.APITimeoutError) as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):  # no host, so nothing is billed
                raise UnreachableError from None
            raise TimedOutError from None
        except openai.APIConnectionError:
            raise UnreachableError from None
        except openai.APIStatusError as error:
            raise self._status_error(error.status_code, error.response.headers) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError):
            # a body that is incomplete or of another shape
            raise UnreadableError from None

    def _body(self, messages: list[Message]) -> bytes:
        return b'{"messages":' + json.dumps(messages).encode() + self._settings

    @cached_property
    def _settings(self) -> bytes:
        """The JSON after the messages, the same in every request."""
        sent = {"model": self.spec.model, **settings_sent(self.spec, self._schema)}
        return b"," + json.dumps(sent).encode()[1:]

    def _status_error(self, status: int, headers: Mapping[str, str]) -> EndpointError:
        if status in (401, 403):
            return GivenUpError(
                f"The endpoint of the teacher {self.spec.id} refused the key in "
                f"{self.spec.key_variable} ({status}). Renew it."
                if self.spec.key_variable
                else f"The endpoint of the teacher {self.spec.id} requires a key ({status}). "
                "Name its variable as key_variable in the panel."
            )
        if status in _UNUSABLE:
            return GivenUpError(
                f"The endpoint of the teacher {self.spec.id}, {self.spec.base_url}, "
                f"{_UNUSABLE[status]} {self.spec.model} ({status}). Correct the panel."
            )
        wait = retry_after(headers.get("retry-after"))
        if status in _BUSY:
            return RateLimitedError(retry_after_s=wait)
        return ServerError(retry_after_s=wait) if status >= 500 else RejectedError()


def settings_sent(spec: EndpointSpec, schema: dict[str, object]) -> dict[str, Any]:
    """The generation settings as sent, without model and messages."""
    sent: dict[str, Any] = {spec.max_tokens_field: spec.max_tokens}
    if spec.temperature is not None:
        sent["temperature"] = spec.temperature
    if spec.reasoning_effort is not None:
        sent["reasoning_effort"] = spec.reasoning_effort
    if spec.top_logprobs:
        sent |= {"logprobs": True, "top_logprobs": spec.top_logprobs}
    if spec.structured_output == "json_schema":
        named = {"name": "answer", "strict": True, "schema": schema}
        sent["response_format"] = {"type": "json_schema", "json_schema": named}
    elif spec.structured_output == "json_object":
        sent["response_format"] = {"type": "json_object"}
    return sent
