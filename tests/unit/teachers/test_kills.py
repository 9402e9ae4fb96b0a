"""kill -9 at random moments: no answer is lost, and only what was in flight is asked again."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.asking import ask_panel
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.teacher import Request, digest
from rarealert.visits.case import Case

_FORK = multiprocessing.get_context("fork")
_ANSWER = TeacherAnswer(insights=(), differential=(), risk=50, explanation="Heard. " * 150)


@dataclass
class _Noting:
    """A teacher that notes each question durably before it answers."""

    id: str
    log: int
    sources: None = None

    def request(self, case: Case) -> Request:
        text = digest(case.case_id.encode())
        return Request(self.id, "reasoner", method="1", input_digest=text, renderer="1")

    def ask(self, case: Case) -> TeacherAnswer:
        os.write(self.log, f"{self.id} {case.case_id}\n".encode())
        time.sleep(0.0005)
        return _ANSWER


def _work(folder: Path, asked: Path, cases: list[Case]) -> None:
    """The teach stage's work, with a compaction before it."""
    log = os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with RationaleCache(folder) as cache:
        cache.set_aside_damage()
        cache.compact()
        ask_panel([_Noting("a", log), _Noting("b", log)], cases, cache)


def _kill_and_finish(folder: Path, kills: int, cases: int) -> int:
    """Kill ``kills`` runs, then let one finish; returns how many questions were asked again."""
    asked, draw = folder / "asked.txt", random.Random(5)
    visits = [
        Case(case_id=str(number), source="craftmd", chief_complaint="x") for number in range(cases)
    ]
    cache = folder / "cache"
    seen: set[str] = set()
    for _ in range(kills):
        worker = _FORK.Process(target=_work, args=(cache, asked, visits))
        worker.start()
        time.sleep(draw.uniform(0.005, 0.05))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        now = RationaleCache(cache).answered()
        assert seen <= now, "an answer was lost"
        seen = now
    assert 0 < len(seen) < 2 * cases, "the kills did not fall into the work"
    worker = _FORK.Process(target=_work, args=(cache, asked, visits))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    found = RationaleCache(cache).verify()
    assert (found.answers, found.duplicates, found.damaged) == (2 * cases, 0, ())
    questions = asked.read_text().splitlines()
    assert len(set(questions)) == 2 * cases
    return len(questions) - 2 * cases


def test_five_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path):
    assert _kill_and_finish(tmp_path, kills=5, cases=250) <= 5


@pytest.mark.scale
def test_a_hundred_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path):
    again = _kill_and_finish(tmp_path, kills=100, cases=2500)
    print(f"100 kills: 5,000 answers, none lost, {again} questions asked again")
    assert again <= 100
