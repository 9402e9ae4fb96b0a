"""Batches across requests, and the model that is replaced under them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Scorer

from rarealert.errors import RareAlertError
from rarealert.screening.answer import Screener
from rarealert.screening.champion import ScreeningModel
from rarealert.screening.service.app import make_app
from rarealert.screening.service.batching import Batcher, Job, QueueFullError
from rarealert.screening.service.state import ServiceSettings
from rarealert.screening.service.telemetry import Metrics
from rarealert.student.model import Student
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit


def case(text, name="a"):
    return Case(case_id=name, source="s", chief_complaint=text)


def job(text, name="a", *more):
    return Job(read_visit(case(text, name)), *more)


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


def test_a_visit_that_the_model_refuses_fails_alone(serve):
    with serve(max_batch=8, max_wait_ms=300) as served, ThreadPoolExecutor(4) as pool:
        served.scorer.fails = "bad"
        texts = ["good", "bad", "fine", "well"]
        codes = list(
            pool.map(lambda text: served.screen({"chief_complaint": text}).status_code, texts)
        )
        assert codes == [200, 500, 200, 200]


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.1, 0.2]), st.booleans(), st.text("ab", min_size=1)),
        min_size=1,
        max_size=30,
    )
)
def test_each_question_gets_its_own_answer(questions):
    scorer = Scorer()
    made = batcher(scorer, max_batch=4, max_wait_ms=0.0)
    asked = [
        job(text, f"n{i}", prevalence, told) for i, (prevalence, told, text) in enumerate(questions)
    ]
    answers = [future.result(10).answer for future in made.submit(asked)]
    made.close(5)
    own = Scorer()
    for each, answer in zip(asked, answers, strict=True):
        assert [answer] == own.answer(
            [each.reading], each.prevalence, "all" if each.rationale else "none"
        )
    assert sum(len(ids) for ids, *_ in scorer.asked) == len(questions)
    assert all(len(ids) <= 4 for ids, *_ in scorer.asked)
    assert all(len(ids) == 1 for ids, _, rationale in scorer.asked if rationale == "all")


def test_all_of_a_request_is_queued_or_none():
    made = batcher(Scorer(), max_waiting=3, max_wait_ms=1000.0)
    with pytest.raises(QueueFullError):
        made.submit([job("a")] * 4)
    assert made.waiting == 0
    made.close(5)


def test_what_waits_is_answered_before_the_end():
    made = batcher(Scorer(), max_wait_ms=1000.0)
    futures = made.submit([job("a") for _ in range(5)])
    made.close(5)
    assert all(future.result(0).answer.risk == 0.01 for future in futures)
    assert not made.alive


@pytest.fixture(scope="module")
def student(tiny_student):
    return Student.load(tiny_student)


def test_an_answer_does_not_depend_on_who_shared_the_batch(student):
    rng = np.random.default_rng(3)
    words = ["cough", "fever", "pain", "weak", "tired", "numb"]
    cases = [case(" ".join(rng.choice(words, rng.integers(1, 12))), f"n{i}") for i in range(16)]
    made = batcher(Screener(student, toy.ToyUncertainty(), 0.5), max_batch=16, max_wait_ms=20.0)
    asked = [Job(read_visit(each)) for each in cases]
    together = [each.result(20).answer.risk for each in made.submit(asked)]
    alone = [made.submit([each])[0].result(20).answer.risk for each in asked[:6]]
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
