"""Batches across requests, and the model that is replaced under them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.errors import RareAlertError
from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.batching import Batcher, Question, QueueFullError
from rarealert.screening.service.state import ServiceSettings
from rarealert.screening.service.telemetry import Metrics
from rarealert.student.model import Student
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit


def case(text, name="a"):
    return Case(case_id=name, source="s", chief_complaint=text)


def batcher(scorer, **settings):
    held = {"max_batch": 8, "max_wait_ms": 50.0, "max_waiting": 1000, **settings}
    made = Batcher(lambda: ScreeningModel("toy", "1", "d", scorer), Metrics(), **held)
    made.start()
    return made


def test_visits_of_many_requests_share_a_batch(serve):
    with serve(max_batch=8, max_wait_ms=500) as served, ThreadPoolExecutor(8) as pool:
        texts = ["x" * (10 + place) for place in range(8)]
        responses = list(pool.map(lambda text: served.screen({"chief_complaint": text}), texts))
        risks = [response.json()["answers"][0]["risk"] for response in responses]
        assert risks == pytest.approx([len(text) / 100 for text in texts])
        assert max(served.scorer.batches) > 1


def test_a_lone_visit_waits_no_longer_than_it_must(served):
    started = time.perf_counter()
    assert served.screen({"chief_complaint": "alone"}).status_code == 200
    assert time.perf_counter() - started < 2


def test_a_visit_that_the_model_refuses_fails_alone(serve):
    with serve(max_batch=8, max_wait_ms=300) as served, ThreadPoolExecutor(4) as pool:
        served.scorer.fails = "bad"
        texts = ["good", "bad", "fine", "well"]
        codes = list(
            pool.map(lambda text: served.screen({"chief_complaint": text}).status_code, texts)
        )
        assert codes == [200, 500, 200, 200]


class Recorder:
    """Notes which prevalence and visits came in one call."""

    def __init__(self):
        self.calls = []

    def predict(self, data, params=None):
        import pandas as pd

        self.calls.append((params.get("prevalence"), params["rationale"], len(data)))
        rows = pd.DataFrame({"case_id": data["case_id"], "risk": 0.5, "band": "low"})
        rows["text"] = data["chief_complaint"]
        rows["truncated"] = False
        return rows


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.1, 0.2]), st.booleans(), st.text("ab", min_size=1)),
        min_size=1,
        max_size=30,
    )
)
def test_each_question_gets_its_own_answer(questions):
    scorer = Recorder()
    made = batcher(scorer, max_batch=4, max_wait_ms=0.0)
    asked = [
        Question(case(text, f"n{i}"), prevalence, told)
        for i, (prevalence, told, text) in enumerate(questions)
    ]
    answers = [future.result(10) for future in made.submit(asked)]
    made.close(5)
    assert [each.row["text"] for each in answers] == [text for _, _, text in questions]
    assert [each.row["case_id"] for each in answers] == [each.case.case_id for each in asked]
    assert sum(count for *_, count in scorer.calls) == len(questions)
    assert all(count <= 4 for *_, count in scorer.calls)
    assert all(count == 1 for _, told, count in scorer.calls if told)


def test_all_of_a_request_is_queued_or_none():
    made = batcher(Recorder(), max_waiting=3, max_wait_ms=1000.0)
    with pytest.raises(QueueFullError):
        made.submit([Question(case("a"))] * 4)
    assert made.waiting == 0
    made.close(5)


def test_what_waits_is_answered_before_the_end():
    made = batcher(Recorder(), max_wait_ms=1000.0)
    futures = made.submit([Question(case("a")) for _ in range(5)])
    made.close(5)
    assert all(future.result(0).row["risk"] == 0.5 for future in futures)
    assert not made.alive


@pytest.fixture(scope="module")
def student(tiny_student):
    return Student.load(tiny_student)


def test_an_answer_does_not_depend_on_who_shared_the_batch(student):
    class Direct:
        def predict(self, data, params=None):
            import pandas as pd

            from rarealert.screening.frames import to_cases

            found = student.predict([read_visit(case) for case in to_cases(data)], 32)
            return pd.DataFrame(
                {
                    "case_id": data["case_id"],
                    "risk": [each.risk for each in found],
                    "band": [each.band for each in found],
                    "truncated": [each.truncated for each in found],
                }
            )

    rng = np.random.default_rng(3)
    words = ["cough", "fever", "pain", "weak", "tired", "numb"]
    cases = [case(" ".join(rng.choice(words, rng.integers(1, 12))), f"n{i}") for i in range(16)]
    made = batcher(Direct(), max_batch=16, max_wait_ms=20.0)
    together = [each.result(20).row["risk"] for each in made.submit([Question(c) for c in cases])]
    alone = [made.submit([Question(c)])[0].result(20).row["risk"] for c in cases[:6]]
    made.close(5)
    np.testing.assert_allclose(together[:6], alone, atol=1e-5)


def test_the_model_is_replaced_under_load_without_a_failed_request(serve):
    with serve(reload_s=0.01, max_wait_ms=1) as served:
        seen, failed, stop = [], [], threading.Event()

        def load():
            while not stop.is_set():
                response = served.screen({"chief_complaint": "falls"})
                if response.status_code != 200:
                    failed.append(response.status_code)
                else:
                    seen.append(response.json()["answers"][0]["model"]["version"])

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in ("2", "3"):
            wait_for(lambda: len(seen) > 3)
            served.source.version = version
            seen.clear()
            wait_for(lambda wanted=version: wanted in seen)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert served.client.get("/ready").json()["model"]["version"] == "3"


def test_a_model_that_does_not_load_leaves_the_one_at_work(serve):
    with serve(reload_s=0.01) as served:
        served.source.broken = True
        served.source.version = "2"
        wait_for(lambda: 'outcome="failed"' in served.client.get("/metrics").text)
        answered = served.screen({"chief_complaint": "falls"}).json()["answers"][0]
        assert answered["model"]["version"] == "1"
        served.source.broken = False
        wait_for(lambda: served.client.get("/ready").json()["model"]["version"] == "2")


class Nothing:
    def current(self):
        raise RareAlertError("There is no champion")


def test_without_a_model_the_service_does_not_start():
    with pytest.raises(RareAlertError, match="no champion"):
        make_app(ServiceSettings(), Nothing()).state.service.start()


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
