"""Throughput and latency of the service against its batch limit.

    pip install -e '.[load]'
    python benchmarks/serve.py --model build/clinic/model --seconds 30

The service and locust (https://docs.locust.io) run in processes of their own. Prints a Markdown
table: requests a second, p50 and p99 in ms, failures, processor milliseconds of the service a
visit, and the mean batch. On a shared machine only the processor time can be compared.
"""

import argparse
import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

HERE = Path(__file__).parent
HEAD = "| max batch | users | requests/s | p50 ms | p99 ms | failed | CPU ms/visit | mean batch |"
START_S = 300


def main() -> None:
    """Measure each batch limit in turn."""
    options = _options()
    print(HEAD)
    print("|" + " --- |" * HEAD.count(" | ") + " --- |")
    for limit in options.batches:
        with _service(options, limit) as (process, url):
            print(_row(options, limit, process, url), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model's folder")
    parser.add_argument(
        "--batches",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[1, 4, 16, 32],
        help="values of --max-batch",
    )
    parser.add_argument("--users", type=int, default=32, help="requests under way at once")
    parser.add_argument("--seconds", type=int, default=30, help="seconds a batch limit is loaded")
    parser.add_argument("--rarealert", default=shutil.which("rarealert"), help="the command")
    parser.add_argument("--locust", default=shutil.which("locust"), help="the command")
    options = parser.parse_args()
    if options.locust is None:
        sys.exit("locust is not installed: pip install -e '.[load]'")
    return options


@contextmanager
def _service(options: argparse.Namespace, limit: int) -> Iterator[tuple[psutil.Process, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [options.rarealert, "serve", "--model", str(options.model), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--max-batch", str(limit)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(url, process)
            yield psutil.Process(process.pid), url
        finally:
            process.send_signal(signal.SIGTERM)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("the service did not start")


def _row(options: argparse.Namespace, limit: int, process: psutil.Process, url: str) -> str:
    _load(options, url, 5)  # what the first requests meet is not what later ones do
    before, visits = _cpu_s(process), _visits(url)
    stats = _load(options, url, options.seconds)
    done, batches = (now - then for now, then in zip(_visits(url), visits, strict=True))
    cpu_ms = 1000 * (_cpu_s(process) - before) / max(done, 1)
    return (
        f"| {limit} | {options.users} | {float(stats['Requests/s']):.1f} | {stats['50%']} "
        f"| {stats['99%']} | {stats['Failure Count']} | {cpu_ms:.0f} "
        f"| {done / max(batches, 1):.1f} |"
    )


def _load(options: argparse.Namespace, url: str, seconds: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [options.locust, "-f", str(HERE / "locustfile.py"), "--headless", "--host", url]
        command += ["-u", str(options.users), "-r", str(options.users), "-t", f"{seconds}s"]
        command += ["--csv", f"{folder}/load", "--only-summary", "--loglevel", "ERROR"]
        environment = {**os.environ, "PYTHONPATH": ""}
        subprocess.run(command, check=False, capture_output=True, env=environment)
        with Path(folder, "load_stats.csv").open(encoding="utf-8") as file:
            return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _visits(url: str) -> tuple[float, float]:
    """Visits scored and batches run since the service started."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:  # noqa: S310
        text = response.read().decode()
    found = dict(re.findall(r"^rarealert_batch_visits_(sum|count) (\S+)$", text, re.M))
    return float(found["sum"]), float(found["count"])


if __name__ == "__main__":
    main()
