"""The cache loses nothing, repeats nothing, and notices damage."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from rarealert.errors import RareAlertError
from rarealert.teachers import shards
from rarealert.teachers.answer import Answer
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.teacher import Request, digest

_FORK = multiprocessing.get_context("fork")


def _request(number: int, **changes: object) -> Request:
    fields: dict[str, object] = {
        "teacher": "t",
        "kind": "reasoner",
        "method": "1",
        "input_digest": digest(str(number).encode()),
        "renderer": "1",
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def _answer(risk: int) -> Answer:
    return Answer.model_validate(
        {
            "insights": [{"name": "fever", "weight": 1.0, "explanation": "présent"}],
            "differential": [{"name": "Fabry disease", "orpha_code": "ORPHA:324"}],
            "risk": risk,
            "explanation": "Fever speaks for it.",
        }
    )


def _fill(folder: Path, numbers: range) -> None:
    with RationaleCache(folder) as cache:
        for number in numbers:
            cache.add(_request(number), f"case_{number}", _answer(number % 101))


def _only_shard(folder: Path) -> Path:
    (shard,) = folder.glob("answers-*.jsonl")
    return shard


def test_an_answer_comes_back_as_it_was_given(tmp_path):
    with RationaleCache(tmp_path) as cache:
        cache.add(_request(1), "case_1", _answer(7), Usage(prompt_tokens=3, cost_usd=0.5), "raw")
    key = _request(1).key
    again = RationaleCache(tmp_path)
    assert again.answered() == {key}
    assert dict(again.answers({key, "0" * 64})) == {key: _answer(7)}
    stats = again.stats()["t"]
    assert (stats.answers, stats.prompt_tokens, stats.cost_usd) == (1, 3, 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "u"},
        {"kind": "recorded"},
        {"method": "2"},
        {"renderer": "2"},
        {"input_digest": digest(b"other")},
        {"options": {"depth": 2}},
        {"model": "m"},
        {"base_url": "http://localhost:8000/v1"},
        {"settings": {"temperature": 0.7}},
        {"sample": 1},
    ],
)
def test_everything_that_decides_the_answer_is_in_the_key(change):
    assert _request(1, **change).key != _request(1).key
    assert _request(1, **change).key == _request(1, **change).key


def test_failures_lie_apart_and_do_not_count_as_answered(tmp_path):
    with RationaleCache(tmp_path) as cache:
        cache.fail(_request(1), "case_1", ValueError("the patient said something private"))
    assert RationaleCache(tmp_path).answered() == set()
    assert RationaleCache(tmp_path).failed() == {_request(1).key}
    assert RationaleCache(tmp_path).stats()["t"].failures == {"ValueError": 1}
    (shard,) = tmp_path.glob("failures-*.jsonl")
    assert "private" not in shard.read_text()


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_torn_last_line_is_set_aside_and_only_it_is_asked_again(tmp_path, cut):
    _fill(tmp_path, range(5))
    shard = _only_shard(tmp_path)
    shard.write_bytes(shard.read_bytes()[:-cut])
    whole = {_request(number).key for number in range(4)}
    cache = RationaleCache(tmp_path)
    assert cache.answered() == whole
    assert cache.verify().damaged == (f"{shard.name}:5",)
    assert cache.set_aside_damage() == 1
    assert cache.verify().damaged == ()
    assert cache.answered() == whole
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    _fill(tmp_path, range(4, 5))
    assert cache.answered() == whole | {_request(4).key}
    assert cache.verify().duplicates == 0


def test_a_flipped_byte_damages_one_row_only(tmp_path):
    _fill(tmp_path, range(5))
    shard = _only_shard(tmp_path)
    lines = shard.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"risk":2', b'"risk":9')
    shard.write_bytes(b"".join(lines))
    cache = RationaleCache(tmp_path)
    assert cache.verify().damaged == (f"{shard.name}:3",)
    assert cache.answered() == {_request(number).key for number in (0, 1, 3, 4)}
    assert cache.set_aside_damage() == 1
    assert cache.verify().answers == 4


@pytest.mark.parametrize("garbage", [b"", b"\n", b"\x00\xff\xfe", b'{"checksum":"', b"{}\n" * 3])
def test_a_shard_of_garbage_is_no_answer(tmp_path, garbage):
    (tmp_path / "answers-0.jsonl").write_bytes(garbage)
    _fill(tmp_path, range(2))
    cache = RationaleCache(tmp_path)
    assert len(cache.answered()) == 2
    cache.set_aside_damage()
    assert cache.verify().damaged == ()
    assert len(cache.answered()) == 2


def test_a_living_writer_is_not_repaired_under_its_hands(tmp_path):
    with RationaleCache(tmp_path) as cache:
        cache.add(_request(0), "case_0", _answer(0))
        shard = _only_shard(tmp_path)
        with shard.open("ab") as stream:
            stream.write(b"torn")
        assert RationaleCache(tmp_path).set_aside_damage() == 0
        assert shard.read_bytes().endswith(b"torn")
    assert RationaleCache(tmp_path).set_aside_damage() == 1


def test_two_writers_at_once_keep_every_row(tmp_path):
    writers = [
        _FORK.Process(target=_fill, args=(tmp_path, range(start, start + 150)))
        for start in (0, 100, 200)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = RationaleCache(tmp_path).verify()
    assert (found.shards, found.answers, found.damaged) == (3, 450, ())
    assert found.duplicates == 100
    keys = {_request(number).key for number in range(350)}
    assert dict(RationaleCache(tmp_path).answers(keys)) == {
        _request(number).key: _answer(number % 101) for number in range(350)
    }


def test_a_full_disk_is_one_clear_sentence(tmp_path, monkeypatch):
    written = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return written(descriptor, data[:100])
        raise OSError(28, "No space left on device")

    with RationaleCache(tmp_path) as cache:
        cache.add(_request(0), "case_0", _answer(0))
        monkeypatch.setattr(shards.os, "write", full)
        with pytest.raises(RareAlertError, match="full; free some space"):
            cache.add(_request(1), "case_1", _answer(1))
        monkeypatch.undo()
    assert RationaleCache(tmp_path).answered() == {_request(0).key}
    assert RationaleCache(tmp_path).set_aside_damage() == 1


def _work(folder: Path, asked: Path, total: int) -> None:
    """Ask for what is missing as the teach stage does, noting every question durably."""
    log = os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with RationaleCache(folder) as cache:
        cache.set_aside_damage()
        known = cache.answered()
        for number in range(total):
            request = _request(number)
            if request.key not in known:
                os.write(log, f"{number}\n".encode())
                time.sleep(0.0003)
                cache.add(request, f"case_{number}", _answer(number % 101))


def test_kill_9_at_random_moments_loses_nothing_and_repeats_only_what_was_in_flight(tmp_path):
    asked, total, kills, draw = tmp_path / "asked", 600, 25, random.Random(5)
    seen: set[str] = set()
    for _ in range(kills):
        worker = _FORK.Process(target=_work, args=(tmp_path, asked, total))
        worker.start()
        time.sleep(draw.uniform(0.005, 0.04))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        now = RationaleCache(tmp_path).answered()
        assert seen <= now, "an answer was lost"
        seen = now
    assert 0 < len(seen) < total
    worker = _FORK.Process(target=_work, args=(tmp_path, asked, total))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    found = RationaleCache(tmp_path).verify()
    assert (found.answers, found.duplicates, found.damaged) == (total, 0, ())
    questions = asked.read_text().split()
    assert set(questions) == {str(number) for number in range(total)}
    assert len(questions) <= total + kills
