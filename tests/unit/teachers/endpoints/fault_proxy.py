"""A proxy in front of an endpoint that injects faults: refusals, cut bodies, hangs, bad replies.

Without a fault it passes a request on, or repeats the real server's recorded response.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What the proxy does instead: ``None`` fields leave the real response as it is."""

    status: int = 200
    retry_after: str | None = None
    content: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    hang_s: float = 0.0
    cut_body: bool = False
    drop: bool = False


@dataclass
class Seen:
    """One request as it came in."""

    at: float
    path: str
    authorization: str
    body: dict


@dataclass
class Proxy:
    """``fault`` gets the number of the request (from 0) and its body; ``None`` is no fault."""

    upstream: str | None = None
    recorded: bytes | None = None
    latency_s: float = 0.0
    fault: Callable[[int, dict], Fault | None] = lambda number, body: None
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def forward(self, path: str, body: bytes) -> bytes:
        if self.recorded is not None:
            return self.recorded
        place = urlsplit(self.upstream)
        connection = HTTPConnection(place.hostname, place.port, timeout=250)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse().read()
        connection.close()
        return response


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        proxy, body, started = self.proxy, json.loads(raw), time.monotonic()
        with proxy.lock:
            number = len(proxy.seen)
            authorization = self.headers.get("Authorization", "")
            proxy.seen.append(Seen(started, self.path, authorization, body))
            proxy.in_flight += 1
            proxy.most_in_flight = max(proxy.most_in_flight, proxy.in_flight)
        try:
            self._respond(proxy.fault(number, body) or Fault(), raw)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with proxy.lock:
                proxy.in_flight -= 1

    def _respond(self, fault: Fault, raw: bytes) -> None:
        if fault.hang_s:
            self.proxy.stop.wait(fault.hang_s)
        if self.proxy.latency_s:
            time.sleep(self.proxy.latency_s)
        if fault.drop:
            self.close_connection = True
            return
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        if fault.status != 200:
            self._send(fault.status, b'{"error": {"message": "injected"}}', headers)
            return
        response = self.proxy.forward(self.path, raw)
        if fault.content is not None or fault.finish_reason or fault.refusal:
            whole = json.loads(response)
            choice = whole["choices"][0]
            if fault.content is not None:
                choice["message"]["content"] = fault.content
                choice.pop("logprobs", None)
            choice["finish_reason"] = fault.finish_reason or choice["finish_reason"]
            choice["message"]["refusal"] = fault.refusal
            response = json.dumps(whole).encode()
        if fault.cut_body:
            response = response[: len(response) // 2]
        self._send(200, response, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(proxy: Proxy) -> Iterator[Proxy]:
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
