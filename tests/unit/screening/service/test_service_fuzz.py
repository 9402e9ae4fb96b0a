"""Anything may be sent: an answer or a 4xx, never a 5xx, and no word of it in errors or logs."""

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarealert.registry.versions import register_version
from rarealert.screening.next_questions import load_knowledge
from rarealert.screening.service.app import make_app
from rarealert.screening.service.batching import RegistrySource
from rarealert.screening.service.state import ServiceSettings

CANARY = "Zyxcanary"
SCREENING = ("/v1/screen", "/v1/screen/fhir", "/v1/explain", "/v1/next")
ROUTES = (*SCREENING, "/cds-services/rarealert-patient-view")
FIELDS = ["visits", "visit", "case_id", "age_years", "sex", "chief_complaint", "vitals", "entry"]
FIELDS += ["findings_present", "findings_excluded", "prevalence", "rationale", "resourceType", "id"]
FIELDS += ["resource", "subject", "reference", "period", "start", "status", "hook", "context"]
FIELDS += ["hookInstance", "userId", "patientId", "prefetch", "patient", "encounter"]
NAMES = st.sampled_from(FIELDS)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([CANARY, "Bundle", "Patient", "Encounter", "patient-view", "female", "alerts"]),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.just("HP:0001250")
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(NAMES, WORDS), inner, max_size=6)
    ),
    max_leaves=20,
)
VISIT = st.dictionaries(NAMES, LEAVES, max_size=4).map(
    lambda more: {"chief_complaint": CANARY, **more}
)
BODIES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries({"visits": st.lists(VISIT, max_size=3)}),
    st.fixed_dictionaries({"visit": VISIT}),
    st.fixed_dictionaries(
        {
            "resourceType": st.just("Bundle"),
            "entry": st.lists(st.fixed_dictionaries({"resource": ANYTHING}), max_size=3),
        }
    ),
)


def check(response, logs):
    assert response.status_code < 500, logs()
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert CANARY not in response.text
    assert CANARY not in logs()


def ask_anything(client, caplog, examples):
    """Send ``examples`` bodies of JSON, most of them holding the canary; check every answer."""
    caplog.set_level(logging.DEBUG)

    def logs():
        own = (record for record in caplog.records if not record.name.startswith("http"))
        return "\n".join(f"{record.getMessage()} {record.exc_info}" for record in own)

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(ROUTES), BODIES, st.sampled_from(["", "?rationale=all", f"?q={CANARY}"]))
    def ask(route, body, query):
        caplog.clear()
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        check(client.post(route + query, content=content, headers=headers), logs)

    ask()


def test_any_json_is_answered_or_refused(served, caplog):
    ask_anything(served.client, caplog, 120)


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_any_json_of_thousands_is_answered_or_refused(served, caplog):
    ask_anything(served.client, caplog, 4000)


@pytest.mark.scale
def test_any_json_is_answered_or_refused_by_the_registered_student(
    caplog, mlflow_store, package, tiny_student
):
    with mlflow.start_run():
        register_version("toy", package(tiny_student), {})
    app = make_app(ServiceSettings(), RegistrySource("toy", "challenger", mlflow_store))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        ask_anything(client, caplog, 500)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ROUTES), st.binary(max_size=200))
def test_any_bytes_are_refused(served, route, content):
    headers = {"content-type": "application/json"}
    response = served.client.post(route, content=content, headers=headers)
    assert 400 <= response.status_code < 500


@pytest.mark.scale
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", [*ROUTES, "/v1/findings"])
def test_schemathesis_finds_nothing_in_thousands_of_requests(served, caplog, tmp_path, path):
    """Property-based tests from the OpenAPI description (https://schemathesis.readthedocs.io)."""
    caplog.set_level(logging.INFO)
    load_knowledge()  # as `rarealert serve` does at its start
    server = uvicorn.Server(uvicorn.Config(served.app, port=0, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    command = [Path(sys.executable).parent / "schemathesis", "run"]
    command += [f"http://127.0.0.1:{port}/openapi.json", "--max-examples", "1800", "--seed", "7"]
    command += ["--checks", "not_a_server_error,content_type_conformance"]
    command += ["--checks", "response_schema_conformance,negative_data_rejection"]
    # what is looked for are wrong answers, not slow ones on a machine that has other work to do
    command += ["--include-path", path, "--request-timeout", "60"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    metrics = served.client.get("/metrics").text
    server.should_exit = True
    thread.join(30)
    assert done.returncode == 0, done.stdout[-6000:]
    counted = [line for line in metrics.splitlines() if line.startswith("rarealert_requests_total")]
    print(path, *(line.removeprefix("rarealert_requests_total") for line in counted), sep="\n")
    assert sum(float(line.split()[-1]) for line in counted) >= 1_700  # of six paths: 10,000
    assert not any('status="5' in line for line in counted)
    logged = [json.loads(r.message) for r in caplog.records if r.name == "rarealert.access"]
    assert {tuple(line) for line in logged} == {("method", "ms", "route", "status")}
    assert {line["route"] for line in logged} <= {"unmatched", *served.app.openapi()["paths"]}
    assert not [
        r for r in caplog.records if r.name == "rarealert.service" and r.levelname != "INFO"
    ]
