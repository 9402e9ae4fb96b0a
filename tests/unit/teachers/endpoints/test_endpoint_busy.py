"""The allowed concurrency is kept busy: a slot is filled again as soon as it is free."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from endpoint_kit import case, teacher

from rarealert.teachers.asking import Tally
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.endpoints.limits import Budget
from rarealert.teachers.endpoints.teacher import ask_endpoints


def asked(real, folder: Path, cases: int, slots: int, *latencies_s: float) -> dict:
    """What a server of these latencies saw, and the client's processor seconds a call."""
    response = folder / "response.json"
    response.write_bytes(real[0])
    server = [sys.executable, str(Path(__file__).parent / "steady_server.py"), str(response)]
    with subprocess.Popen(
        [*server, *map(str, latencies_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        port = process.stdout.readline().strip()
        one = teacher(
            SimpleNamespace(base_url=f"http://127.0.0.1:{port}/v1"), limits={"concurrency": slots}
        )
        with RationaleCache(folder / "cache") as cache:
            visits, started = [case(n) for n in range(cases)], time.process_time()
            gc.freeze()  # what pytest and other tests hold is searched for garbage no more
            try:
                done = ask_endpoints([one], visits, cache, Budget(None), known=set())
            finally:
                gc.unfreeze()
            used = time.process_time() - started
        told, _ = process.communicate("")
    assert done.tallies == {"llama": Tally(answered=cases)}
    seen = json.loads(told)
    assert seen["calls"] == cases
    assert seen["most"] == slots
    share = seen["busy_s"] / (seen["span_s"] * slots)
    return {**seen, "share": share, "cpu_ms_a_call": 1000 * used / cases}


def test_slots_are_filled_again_at_once_and_not_in_waves(real, tmp_path):
    """Waves would wait for the slowest of each: a share of 0.75 at these latencies."""
    seen = asked(real, tmp_path, 24, 6, 0.5, 1.0)
    assert seen["share"] >= 0.85
    assert seen["cpu_ms_a_call"] < 20


@pytest.mark.scale
def test_a_server_of_200_ms_is_kept_at_least_95_percent_busy(real, tmp_path):
    seen = asked(real, tmp_path, 1600, 16, 0.2)
    print(f"{seen}, {os.cpu_count()} cores")
    assert seen["share"] >= 0.95
