"""What the routes of one app share: settings, the loaded model, the queue and the counters."""

import asyncio
import ipaddress
import os
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request

from rarealert.errors import BadInputError
from rarealert.knowledge.recognise import load_recogniser
from rarealert.screening.service.batching import (
    Answered,
    Batcher,
    Job,
    ModelHolder,
    ModelSource,
    QueueClosedError,
    QueueFullError,
)
from rarealert.screening.service.problems import RequestError
from rarealert.screening.service.telemetry import Metrics

TOKEN_VARIABLE = "RAREALERT_TOKEN"  # noqa: S105 - the variable's name, not a secret
"""Environment variable of the bearer token; a flag would be visible in the process list."""

_SHORTEST_TOKEN = 16  # characters; 2^80 guesses if they are drawn from 32 letters
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]")

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class ServiceSettings(BaseModel):
    """Settings of the service, filled from the flags of ``rarealert serve`` and the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to bind; loopback, because visits are patients' data."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """TCP port; 0 lets the system choose one."""
    token: SecretStr | None = None
    """Bearer token that all routes but ``/health``, ``/ready`` and the page's files require."""
    allow_origin: tuple[str, ...] = ()
    """Origins whose pages may call the service (CORS); none but the service's own."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share 0-1 of rare disease for CDS cards, whose calls give none; the page's slider starts here
    too. Validation's own share is far from any clinic's."""
    max_batch: Count = 4
    """Visits scored together; two cores gain nothing from more (docs/results.md), a GPU does."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Milliseconds a visit waits for others; well below the 40 that it takes."""
    max_waiting: Count = 256
    """Visits in the queue; more wait longer than ``answer_timeout_s`` on two cores."""
    max_visits: Count = 64
    """Visits in one request; whole files are for ``rarealert screen``."""
    max_requests: Count = 128
    """Concurrent requests; each may hold ``max_body_bytes`` in memory."""
    max_body_bytes: Count = 1_048_576
    """Bytes of a request: 64 long visits, or the FHIR record of one patient."""
    body_timeout_s: Seconds = 10.0
    """Seconds a client may take to send a request."""
    answer_timeout_s: Seconds = 30.0
    """Seconds until a waiting request is answered with 503; an EHR gives up sooner."""
    reload_s: Seconds = 10.0
    """Seconds between checks of the alias."""
    shutdown_s: Annotated[int, Field(ge=1)] = 30
    """Seconds that running requests have to finish after SIGTERM."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Accepted ``Host`` headers; fixed on loopback, against DNS rebinding."""
        return (*_LOOPBACK_NAMES, self.host, f"[{self.host}]") if self.is_loopback else ("*",)


def read_token() -> SecretStr | None:
    """The token from the environment, if it is set.

    Raises:
        BadInputError: it is too short to be a secret.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return None
    if len(token) < _SHORTEST_TOKEN or not token.isascii():
        raise BadInputError(
            f"{TOKEN_VARIABLE} must hold at least {_SHORTEST_TOKEN} ASCII characters; "
            "make one with `openssl rand -hex 32`."
        )
    return SecretStr(token)


def check_exposure(settings: ServiceSettings) -> None:
    """Refuse to serve a network without a token.

    Raises:
        BadInputError: the address is not loopback and no token is set.
    """
    if settings.token is None and not settings.is_loopback:
        raise BadInputError(
            f"--host {settings.host} is reachable from other machines: set {TOKEN_VARIABLE} to a "
            "secret that every request must then send, or bind 127.0.0.1."
        )


class Service:
    """The loaded model and its queue; call ``start`` before use and ``close`` at the end."""

    def __init__(self, settings: ServiceSettings, source: ModelSource) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.holder = ModelHolder(source, self.metrics, settings.reload_s)
        self.batcher = Batcher(
            self.holder.model,
            self.metrics,
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            max_waiting=settings.max_waiting,
        )
        self._started = False

    def start(self) -> None:
        """Load the model and start the threads; a second call does nothing.

        Raises:
            RareAlertError: there is no model to load.
        """
        if not self._started:
            load_recogniser()  # otherwise the first visit waits for it
            self.holder.start()
            self.batcher.start()
            self._started = True

    def close(self) -> None:
        """Answer queued visits, then end the threads."""
        self.batcher.close(self.settings.shutdown_s)
        self.holder.close()

    async def ask(self, jobs: Sequence[Job], within_s: float | None = None) -> list[Answered]:
        """Answer each job, in order, within ``within_s`` seconds (default ``answer_timeout_s``).

        Raises:
            RequestError: the queue is full, the service shuts down, or the answer takes too long.
        """
        try:
            waiting = self.batcher.submit(jobs)
        except QueueFullError:
            raise RequestError(429, "Too many visits are waiting; try again.", retry_s=1) from None
        except QueueClosedError:
            raise RequestError(503, "The service is shutting down.", retry_s=5) from None
        try:
            async with asyncio.timeout(
                self.settings.answer_timeout_s if within_s is None else within_s
            ):
                return list(await asyncio.gather(*(asyncio.wrap_future(each) for each in waiting)))
        except TimeoutError:
            raise RequestError(503, "The answer took too long; try again.", retry_s=5) from None


def service_of(request: Request) -> Service:
    """The service behind ``request``, for ``fastapi.Depends``."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
