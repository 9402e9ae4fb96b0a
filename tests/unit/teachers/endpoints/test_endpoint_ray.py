"""Teachers on a Ray cluster of two machines keep the cache's promises; run with the extra `ray`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from endpoint_kit import KEY, case, teacher

from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.collect import Tally
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.teacher import ask_endpoints

HERE = Path(__file__).parent
CASES, SLOTS, LATENCY_S = 80, 3, 0.2
LOCAL_CASES = 6


@contextmanager
def _process(script: str, *args: str, **environment: str) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TEST_KEY": KEY, **environment},
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _told(said: str) -> dict:
    """What a driver said of its run; Ray prints notes of lost machines around it."""
    (line,) = [line for line in said.splitlines() if line.startswith("{")]
    return json.loads(line)


class _Place:
    """Two endpoints, a small local model, a cluster, and a cache."""

    def __init__(self, folder: Path, servers, cluster, model: str):
        self.folder, self.cluster, self.servers = folder, cluster, servers
        self.address = cluster.stdout.readline().strip()
        ports = [server.stdout.readline().strip() for server in servers]
        self.teachers = [
            teacher(
                SimpleNamespace(base_url=f"http://127.0.0.1:{port}/v1"),
                f"t{place}",
                limits={"concurrency": SLOTS},
            )
            for place, port in enumerate(ports)
        ]
        self.local = {"id": "small", "kind": "local", "model": model, "cases": LOCAL_CASES}
        self.local["batch_size"] = 2

    def driver(self, cap: float | None):
        given = {
            "endpoints": [one.spec.model_dump() for one in self.teachers],
            "local": self.local,
            "cases": CASES,
            "cap": cap,
            "folder": str(self.folder / "cache"),
        }
        (self.folder / "given.json").write_text(json.dumps(given))
        return _process("ray_driver.py", str(self.folder / "given.json"), RAY_ADDRESS=self.address)

    def run(self, cap: float | None = None) -> dict:
        with self.driver(cap) as process:
            said, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        return _told(said)

    def answered(self) -> int:
        return len(RationaleCache(self.folder / "cache").answered())


@pytest.fixture
def place(real, long_model, tmp_path):
    pytest.importorskip("ray")
    response = tmp_path / "response.json"
    response.write_bytes(real[0])
    steady = ("steady_server.py", str(response), str(LATENCY_S))
    with (
        _process(*steady) as one,
        _process(*steady) as other,
        _process("ray_cluster.py") as cluster,
    ):
        yield _Place(tmp_path, (one, other), cluster, long_model)
        cluster.communicate("")


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_two_machines_keep_the_cap_survive_a_kill_and_a_lost_machine_and_repeat_nothing(place):
    used = json.loads((place.folder / "response.json").read_bytes())["usage"]
    each = (used["prompt_tokens"] * 100 + used["completion_tokens"] * 1000) / 1e6
    cap = 20 * each + 2 * SLOTS  # dollars; a call's worst case is 0.6 and a little
    capped = place.run(cap)
    spent = sum(one.cost_usd for one in RationaleCache(place.folder / "cache").stats().values())
    assert "teach.cost_cap_usd" in capped["notes"][0]
    assert 5 * each < spent <= cap, "one budget for both machines"
    assert len(capped["machines"]["_Asker"]) == len(capped["machines"]["_Reader"]) == 2
    assert capped["tallies"]["small"]["answered"] == LOCAL_CASES

    with place.driver(None) as killed:
        before, until = place.answered(), time.monotonic() + 120
        while place.answered() < before + 20 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    kept = place.answered()
    assert before < kept < 2 * CASES + LOCAL_CASES

    with place.driver(None) as process:
        until = time.monotonic() + 120
        while place.answered() < kept + 5 and time.monotonic() < until:
            time.sleep(0.05)
        place.cluster.stdin.write("lose\n")
        place.cluster.stdin.flush()
        said, _ = process.communicate(timeout=240)
    last = _told(said)
    assert {name: tally["not_asked"] for name, tally in last["tallies"].items()} == {
        "t0": 0,
        "t1": 0,
        "small": CASES - LOCAL_CASES,
    }

    found = RationaleCache(place.folder / "cache").verify()
    assert (found.answers, found.duplicates, found.damaged) == (2 * CASES + LOCAL_CASES, 0, ())
    with RationaleCache(place.folder / "cache") as cache:
        here = ask_endpoints(
            place.teachers,
            [case(number) for number in range(CASES)],
            cache,
            cache.answered(),
            Budget(None),
        )
    assert here.tallies == {"t0": Tally(cached=CASES), "t1": Tally(cached=CASES)}, "the same keys"
    seen = [json.loads(server.communicate("")[0]) for server in place.servers]
    assert max(one["most"] for one in seen) <= SLOTS + SLOTS, "a dead actor's calls may linger"
    again = sum(one["calls"] for one in seen) - 2 * CASES
    print(f"{2 * CASES} answers, a kill and a lost machine: {again} calls made again")
    assert again <= 3 * SLOTS, "what two teachers had in flight at the kill, and one at the loss"
    assert KEY not in "".join(file.read_text() for file in place.folder.rglob("*.jsonl"))
