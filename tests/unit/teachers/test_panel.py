"""Panels, asking one, and projecting what it said."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rarealert.errors import BadInputError, RareAlertError
from rarealert.teachers.answer import AnswerRow, TeacherAnswer, read_answers
from rarealert.teachers.asking import Tally, ask_panel
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.panel import (
    EndpointSpec,
    Panel,
    ReasonerSpec,
    load_panel,
    panel_names,
    parse_panel,
)
from rarealert.teachers.projection import coverage, project
from rarealert.teachers.roster import assemble
from rarealert.teachers.teacher import Request, digest
from rarealert.visits.case import Case


def test_every_packaged_panel_is_valid():
    found = {name: len(load_panel(name).teachers) for name in panel_names()}
    assert found == {"embedded": 10, "local": 1, "recorded": 11, "ten-llms": 10}


def test_every_endpoint_of_the_packaged_panels_has_a_price_or_needs_no_key():
    for name in ("ten-llms", "local"):
        for spec in load_panel(name).teachers:
            assert isinstance(spec, EndpointSpec)
            assert (spec.price is None) == (spec.key_variable is None)


def test_a_panel_of_ones_own_is_a_file_in_the_workspace(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ours.yaml").write_text("teachers: [{id: a, kind: local, model: m}]")
    assert load_panel("data/ours.yaml", tmp_path).teachers[0].id == "a"
    with pytest.raises(BadInputError, match=r"data/other\.yaml can't be read"):
        load_panel("data/other.yaml", tmp_path)


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/v1", "https://host/v1?key=secret", "ftp://host", "host/v1"]
)
def test_no_key_can_stand_in_a_base_url(url):
    text = (
        f"teachers: [{{id: a, kind: endpoint, base_url: '{url}', model: m, key_variable: K, "
        "price: null}]"
    )
    with pytest.raises(BadInputError, match="base_url") as caught:
        parse_panel(text, "panels/x.yaml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("teachers: [", "not valid YAML"),
        ("teachers: []", "teachers: Tuple should have at least 1 item"),
        ("[]", "the file: "),
        ("teachers: [{id: a, kind: oracle}]", r"teachers\.0: .*'oracle'"),
        (
            "teachers: [{id: a, kind: reasoner, method: m, x: 1}]",
            r"teachers\.0\.reasoner\.x: Extra",
        ),
        ("teachers: [{id: 'A b', kind: reasoner, method: m}]", r"teachers\.0\.reasoner\.id"),
        (
            "teachers: [{id: a, kind: reasoner, method: m}, {id: a, kind: reasoner, method: n}]",
            "the id a stands twice",
        ),
        (
            "teachers: [{id: a, kind: recorded, corpus: craftmd, file: ../x.jsonl.gz}]",
            r"teachers\.0\.recorded\.file",
        ),
    ],
)
def test_a_bad_panel_is_named_by_its_key(text, sentence):
    with pytest.raises(BadInputError, match=sentence):
        parse_panel(text, "panels/x.yaml")


def test_an_unknown_method_is_named_with_the_choices(tmp_path):
    panel = Panel(teachers=(ReasonerSpec(id="a", kind="reasoner", method="crystal_ball"),))
    with pytest.raises(BadInputError, match=r"'crystal_ball'.*likelihood_ratio"):
        assemble(panel, tmp_path, frozenset())


def _case(number: int, source: str = "craftmd") -> Case:
    return Case(case_id=f"c{number}", source=source, history_of_present_illness=f"text {number}")


@dataclass
class _Teacher:
    """A teacher that fails on the cases in ``fails`` and is silent on those in ``silent``."""

    id: str
    fails: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    sources: frozenset[str] | None = None
    asked: list[str] = field(default_factory=list)

    def request(self, case: Case) -> Request | None:
        if self.sources is not None and case.source not in self.sources:
            return None
        return Request(self.id, "reasoner", "1", digest(case.case_id.encode()), "1")

    def ask(self, case: Case) -> TeacherAnswer | None:
        self.asked.append(case.case_id)
        if case.case_id in self.fails:
            raise ValueError(f"private: {case.history_of_present_illness}")
        if case.case_id in self.silent:
            return None
        return TeacherAnswer(
            insights=(), differential=(), risk=len(case.case_id), explanation="said"
        )


def test_one_failing_teacher_never_stops_the_others(tmp_path):
    cases = [_case(number) for number in range(5)]
    everything = frozenset(case.case_id for case in cases)
    dead, partly, good = (
        _Teacher("dead", everything),
        _Teacher("partly", frozenset({"c2"})),
        _Teacher("good"),
    )
    seen = []
    with RationaleCache(tmp_path) as cache:
        tallies = ask_panel(
            [dead, partly, good], cases, cache, progress=lambda *step: seen.append(step)
        )
    assert tallies == {
        "dead": Tally(failed=5),
        "partly": Tally(answered=4, failed=1),
        "good": Tally(answered=5),
    }
    assert tallies["dead"].silent
    assert not tallies["partly"].silent
    assert len(seen) == 15
    for shard in tmp_path.iterdir():
        assert "private" not in shard.read_text()


def test_a_rerun_asks_only_what_failed_or_was_silent(tmp_path):
    cases = [_case(number) for number in range(4)]
    for _ in range(2):
        teacher = _Teacher("t", fails=frozenset({"c1"}), silent=frozenset({"c3"}))
        with RationaleCache(tmp_path) as cache:
            tally = ask_panel([teacher], cases, cache)["t"]
    assert teacher.asked == ["c1", "c3"]
    assert tally == Tally(cached=2, failed=1, missing=1)


def test_replay_only_never_asks(tmp_path):
    teacher = _Teacher("t")
    with RationaleCache(tmp_path) as cache:
        ask_panel([teacher], [_case(0)], cache)
        tally = ask_panel([teacher], [_case(0), _case(1)], cache, replay_only=True)["t"]
    assert teacher.asked == ["c0"]
    assert tally == Tally(cached=1, not_asked=1)


def test_an_error_that_a_user_must_mend_ends_the_run(tmp_path):
    class Broken(_Teacher):
        def ask(self, case: Case) -> TeacherAnswer | None:
            raise RareAlertError("The disk is full.")

    with RationaleCache(tmp_path) as cache, pytest.raises(RareAlertError, match="disk is full"):
        ask_panel([Broken("t")], [_case(0)], cache)


def _projected(teacher: _Teacher, cases: list[Case], folder: Path) -> list[AnswerRow]:
    file = folder / "projected" / "answers.parquet"
    project([teacher], cases, RationaleCache(folder)).write(file, frozenset({teacher.id}))
    return read_answers(file)


def test_projection_tells_ok_failed_and_missing_apart(tmp_path):
    cases = [_case(0), _case(1), _case(2), _case(3, "medrbench")]
    teacher = _Teacher("t", frozenset({"c1"}), frozenset({"c2"}), frozenset({"craftmd"}))
    with RationaleCache(tmp_path) as cache:
        ask_panel([teacher], cases, cache)
    rows = _projected(teacher, cases, tmp_path)
    assert [row.status for row in rows] == ["ok", "failed", "missing", "missing"]
    assert [row.answer is None for row in rows] == [False, True, True, True]
    again = _Teacher("t", sources=frozenset({"craftmd"}))
    with RationaleCache(tmp_path) as cache:
        ask_panel([again], cases, cache)
    rows = _projected(again, cases, tmp_path)
    assert [row.status for row in rows] == ["ok", "ok", "ok", "missing"]


def test_projection_reads_an_answer_that_quotes_what_follows_it(tmp_path):
    tricky = 'said ,"at":"12:00" and }, {"answer": \\",\n"at":"x'
    case = _case(0)
    teacher = _Teacher("t")
    answer = TeacherAnswer(insights=(), differential=(), risk=7, explanation=tricky)
    with RationaleCache(tmp_path) as cache:
        cache.add(teacher.request(case), case.case_id, answer, response=f'{{"answer": "{tricky}"}}')
    assert [row.answer for row in _projected(teacher, [case], tmp_path)] == [answer]


def test_coverage_is_judged_within_the_sources_a_teacher_speaks_of(tmp_path):
    cases = [
        *(_case(number) for number in range(4)),
        *(_case(number, "medrbench") for number in range(4, 20)),
    ]
    craft = _Teacher("craft", frozenset({"c0"}), sources=frozenset({"craftmd"}))
    both = _Teacher("both", frozenset({"c0", "c1", "c2"}))
    elsewhere = _Teacher("elsewhere", sources=frozenset({"simulated"}))
    teachers = [craft, both, elsewhere]
    with RationaleCache(tmp_path) as cache:
        ask_panel(teachers, cases, cache)
    seen = project(teachers, cases, RationaleCache(tmp_path))
    judged = frozenset({"c0", "c1", "c2", "c3"})
    found = coverage(seen, judged, 0.5)
    assert (found["craft"].share, found["craft"].listened) == (0.75, True)
    assert found["craft"].sources == {"craftmd": {"failed": 1, "missing": 0, "ok": 3}}
    assert (found["both"].share, found["both"].listened) == (0.25, False), "test cases don't count"
    assert found["both"].sources["medrbench"]["ok"] == 16
    assert (found["elsewhere"].share, found["elsewhere"].listened) == (None, False)
    assert not coverage(seen, frozenset({"c0"}), 0.0)["craft"].listened
