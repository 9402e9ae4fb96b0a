"""Limits, token and logs: what is refused, and what is never told."""

import http.client
import json
import logging
import re
import threading
import time

import pytest
import uvicorn
from fastapi.testclient import TestClient

from rarealert.errors import BadInputError
from rarealert.screening.service.app import chosen_settings
from rarealert.screening.service.app import serve as run
from rarealert.screening.service.state import ServiceSettings, check_exposure

TOKEN = "0123456789abcdef0123"
VISIT = {"visits": [{"chief_complaint": "falls often"}]}
CANARY = "Wilhelmina Zyx-canary"


@pytest.mark.parametrize("path", ["/v1/screen", "/v1/screen/fhir", "/v1/explain", "/metrics"])
def test_without_the_token_nothing_is_answered(serve, path):
    with serve(token=TOKEN) as served:
        for given in (None, "Bearer wrong", f"bearer {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            refused = served.client.request("POST", path, json=VISIT, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert served.scorer.batches == [1]


def test_with_the_token_all_is_answered_and_health_needs_none(serve):
    with serve(token=TOKEN) as served:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert served.client.post("/v1/screen", json=VISIT, headers=headers).status_code == 200
        assert served.client.get("/metrics", headers=headers).status_code == 200
        assert [served.client.get(path).status_code for path in ("/health", "/ready")] == [200] * 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "clinic.example"])
def test_a_network_address_needs_a_token(host):
    with pytest.raises(BadInputError, match="RAREALERT_TOKEN"):
        run(ServiceSettings(host=host), None)
    check_exposure(ServiceSettings(host=host, token=TOKEN))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host):
    check_exposure(ServiceSettings(host=host))


def test_settings_come_from_flags_and_the_token_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAREALERT_TOKEN", TOKEN)
    chosen = chosen_settings({"max_batch": 3})
    assert (chosen.max_batch, chosen.token.get_secret_value()) == (3, TOKEN)
    assert TOKEN not in repr(chosen)
    with pytest.raises(BadInputError, match="--max-batch"):
        chosen_settings({"max_batch": 0})
    monkeypatch.setenv("RAREALERT_TOKEN", "short")
    with pytest.raises(BadInputError, match="at least 16"):
        chosen_settings({})


def test_a_name_rebound_to_loopback_is_refused(served):
    rebound = TestClient(served.app, base_url="http://evil.example")
    assert rebound.post("/v1/screen", json=VISIT).status_code == 400


def test_a_body_without_length_is_cut_off_at_the_limit(serve):
    with serve(max_body_bytes=1000) as served:
        sent = 0

        def chunks():
            nonlocal sent
            for _ in range(1000):
                sent += 100
                yield b"x" * 100

        assert served.client.post("/v1/screen", content=chunks()).status_code == 413


def test_a_client_that_sends_all_before_it_reads_is_told_that_it_is_too_much(served):
    """Over a socket: whoever closes on a client that is still sending breaks its connection."""
    server = uvicorn.Server(uvicorn.Config(served.app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    client = http.client.HTTPConnection(host, port, timeout=20)
    body = json.dumps({"visits": [{"chief_complaint": "word " * 400_000}]})
    client.request("POST", "/v1/screen", body, {"content-type": "application/json"})
    answered = client.getresponse()
    assert answered.status == 413
    assert json.loads(answered.read())["errors"] == [
        {"field": "body", "reason": "longer than 1048576 bytes"}
    ]
    client.close()
    server.should_exit = True
    thread.join(20)


def test_what_claims_to_be_far_too_long_is_not_waited_for(served):
    headers = {"content-length": str(10**9), "content-type": "application/json"}
    assert served.client.post("/v1/screen", content=b"{}", headers=headers).status_code == 413


def test_too_many_visits_waiting_and_too_many_requests_are_429(serve):
    with serve(max_waiting=2, max_requests=4, max_batch=1) as served:
        served.scorer.gate.clear()
        codes = []
        threads = [
            threading.Thread(target=lambda: codes.append(served.screen(*VISIT["visits"])))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(codes) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        served.scorer.gate.set()
        for thread in threads:
            thread.join()
        found = [response.status_code for response in codes]
        assert set(found) == {200, 429}
        assert all(r.headers["retry-after"] == "1" for r in codes if r.status_code == 429)


def test_an_answer_that_takes_too_long_is_503_and_the_next_is_answered(serve):
    with serve(answer_timeout_s=0.05) as served:
        served.scorer.gate.clear()
        slow = served.screen(*VISIT["visits"])
        assert (slow.status_code, slow.headers["retry-after"]) == (503, "5")
        served.scorer.gate.set()
        time.sleep(0.05)
        assert served.screen(*VISIT["visits"]).status_code == 200


def test_no_word_of_a_visit_stands_in_logs_or_errors(served, caplog):
    caplog.set_level(logging.DEBUG)
    served.scorer.fails = CANARY
    said = [
        served.screen({"chief_complaint": CANARY}),  # the model quotes it in its exception
        served.screen({"chief_complaint": CANARY, "age_years": CANARY, CANARY: CANARY}),
        served.screen({"chief_complaint": "a", "sex": CANARY, "findings_present": [CANARY]}),
        served.client.post("/v1/screen", content=CANARY.encode()),
        served.client.post("/v1/screen", json={CANARY: 1}),
        served.client.post("/v1/screen", json=[CANARY]),
        served.client.post(f"/v1/{CANARY}", json={}),
        served.client.get("/v1/screen", params={"q": CANARY}),
        served.client.post("/v1/screen/fhir", params={"rationale": CANARY}, json={}),
        served.client.post("/v1/screen/fhir", json={"resourceType": CANARY}),
        served.client.post(
            "/v1/screen/fhir",
            json={"resourceType": "Bundle", "entry": [{"resource": {"resourceType": CANARY}}]},
        ),
        served.client.post("/cds-services/rarealert-patient-view", json={"hook": CANARY}),
    ]
    assert [each.status_code for each in said[:3]] == [500, 422, 422]
    assert all(response.status_code >= 400 for response in said)
    told = "\n".join([*(response.text for response in said), served.client.get("/metrics").text])
    logged = "\n".join(
        [record.getMessage() + str(record.exc_info) for record in caplog.records if own(record)]
    )
    for word in CANARY.split():
        assert word not in told
        assert word not in logged
    assert "ValueError at" in logged


def own(record):
    """What a server logs; the test's HTTP client, in this process, logs its own requests."""
    return not record.name.startswith(("httpx", "httpcore"))


def test_requests_are_logged_by_route_and_counted(served, caplog):
    caplog.set_level(logging.INFO, logger="rarealert.access")
    served.screen(*VISIT["visits"])
    assert '"route": "/v1/screen", "status": 200' in caplog.records[-1].getMessage()
    metrics = served.client.get("/metrics").text
    assert 'rarealert_requests_total{method="POST",route="/v1/screen",status="200"} 1.0' in metrics
    assert 'rarealert_answers_total{band="low"} 1.0' in metrics
    assert 'rarealert_model{digest="' + "d" * 64 in metrics


def test_only_chosen_origins_may_call(serve):
    asked = {"Origin": "https://ehr.example", "Access-Control-Request-Method": "POST"}
    with serve(allow_origin=("https://ehr.example",)) as served:
        allowed = served.client.options("/cds-services/x", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://ehr.example"
    with serve() as served:
        refused = served.client.options("/cds-services/x", headers=asked)
        assert "access-control-allow-origin" not in refused.headers


def test_every_reference_of_the_openapi_description_resolves(served):
    described = served.client.get("/openapi.json").json()
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(described)))
    assert "Problem" in named
    assert named <= described["components"]["schemas"].keys()


@pytest.mark.parametrize("host", ["[::1]", "[::1]:8000", "127.0.0.1:8000", "localhost"])
def test_loopback_answers_by_each_of_its_names(serve, host):
    with serve(host="::1") as served:
        assert served.client.get("/health", headers={"Host": host}).status_code == 200
        assert served.client.get("/health", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("rationale", ["alerts", "all"])
def test_risks_are_not_lost_with_a_rationale_that_takes_too_long(serve, rationale):
    with serve(answer_timeout_s=1.0) as served:
        plain = served.scorer.answer

        def slow(readings, prevalence, rationale):
            if rationale != "none":
                time.sleep(0.4)
            return plain(readings, prevalence, rationale)

        served.scorer.answer = slow
        visits = [{"chief_complaint": "fever " * 12}] * 6
        done = served.screen(*visits, rationale=rationale)
        assert done.status_code == 200
        answers = done.json()["answers"]
        told = [each["rationale"] for each in answers]
        assert told[0] == "because"
        assert told[-1] is None
        late = [[note["code"] for note in each["notes"]] for each in answers]
        assert late == [[] if text else ["rationale_late"] for text in told]
