"""The cache loses no answer, repeats no question, and finds damage; its commands."""

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import canonical_json, digest
from rarealert.teachers import cache_commands, shards
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.shards import Compaction
from rarealert.teachers.teacher import ANSWER_SCHEMA, Request
from rarealert.teachers.teacher_answer import TeacherAnswer

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


def _answer(risk: int) -> TeacherAnswer:
    return TeacherAnswer.model_validate(
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


def _full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def _only_shard(folder: Path) -> Path:
    (shard,) = folder.glob("answers-*.jsonl")
    return shard


def _stored(folder: Path) -> dict[str, TeacherAnswer]:
    """The answers that a reader gets, by key, through their places in the shards."""
    keys = sorted(RationaleCache(folder).answered())
    places = RationaleCache(folder).locate({key: at for at, key in enumerate(keys)})
    rows = places.rows(range(len(keys)), keys)
    return {
        key: TeacherAnswer.model_validate(json.loads(row)["answer"])
        for key, row in zip(keys, rows, strict=True)
    }


def test_an_answer_comes_back_as_it_was_given(tmp_path):
    with RationaleCache(tmp_path) as cache:
        cache.add(_request(1), "case_1", _answer(7), Usage(prompt_tokens=3, cost_usd=0.5), "raw")
    key = _request(1).key
    again = RationaleCache(tmp_path)
    assert again.answered() == {key}
    assert _stored(tmp_path) == {key: _answer(7)}
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
        {"model": "m"},
        {"base_url": "http://localhost:8000/v1"},
        {"settings": {"temperature": 0.7}},
    ],
)
def test_everything_that_decides_the_answer_is_in_the_key(change):
    assert _request(1, **change).key != _request(1).key
    assert _request(1, **change).key == _request(1, **change).key


def test_the_answers_fields_are_those_that_every_cached_key_names():
    # a change of a field or of its range needs a new ANSWER_SCHEMA; a changed docstring does not
    fields = _without_words(TeacherAnswer.model_json_schema())
    assert digest(canonical_json(fields)).startswith("ed0ab6d67be9")
    assert _request(1).described()["answer_schema"] == ANSWER_SCHEMA
    assert _request(1).key.startswith("3b4e4d0db967"), "the keys of existing caches"


def _without_words(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_words(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _without_words(value)
        for name, value in node.items()
        if name not in ("title", "description") or not isinstance(value, str)
    }


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
    assert cache.set_aside_damage() == (1, whole)
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
    assert cache.set_aside_damage()[0] == 1
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
        assert RationaleCache(tmp_path).set_aside_damage()[0] == 0
        assert shard.read_bytes().endswith(b"torn")
    assert RationaleCache(tmp_path).set_aside_damage()[0] == 1


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
    assert _stored(tmp_path) == {
        _request(number).key: _answer(number % 101) for number in range(350)
    }


def test_a_full_disk_ends_the_run_and_leaves_whole_rows(tmp_path, monkeypatch):
    written = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return written(descriptor, data[:100])
        raise OSError(28, "No space left on device")

    with RationaleCache(tmp_path) as cache:
        cache.add(_request(0), "case_0", _answer(0))
        monkeypatch.setattr(shards.os, "write", full)
        with pytest.raises(RareAlertError, match="is full"):
            cache.add(_request(1), "case_1", _answer(1))
        monkeypatch.undo()
        cache.add(_request(2), "case_2", _answer(2))
    assert RationaleCache(tmp_path).answered() == {_request(0).key, _request(2).key}
    assert RationaleCache(tmp_path).verify().damaged == (), "half a row was removed"


def _assert_stored(folder: Path, numbers: range) -> None:
    assert _stored(folder) == {_request(n).key: _answer(n % 101) for n in numbers}


def test_compaction_keeps_every_first_answer_in_one_shard(tmp_path):
    for start in (0, 3, 6):
        _fill(tmp_path, range(start, start + 5))
    with RationaleCache(tmp_path) as cache:
        for number in (90, 91):
            cache.fail(_request(number), f"case_{number}", ValueError())
    cache = RationaleCache(tmp_path)
    answers, failures = cache.compact()
    assert (answers.before, answers.after, answers.dropped) == (3, 1, 4)
    assert (failures.before, failures.after, failures.dropped) == (1, 1, 0)
    found = cache.verify()
    assert (found.shards, found.answers, found.duplicates, found.failures) == (2, 11, 0, 2)
    _assert_stored(tmp_path, range(11))
    _fill(tmp_path, range(11, 13))
    assert cache.compact()[0].before == 2
    _assert_stored(tmp_path, range(13))
    assert cache.compact()[0] == Compaction(before=1, after=1, dropped=0)


def test_the_first_answer_wins_before_and_after_compaction(tmp_path):
    """A later writer that answered the same question never changes what is projected."""
    for risk in (10, 20, 30):
        with RationaleCache(tmp_path) as cache:
            cache.add(_request(1), "case_1", _answer(risk))
        (newest,) = {*tmp_path.glob("answers-2*-*.jsonl")}
        newest.rename(tmp_path / f"answers-{risk}.jsonl")
    assert _stored(tmp_path)[_request(1).key].risk == 10
    RationaleCache(tmp_path).compact()
    assert _stored(tmp_path)[_request(1).key].risk == 10


def test_compaction_leaves_a_living_writers_shard_and_what_follows_it(tmp_path):
    _fill(tmp_path, range(2))
    with RationaleCache(tmp_path) as writer:
        writer.add(_request(2), "case_2", _answer(2))
        living = max(tmp_path.glob("answers-*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
        living.rename(tmp_path / "answers-30000101T000000-0-0.jsonl")
        _fill(tmp_path, range(3, 5))
        assert RationaleCache(tmp_path).compact()[0] == Compaction(3, 2, 0)
        writer.add(_request(5), "case_5", _answer(5))
    _assert_stored(tmp_path, range(6))


def test_compaction_on_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    for start in (0, 5):
        _fill(tmp_path, range(start, start + 5))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(shards.os, "fsync", _full)
    with pytest.raises(RareAlertError, match="is full"):
        RationaleCache(tmp_path).compact()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_reader_that_began_before_a_compaction_sees_every_answer(tmp_path):
    for start in (0, 5, 10):
        _fill(tmp_path, range(start, start + 5))
    lines = shards.scan(tmp_path, "answers")
    seen = [next(lines).key for _ in range(2)]
    RationaleCache(tmp_path).compact()
    seen += [line.key for line in lines]
    assert set(seen) == {_request(number).key for number in range(15)}


def test_places_of_a_cache_rewritten_meanwhile_are_refused(tmp_path):
    for start in (0, 5):
        _fill(tmp_path, range(start, start + 5))
    key = _request(7).key
    places = RationaleCache(tmp_path).locate({key: 0})
    RationaleCache(tmp_path).compact()
    with pytest.raises(RareAlertError, match="compacted or repaired"):
        places.rows([0], [key])


def test_text_that_utf8_cannot_hold_ends_no_run(tmp_path):
    """A model may send half a surrogate pair."""
    answer = _answer(5).model_copy(update={"explanation": "half \ud83d a pair"})
    with RationaleCache(tmp_path) as cache:
        cache.add(_request(1), "case_1", answer, response="\ud83d")
    assert _stored(tmp_path)[_request(1).key].explanation == "half ? a pair"


def test_a_disk_that_fills_up_before_the_sync_is_reported_on_closing(tmp_path, monkeypatch):
    monkeypatch.setattr(shards.os, "fsync", _full)
    cache = RationaleCache(tmp_path).__enter__()
    cache.add(_request(0), "case_0", _answer(0))
    with pytest.raises(RareAlertError, match="is full"):
        cache.__exit__(None, None, None)
    monkeypatch.undo()
    _fill(tmp_path, range(1, 2))
    assert RationaleCache(tmp_path).answered() == {_request(0).key, _request(1).key}


def _killed_compaction(folder: Path) -> None:
    Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
    RationaleCache(folder).compact()


def test_a_kill_during_a_compaction_loses_nothing_and_the_next_drops_what_is_twice(tmp_path):
    folder = tmp_path / "cache"
    for start in (0, 5):
        _fill(folder, range(start, start + 5))
    killed = _FORK.Process(target=_killed_compaction, args=(folder,))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    _assert_stored(folder, range(10))
    RationaleCache(folder).compact()
    found = RationaleCache(folder).verify()
    assert (found.shards, found.answers, found.duplicates) == (1, 10, 0)
    _assert_stored(folder, range(10))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a workspace: two answers in two shards, and a failure."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build" / "teach" / "cache"
    usage = Usage(1200, 300, 0.25, 1.5, "stop", "req-7")
    for number in range(2):
        request = _request(number, teacher="gpt", kind="endpoint", model="m-1")
        with RationaleCache(folder) as cache:
            cache.add(request, f"c{number}", _answer(42), usage, "private text")
    with RationaleCache(folder) as cache:
        cache.fail(_request(1, teacher="late"), "c1", TimeoutError())
    return folder


def _command(*command: str) -> str:
    done = CliRunner().invoke(app, ["cache", *command], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip()


def test_stats_count_answers_tokens_cost_and_failures(workspace):
    header, gpt, late, failures = _command("stats").splitlines()
    assert header.split()[:3] == ["teacher", "answers", "failures"]
    assert gpt.split()[:6] == ["gpt", "2", "0", "2,400", "600", "0.50"]
    assert (late.split()[:3], late.split()[-1]) == (["late", "0", "1"], "never")
    assert "TimeoutError (1)" in failures


def test_verify_counts_whole_lines_and_refuses_damage_by_file_and_line(workspace):
    assert "2 answers, 1 failures" in _command("verify")
    shard = min(workspace.glob("answers-*.jsonl"))
    shard.write_bytes(shard.read_bytes().replace(b'"risk":42', b'"risk":99'))
    with pytest.raises(RareAlertError, match=rf"1 of 3 lines.*{shard.name}:1"):
        cache_commands.verify(workspace)


def test_compact_merges_once_and_names_the_next_step(workspace):
    assert _command("compact").endswith("Next: dvc commit teach.")
    assert "3 shards" not in _command("verify")
    assert "nothing to merge" in _command("compact")


def test_export_gives_provenance_and_no_text_of_a_case(workspace, tmp_path):
    out = tmp_path / "answers.jsonl"
    assert _command("export", str(out)) == f"2 answers in {out}."
    assert "private text" not in out.read_text()
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["case_id"], second["case_id"]) == ("c0", "c1")
    assert TeacherAnswer.model_validate(first["answer"]) == _answer(42)
    assert first["teacher"] == "gpt"
    assert first["response_digest"] == digest(b"private text")
    assert first["usage"] == vars(Usage(1200, 300, 0.25, 1.5, "stop", "req-7"))
    provenance = ("model", "method", "answer_schema", "input_digest")
    assert all(first["request"][name] for name in provenance)
    assert first["at"].endswith("+00:00")


@pytest.mark.parametrize("command", ["stats", "verify", "compact"])
def test_a_missing_cache_is_refused_with_the_way_to_get_one(tmp_path, command):
    with pytest.raises(BadInputError, match="rarealert teach or dvc pull"):
        getattr(cache_commands, command)(tmp_path / "nothing")


@pytest.mark.parametrize("out", [".", "folder", "file/x.jsonl", "folder/none/x.jsonl"])
def test_an_export_to_no_file_is_refused(workspace, tmp_path, out):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="name a file"):
        cache_commands.export(workspace, Path(out))


def test_an_export_on_a_full_disk_leaves_no_file(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_commands.json, "dumps", _full)
    with pytest.raises(RareAlertError, match="is full"):
        cache_commands.export(workspace, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_an_empty_cache_has_no_figures(tmp_path):
    (tmp_path / "cache").mkdir()
    assert cache_commands.stats(tmp_path / "cache") == "The cache is empty."
