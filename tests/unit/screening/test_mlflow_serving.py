"""The registered version as MLflow's users serve it: its own server, its own loader."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import pytest

from rarealert.registry.versions import register_version
from rarealert.screening import pyfunc

VISIT = {"case_id": "a", "age_years": 34.0, "sex": "female", "chief_complaint": "tired"}


@pytest.fixture
def version(mlflow_store, package, tiny_student):
    """A registered version called ``challenger``."""
    with mlflow.start_run():
        return register_version("toy", package(tiny_student), {})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def server(version, mlflow_store, tmp_path):
    """``mlflow models serve`` on the alias, in a process of its own; its port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/toy@challenger"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_store}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 240
            while True:
                assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                try:
                    if ask(port, "/ping")[0] == 200:
                        break
                except OSError:
                    time.sleep(0.2)
            yield port
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)


@pytest.mark.slow
def test_mlflows_own_server_answers_and_enforces_the_signature(server, version):
    split = {"columns": list(VISIT), "data": [list(VISIT.values())]}
    status, body = ask(server, "/invocations", {"dataframe_split": split})
    [answer] = json.loads(body)["predictions"]
    assert status == 200
    own = mlflow.pyfunc.load_model(version.uri).predict(pyfunc.input_example())
    assert set(answer) == set(own.columns)

    request = {"dataframe_records": [VISIT], "params": {"prevalence": 0.02, "rationale": True}}
    status, body = ask(server, "/invocations", request)
    [shifted] = json.loads(body)["predictions"]
    assert status == 200
    assert shifted["risk"] < answer["risk"]
    assert shifted["rationale"]

    for wrong in (
        {"dataframe_records": [{"chief_complaint": "no name"}]},
        {"dataframe_records": [{**VISIT, "age_years": "old"}]},
        {"dataframe_records": [VISIT], "params": {"prevalence": "low"}},
        {"inputs": 7},
    ):
        assert ask(server, "/invocations", wrong)[0] == 400
