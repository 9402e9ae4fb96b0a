"""The cache's commands: stats, verify, compact and export, as a person meets them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError, RareAlertError
from rarealert.teachers import cache_audit as audit
from rarealert.teachers import shards
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.teacher import Request, digest

_ANSWER = TeacherAnswer(insights=(), differential=(), risk=42, explanation="Heard.")


def _request(teacher: str, number: int) -> Request:
    return Request(
        teacher,
        "endpoint",
        method="prompt-1@abc",
        input_digest=digest(str(number).encode()),
        renderer="1",
        model="m-1",
        base_url="http://localhost:1/v1",
        settings={"temperature": 0.0},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "build" / "teach" / "cache"
    usage = Usage(1200, 300, 0.25, 1.5, "stop", "req-7")
    for number in range(2):
        with RationaleCache(found) as cache:
            cache.add(_request("gpt", number), f"c{number}", _ANSWER, usage, "private text")
    with RationaleCache(found) as cache:
        cache.fail(_request("late", 1), "c1", TimeoutError())
    return found


def _said(*command: str) -> str:
    done = CliRunner().invoke(app, ["cache", *command], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip()


def test_stats_count_answers_tokens_and_cost_and_name_failures(folder):
    header, gpt, late, failures = _said("stats").splitlines()
    assert header.split()[:3] == ["teacher", "answers", "failures"]
    assert gpt.split()[:6] == ["gpt", "2", "0", "2,400", "600", "0.50"]
    assert late.split()[:3] == ["late", "0", "1"]
    assert late.split()[-1] == "never"
    assert failures == "late failed with TimeoutError (1)"


def test_verify_says_whole_and_names_the_first_damaged_line(folder):
    assert _said("verify") == "3 shards are whole: 2 answers, 1 failures."
    shard = min(folder.glob("answers-*.jsonl"))
    shard.write_bytes(shard.read_bytes().replace(b'"risk":42', b'"risk":99'))
    with pytest.raises(RareAlertError, match=rf"1 of 3 lines .* first in {shard.name}:1; the next"):
        audit.verify(folder)


def test_compact_merges_and_says_what_to_do_next(folder):
    assert _said("compact") == (
        "3 shards became 2, 0 repeated answers were dropped. Next: dvc commit teach."
    )
    assert _said("compact") == "There is nothing to merge."
    assert _said("verify") == "2 shards are whole: 2 answers, 1 failures."


def test_export_gives_provenance_and_no_text_of_a_case(folder, tmp_path):
    out = tmp_path / "answers.jsonl"
    assert _said("export", str(out)) == f"2 answers in {out}."
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert "private text" not in out.read_text()
    assert [row["case_id"] for row in rows] == ["c0", "c1"]
    first = rows[0]
    assert TeacherAnswer.model_validate(first["answer"]) == _ANSWER
    assert first["teacher"] == "gpt"
    assert first["response_digest"] == digest(b"private text")
    assert first["usage"] == {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "cost_usd": 0.25,
        "seconds": 1.5,
        "finish_reason": "stop",
        "request_id": "req-7",
    }
    provenance = ("model", "base_url", "method", "settings", "answer_schema", "input_digest")
    assert all(first["request"][name] for name in provenance)
    assert first["at"].endswith("+00:00")


def test_a_missing_cache_says_how_to_get_one(tmp_path):
    for ask in (audit.stats, audit.verify, audit.compact):
        with pytest.raises(BadInputError, match="rarealert teach or dvc pull"):
            ask(tmp_path / "nothing")


def test_export_to_nowhere_or_a_full_disk_is_one_sentence(folder, tmp_path, monkeypatch):
    with pytest.raises(BadInputError, match="can't be written"):
        audit.export(folder, tmp_path / "no" / "such" / "out.jsonl")

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.json, "dumps", full)
    with pytest.raises(RareAlertError, match="full; free some space"):
        audit.export(folder, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_an_empty_cache_is_said_to_be_empty(tmp_path):
    tmp_path.joinpath("cache").mkdir()
    assert audit.stats(tmp_path / "cache") == "The cache is empty."
    assert shards.shards(tmp_path / "cache", "answers") == []


@pytest.mark.parametrize("out", [".", "folder", "file/x.jsonl", "folder/none/x.jsonl"])
def test_export_to_where_no_file_can_be_is_one_sentence(folder, tmp_path, out):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="name a file"):
        audit.export(folder, Path(out))
