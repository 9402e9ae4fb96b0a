"""Asking a panel and projecting its answers: failures, reruns, replay, kills, coverage."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rarealert.errors import RareAlertError
from rarealert.files import digest
from rarealert.teachers import shards
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.collect import Tally, ask_panel
from rarealert.teachers.projection import coverage, project
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import AnswerRow, TeacherAnswer, read_answers
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

_FORK = multiprocessing.get_context("fork")


def _case(number: int, source: str = "craftmd") -> Case:
    return Case(case_id=f"c{number}", source=source, history_of_present_illness=f"text {number}")


def _nothing() -> None:
    pass


@dataclass
class _Teacher:
    """A teacher that fails on the cases in ``fails`` and has no answer to those in ``silent``."""

    id: str
    fails: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    sources: frozenset[str] | None = None
    asked: list[str] = field(default_factory=list)
    before: Callable[[], None] = _nothing

    def request(self, reading: Reading) -> Request | None:
        if self.sources is not None and reading.case.source not in self.sources:
            return None
        return Request(self.id, "reasoner", "1", digest(reading.text.encode()), "1")

    def ask(self, reading: Reading) -> TeacherAnswer | None:
        case_id = reading.case.case_id
        self.asked.append(case_id)
        self.before()
        if case_id in self.fails:
            raise ValueError(f"private: {reading.text}")
        if case_id in self.silent:
            return None
        return TeacherAnswer(insights=(), differential=(), risk=len(case_id), explanation="why")


def _ask(folder: Path, teachers: list[_Teacher], cases: list[Case], **options: bool):
    with RationaleCache(folder) as cache:
        return ask_panel(teachers, cases, cache, cache.answered(), **options)


def test_one_failing_teacher_does_not_stop_the_others(tmp_path):
    cases = [_case(number) for number in range(5)]
    dead = _Teacher("dead", frozenset(case.case_id for case in cases))
    tallies = _ask(tmp_path, [dead, _Teacher("partly", frozenset({"c2"})), _Teacher("good")], cases)
    assert tallies == {
        "dead": Tally(failed=5),
        "partly": Tally(answered=4, failed=1),
        "good": Tally(answered=5),
    }
    assert [name for name, tally in tallies.items() if tally.all_failed] == ["dead"]
    assert all("private" not in shard.read_text() for shard in tmp_path.iterdir())


def test_a_rerun_asks_only_what_failed_or_had_no_answer(tmp_path):
    cases = [_case(number) for number in range(4)]
    for _ in range(2):
        teacher = _Teacher("t", fails=frozenset({"c1"}), silent=frozenset({"c3"}))
        tally = _ask(tmp_path, [teacher], cases)["t"]
    assert teacher.asked == ["c1", "c3"]
    assert tally == Tally(cached=2, failed=1, missing=1)


def test_equal_visits_are_asked_about_once(tmp_path):
    teacher = _Teacher("t")
    same = _case(0).model_copy(update={"case_id": "other"})
    assert _ask(tmp_path, [teacher], [_case(0), same]) == {"t": Tally(answered=1, cached=1)}


def test_replay_only_asks_no_teacher(tmp_path):
    teacher = _Teacher("t")
    _ask(tmp_path, [teacher], [_case(0)])
    tally = _ask(tmp_path, [teacher], [_case(0), _case(1)], replay_only=True)["t"]
    assert teacher.asked == ["c0"]
    assert tally == Tally(cached=1, not_asked=1)


def test_an_error_that_the_user_has_to_fix_ends_the_run(tmp_path):
    def full() -> None:
        raise RareAlertError("The disk is full.")

    with pytest.raises(RareAlertError, match="disk is full"):
        _ask(tmp_path, [_Teacher("t", before=full)], [_case(0)])


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_before_storing(asked: Path, at: int) -> Callable[[], None]:
    def note() -> None:
        with asked.open("a") as log:
            log.write("x\n")
        if len(asked.read_text().splitlines()) == at:
            _kill()

    return note


def _run(folder: Path, asked: Path, cases: list[Case], kill_at: int, torn_at: int) -> None:
    """A teach run with a compaction before it; killed while asking, or amid a row's write."""
    written, left = os.write, [torn_at]

    def tearing(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] == 0:
            written(descriptor, data[: len(data) // 2])
            _kill()
        return written(descriptor, data)

    shards.os.write = tearing  # this process is a fork
    note = _killed_before_storing(asked, kill_at)
    with RationaleCache(folder) as cache:
        cache.compact()
        _, known = cache.set_aside_damage()
        ask_panel([_Teacher("a", before=note), _Teacher("b", before=note)], cases, cache, known)


def test_killed_runs_lose_no_answer_and_repeat_only_the_question_in_flight(tmp_path):
    folder, asked = tmp_path / "cache", tmp_path / "asked"
    cases = [_case(number) for number in range(20)]
    known: set[str] = set()
    kills = [(1, 0), (8, 0), (0, 1), (0, 4), (25, 0), (0, 2)]
    for kill_at, torn_at in kills:
        run = _FORK.Process(target=_run, args=(folder, asked, cases, kill_at, torn_at))
        run.start()
        run.join(60)
        assert run.exitcode == -signal.SIGKILL
        now = RationaleCache(folder).answered()
        assert known <= now, "an answer was lost"
        known = now
    run = _FORK.Process(target=_run, args=(folder, asked, cases, 0, 0))
    run.start()
    run.join(60)
    assert run.exitcode == 0
    found = RationaleCache(folder).verify()
    assert (found.answers, found.duplicates, found.damaged) == (40, 0, ())
    assert len(asked.read_text().splitlines()) == 40 + len(kills)


def _projected(teacher: _Teacher, cases: list[Case], folder: Path) -> list[AnswerRow]:
    file = folder / "projected" / "answers.parquet"
    project([teacher], cases, RationaleCache(folder)).write(file, frozenset({teacher.id}))
    return read_answers(file)


def test_projection_distinguishes_ok_failed_and_missing(tmp_path):
    cases = [_case(0), _case(1), _case(2), _case(3, "medrbench")]
    teacher = _Teacher("t", frozenset({"c1"}), frozenset({"c2"}), frozenset({"craftmd"}))
    _ask(tmp_path, [teacher], cases)
    rows = _projected(teacher, cases, tmp_path)
    assert [row.status for row in rows] == ["ok", "failed", "missing", "missing"]
    assert [row.answer is None for row in rows] == [False, True, True, True]
    again = _Teacher("t", sources=frozenset({"craftmd"}))
    _ask(tmp_path, [again], cases)
    rows = _projected(again, cases, tmp_path)
    assert [row.status for row in rows] == ["ok", "ok", "ok", "missing"]


def test_projection_reads_an_answer_that_quotes_the_field_after_it(tmp_path):
    tricky = 'why ,"at":"12:00" and }, {"answer": \\",\n"at":"x'
    case, teacher = _case(0), _Teacher("t")
    answer = TeacherAnswer(insights=(), differential=(), risk=7, explanation=tricky)
    with RationaleCache(tmp_path) as cache:
        request = teacher.request(read_visit(case))
        cache.add(request, case.case_id, answer, response=f'{{"answer": "{tricky}"}}')
    assert [row.answer for row in _projected(teacher, [case], tmp_path)] == [answer]


def test_coverage_is_measured_on_a_teachers_sources_and_decided_without_the_test_part(tmp_path):
    cases = [
        *(_case(number) for number in range(4)),
        *(_case(number, "medrbench") for number in range(4, 20)),
    ]
    craft = _Teacher("craft", frozenset({"c0"}), sources=frozenset({"craftmd"}))
    both = _Teacher("both", frozenset({"c0", "c1", "c2"}))
    elsewhere = _Teacher("elsewhere", sources=frozenset({"simulated"}))
    teachers = [craft, both, elsewhere]
    _ask(tmp_path, teachers, cases)
    seen = project(teachers, cases, RationaleCache(tmp_path))
    deciding = frozenset({"c0", "c1", "c2", "c3"})
    found = coverage(seen, deciding, 0.5)
    assert (found["craft"].share, found["craft"].used) == (0.75, True)
    assert found["craft"].sources == {"craftmd": {"failed": 1, "missing": 0, "ok": 3}}
    assert (found["both"].share, found["both"].used) == (0.25, False)
    assert found["both"].sources["medrbench"]["ok"] == 16
    assert (found["elsewhere"].share, found["elsewhere"].used) == (None, False)
    assert not coverage(seen, frozenset({"c0"}), 0.0)["craft"].used, "no answer on a deciding case"
