"""The cache at the size of a real labelling: 160,000 cases, ten teachers, 1.6 million answers."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rarealert.teachers.asking import Tally, ask_panel
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.projection import project
from rarealert.teachers.reasoners.teacher import ReasonerTeacher
from rarealert.teachers.shards import decode, encode
from rarealert.teachers.teacher import digest
from rarealert.visits.case import Case

_FORK = multiprocessing.get_context("fork")
_STORY = "Progressive weakness of both legs for three months, with tingling of the feet. " * 14
_WHY = "Expected in 55 % of patients with the disease and 2 % of all others. " * 2
_ROWS_A_SHARD = 20_000
_ANSWER = {
    "insights": [{"name": f"finding {n}", "weight": 0.2, "explanation": _WHY} for n in range(5)],
    "differential": [{"name": "Fabry disease", "orpha_code": "ORPHA:324"}] * 5,
    "risk": 50,
    "explanation": _WHY * 2,
}


class _Deaf(ReasonerTeacher):
    """A reasoner whose every answer is in the cache already."""

    def ask(self, case: Case) -> None:
        raise AssertionError("asked again")


def _panel() -> list[_Deaf]:
    return [_Deaf(f"t{number}", "likelihood_ratio") for number in range(10)]


def _cases(count: int) -> list[Case]:
    return [
        Case(
            case_id=f"case_{number:06d}",
            source="simulated",
            age_years=number % 90,
            history_of_present_illness=f"{number}. {_STORY}",
        )
        for number in range(count)
    ]


def _fill(folder: Path, cases: list[Case]) -> None:
    """Every teacher's answer to every case, as the writer would have laid them down."""
    folder.mkdir()
    lines: list[bytes] = []
    rows = {teacher.id: _row_of(teacher) for teacher in _panel()}
    for case in cases:
        for teacher in _panel():
            row = rows[teacher.id].replace(b"CASE_ID", case.case_id.encode())
            row = row.replace(b"k" * 64, teacher.request(case).key.encode())
            lines.append(b'{"checksum":"%s","row":%s}\n' % (digest(row).encode(), row))
        if len(lines) >= _ROWS_A_SHARD:
            _flush(folder, lines)
    _flush(folder, lines)


def _row_of(teacher: ReasonerTeacher) -> bytes:
    """A teacher's row with a key and a case id to be filled in."""
    row = {
        "answer": _ANSWER,
        "at": "2026-01-31T08:00:00.000+00:00",
        "case_id": "CASE_ID",
        "request": teacher.request(_cases(1)[0]).described(),
        "response": None,
        "response_digest": None,
        "usage": {},
    }
    return decode(encode("k" * 64, row))[1]


def _flush(folder: Path, lines: list[bytes]) -> None:
    number = len(list(folder.iterdir()))
    (folder / f"answers-2026-{number:06d}.jsonl").write_bytes(b"".join(lines))
    lines.clear()


def _measured(work: Callable[..., None], *arguments: object) -> dict[str, float]:
    """Seconds on the clock, processor seconds and MB of a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    worker = _FORK.Process(target=_alone, args=(work, *arguments))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "mb": after.ru_maxrss / 1024,
    }
    print(work.__name__, {name: round(value, 1) for name, value in found.items()})
    return found


def _alone(work: Callable[..., None], *arguments: object) -> None:
    work(*arguments)


def _make(folder: Path, count: int) -> None:
    _fill(folder, _cases(count))


def _project(folder: Path, count: int, out: Path) -> None:
    panel = _panel()
    seen = project(panel, _cases(count), RationaleCache(folder))
    assert seen.write(out, frozenset(item.id for item in panel)) == 10 * count


def _rerun(folder: Path, count: int) -> None:
    with RationaleCache(folder) as cache:
        cache.set_aside_damage()
        tallies = ask_panel(_panel(), _cases(count), cache)
    assert set(map(repr, tallies.values())) == {repr(Tally(cached=count))}


def _check(tmp_path: Path, count: int) -> tuple[dict[str, float], dict[str, float]]:
    folder, out = tmp_path / "cache", tmp_path / "answers.parquet"
    _measured(_make, folder, count)
    projected = _measured(_project, folder, count, out)
    assert pq.read_metadata(out).num_rows == 10 * count
    first = next(pq.ParquetFile(out).iter_batches(1)).to_pylist()[0]
    assert (first["case_id"], first["teacher"], first["risk"]) == ("case_000000", "t0", 50)
    return projected, _measured(_rerun, folder, count)


@pytest.mark.slow
def test_projection_and_rerun_cost_little_an_answer(tmp_path):
    """Processor time: the clock would measure how busy the machine is."""
    projected, rerun = _check(tmp_path, 4000)
    assert projected["cpu_s"] / 40_000 < 60e-6
    assert rerun["cpu_s"] / 40_000 < 40e-6


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_1_6_million_answers_are_projected_in_60_s_and_2_gb_and_rerun_in_30_s(tmp_path):
    projected, rerun = _check(tmp_path, 160_000)
    assert projected["cpu_s"] < 60
    assert projected["mb"] < 2048
    assert rerun["cpu_s"] < 30
