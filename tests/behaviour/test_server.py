"""Promotion against an MLflow server on PostgreSQL, both real, started here."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from rarealert.registry.ledger import read_ledger

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

NAME = "toy"
ATTEMPT = """
import sys, time
import mlflow
from rarealert.errors import RareAlertError
from rarealert.registry.promotion import Decision, promote
mlflow.set_tracking_uri(sys.argv[1])
time.sleep(max(0, float(sys.argv[3]) - time.time()))
try:
    moved = promote(Decision("toy", sys.argv[2], None, "abc", "e" * 64), lambda name, alias: None)
    print("won" if moved else "was already")
except RareAlertError as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URI of a tracking server whose store is a PostgreSQL database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        import pgserver

    folder = tmp_path_factory.mktemp("server")
    # PostgreSQL refuses to run as root: pgserver then becomes another user, who needs access
    place = Path(tempfile.mkdtemp(prefix="rarealert-pg-"))
    place.chmod(0o755)
    database = pgserver.get_server(place / "data", cleanup_mode="stop")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", database.get_uri(), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    log = (folder / "server.log").open("w")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_T")}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=kept, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)
        log.close()
        database.cleanup()
        shutil.rmtree(place)


def wait_for(url, process, log):
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_of_two_promotions_at_once_one_wins_and_the_other_is_refused(server, tmp_path):
    import mlflow

    mlflow.set_tracking_uri(server)
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    with mlflow.start_run() as run:
        pass
    for _ in range(2):
        client.create_model_version(NAME, run.info.artifact_uri, run.info.run_id)
    script = tmp_path / "attempt.py"
    script.write_text(ATTEMPT)
    start = str(time.time() + 40)  # both are up and wait for the same moment
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), server, version, start],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for version in "12"
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    won = [version for version, text in zip("12", outputs, strict=True) if text.startswith("won")]
    assert len(won) == 1, outputs
    assert any(text.startswith("refused") for text in outputs)
    assert [entry.version for entry in read_ledger(NAME)] == won
    assert client.get_registered_model(NAME).aliases == {"champion": won[0]}
    mlflow.set_tracking_uri(None)
