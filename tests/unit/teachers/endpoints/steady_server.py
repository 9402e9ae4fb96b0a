"""A server in a process of its own that answers each request after a set time, and counts.

It does as little as can be done for a request, so that what is measured is the client. Prints its
port, serves until its standard input closes, then prints what it saw as one JSON object.
"""

import asyncio
import json
import sys
from pathlib import Path


class Count:
    """Calls under way over time; ``busy_s`` is their integral until the last one came in."""

    def __init__(self) -> None:
        self.calls = self.open = self.most = 0
        self.busy_s = self.open_s = self.first = self.last = self.at = 0.0

    def came(self, now: float) -> None:
        self._advance(now)
        if not self.calls:
            self.first = now
        self.calls += 1
        self.open += 1
        self.most = max(self.most, self.open)
        self.last = now
        self.busy_s = self.open_s

    def went(self, now: float) -> None:
        self._advance(now)
        self.open -= 1

    def _advance(self, now: float) -> None:
        self.open_s += self.open * (now - self.at)
        self.at = now

    def told(self) -> str:
        span = self.last - self.first
        return json.dumps(
            {"calls": self.calls, "most": self.most, "busy_s": self.busy_s, "span_s": span}
        )


class Steady(asyncio.Protocol):
    """One connection: reads a request whole, answers with the one response after a while."""

    def __init__(self, response: bytes, latencies_s: list[float], count: Count) -> None:
        self.response, self.latencies_s, self.count = response, latencies_s, count
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, found, body = self.held.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length:
            self.held = body[length:]
            loop = asyncio.get_running_loop()
            latency_s = self.latencies_s[self.count.calls % len(self.latencies_s)]
            self.count.came(loop.time())
            loop.call_later(latency_s, self._answer)

    def _answer(self) -> None:
        self.count.went(asyncio.get_running_loop().time())
        self.transport.write(self.response)


async def main(body: bytes, latencies_s: list[float]) -> None:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    count = Count()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Steady(head.encode() + body, latencies_s, count), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(count.told(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes(), [float(one) for one in sys.argv[2:]]))
