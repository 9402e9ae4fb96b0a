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

import pytest
from endpoint_kit import KEY, case, teacher

from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.collect import Tally
from rarealert.teachers.endpoints.endpoint import ask_endpoints
from rarealert.teachers.endpoints.limits import Budget

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


class _Place:
    """Two endpoints, a small local model, a cluster, and a cache."""

    def __init__(self, folder: Path, proxies: list, cluster: subprocess.Popen, model: str):
        self.folder, self.cluster, self.proxies = folder, cluster, proxies
        self.address = cluster.stdout.readline().strip()
        limits = {"concurrency": SLOTS}
        self.teachers = [teacher(one, f"t{n}", limits=limits) for n, one in enumerate(proxies)]
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

    def result(self, process: subprocess.Popen) -> dict:
        """The driver's result; Ray prints notes of lost machines around it."""
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        (line,) = [line for line in output.splitlines() if line.startswith("{")]
        return json.loads(line)

    def wait_for(self, answers: int) -> None:
        until = time.monotonic() + 120
        while self.answered() < answers and time.monotonic() < until:
            time.sleep(0.05)

    def answered(self) -> int:
        return len(RationaleCache(self.folder / "cache").answered())


@pytest.fixture
def place(replay, long_model, tmp_path):
    pytest.importorskip("ray")
    proxies = [replay(latency_s=LATENCY_S) for _ in range(2)]
    with _process("ray_cluster.py") as cluster:
        yield _Place(tmp_path, proxies, cluster, long_model)
        cluster.communicate("")


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_two_machines_keep_the_cap_survive_a_kill_and_a_lost_machine_and_repeat_nothing(place):
    used = json.loads(place.proxies[0].recorded)["usage"]
    each = (used["prompt_tokens"] * 100 + used["completion_tokens"] * 1000) / 1e6
    cap = 20 * each + 2 * SLOTS  # dollars; a call's worst case is 0.6 and a little
    with place.driver(cap) as process:
        capped = place.result(process)
    spent = sum(one.cost_usd for one in RationaleCache(place.folder / "cache").stats().values())
    assert "teach.cost_cap_usd" in capped["notes"][0]
    assert 5 * each < spent <= cap, "one budget for both machines"
    assert len(capped["machines"]["_Asker"]) == len(capped["machines"]["_Reader"]) == 2
    assert capped["tallies"]["small"]["answered"] == LOCAL_CASES

    with place.driver(None) as killed:
        before = place.answered()
        place.wait_for(before + 20)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    kept = place.answered()
    assert before < kept < 2 * CASES + LOCAL_CASES

    with place.driver(None) as process:
        place.wait_for(kept + 5)
        place.cluster.stdin.write("lose\n")
        place.cluster.stdin.flush()
        last = place.result(process)
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
    most = max(proxy.most_in_flight for proxy in place.proxies)
    assert most <= SLOTS + SLOTS, "calls of a dead actor may linger"
    again = sum(len(proxy.seen) for proxy in place.proxies) - 2 * CASES
    assert again <= 3 * SLOTS, "the calls in flight of two teachers at the kill, of one at the loss"
    assert KEY not in "".join(file.read_text() for file in place.folder.rglob("*.jsonl"))
