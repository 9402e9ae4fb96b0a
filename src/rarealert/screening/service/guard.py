"""Middleware before the routes: access log without text, metrics, token and limits; plain ASGI.

ASGI 3.0, https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

import asyncio
import json
import logging
import time
import traceback
from hmac import compare_digest
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rarealert.screening.service.problems import FieldError, RequestError, problem, refuse
from rarealert.screening.service.state import ServiceSettings
from rarealert.screening.service.telemetry import Metrics

_ACCESS = logging.getLogger("rarealert.access")
_ERRORS = logging.getLogger("rarealert.service")
_READ_ON = 16
"""An oversized body is read, and discarded, up to this multiple of the limit: most clients read the
answer only after sending everything and would otherwise report a broken connection."""
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Observed:
    """Logs and counts each request by its route's template, because a path can contain case text.

    An exception of a route becomes a 500 without its message, which could quote the visit.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # keeps the message out of the log
            _ERRORS.error("%s at %s", type(error).__name__, _frames(error))
            if status:
                raise ConnectionError("the response was interrupted") from None
            await problem(500, "Internal error; the service's log has its location.")(
                scope, receive, noted
            )
        finally:
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - started
            self._metrics.request(route, method, status, seconds)
            line = {"method": method, "ms": round(seconds * 1000, 1), "route": route}
            _ACCESS.info(json.dumps({**line, "status": status}, sort_keys=True))


def _frames(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames)


class Guard:
    """Checks token, concurrent requests, and size and duration of a body, cheapest first."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, open_paths: tuple[str, ...]):
        self._app = app
        self._settings = settings
        self._open = open_paths
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self._is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            self._check_token(scope)
            if self._running >= self._settings.max_requests:
                raise RequestError(429, "Too many requests are running; try again.", retry_s=1)
        except RequestError as refusal:
            await refuse(refusal)(scope, receive, send)
            return
        self._running += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._running -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope, receive)
        except RequestError as refusal:
            await refuse(refusal)(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _is_open(self, path: str) -> bool:
        return any(
            path.startswith(each) if each.endswith("/") and each != "/" else path == each
            for each in self._open
        )

    def _check_token(self, scope: Scope) -> None:
        if self._settings.token is None:
            return
        wanted = f"Bearer {self._settings.token.get_secret_value()}".encode()
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not compare_digest(given, wanted):
            raise RequestError(401, "Send the header `Authorization: Bearer <token>`.")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > _READ_ON * limit:
            raise _too_large(limit)
        body = bytearray()
        got = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while True:
                    message: dict[str, Any] = dict(await receive())
                    got += len(message.get("body", b""))
                    if got <= limit:
                        body += message.get("body", b"")
                    last = message["type"] == "http.disconnect" or not message.get("more_body")
                    if got > limit and (last or got > _READ_ON * limit):
                        raise _too_large(limit)
                    if last:
                        return bytes(body)
        except TimeoutError:
            raise RequestError(408, "The body did not arrive in time.") from None


def _too_large(limit: int) -> RequestError:
    error = FieldError(field="body", reason=f"longer than {limit} bytes")
    detail = f"The body is longer than {limit} bytes; send shorter or fewer visits."
    return RequestError(413, detail, [error])
