"""The teach and rationales stages, run on a small real configuration."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from rarealert.errors import BadInputError, RareAlertError
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.rationales import rationales
from rarealert.stages.teach import teach
from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.panel import load_panel
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import read_answers
from rarealert.tracking.items import Dataset, Summary
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import write_cases

_REPO = Path(__file__).parents[3]
_TEXTS = {
    "train": ("Fever and cough for two days.", "Ataxia, seizures and hearing impairment."),
    "valid": ("Pruritus of both hands.",),
    "test": ("Splenomegaly, hepatomegaly and bone pain since childhood.",),
}


_REASONERS = [spec for spec in load_panel("embedded").teachers if spec.kind == "reasoner"]


def _params(**teach_keys: object) -> Params:
    """The real configuration with the embedded panel's reasoners; its language model takes long."""
    teach_keys = {"panel": "data/reasoners.yaml"} | teach_keys
    params = load_params(_REPO / "params.yaml")
    return params.model_copy(update={"teach": params.teach.model_copy(update=teach_keys)})


@pytest.fixture
def workspace(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.data.mkdir()
    listed = {"teachers": [spec.model_dump() for spec in _REASONERS]}
    (paths.data / "reasoners.yaml").write_text(yaml.safe_dump(listed))
    label = Label(label="nonrare", disease_id="NAME:x", disease_name="x", reason="made up")
    for part, texts in _TEXTS.items():
        cases = [
            LabelledCase(
                case=Case(
                    case_id=f"{part}_{number}", source="simulated", history_of_present_illness=text
                ),
                label=label,
            )
            for number, text in enumerate(texts)
        ]
        write_cases(paths.build("split") / f"{part}.parquet", cases)
    return paths


def _said(items: object) -> str:
    (summary,) = [item for item in items if isinstance(item, Summary)]  # type: ignore[attr-defined]
    return summary.text


def test_teach_asks_once_and_rationales_projects_every_part(workspace):
    first = list(teach(_params(), workspace))
    n = len(_REASONERS)
    assert f"{4 * n} new answers, 0 from the cache, 0 failed" in _said(first)
    assert {item.name for item in first if isinstance(item, Dataset)} == {"train", "valid", "test"}
    assert f"0 new answers, {4 * n} from the cache" in _said(list(teach(_params(), workspace)))

    said = _said(list(rationales(_params(), workspace)))
    assert f"{4 * n} answers on 4 cases, {n} of {n}" in said
    answers = read_answers(workspace.build("rationales") / "answers.parquet")
    assert {row.case_id for row in answers} == {"train_0", "train_1", "valid_0", "test_0"}
    assert {row.status for row in answers} == {"ok"}
    assert all(len(row.answer.insights) == 5 for row in answers)
    report = json.loads((workspace.report("rationales") / "coverage.json").read_text())
    assert report["teachers"]["red-flags"] == {
        "listened": True,
        "share": 1.0,
        "sources": {"simulated": {"failed": 0, "missing": 0, "ok": 4}},
    }


def test_rationales_of_the_same_cache_are_the_same_bytes(workspace):
    list(teach(_params(), workspace))
    list(rationales(_params(), workspace))
    files = (
        workspace.build("rationales") / "answers.parquet",
        workspace.report("rationales") / "coverage.json",
    )
    before = [file.read_bytes() for file in files]
    list(rationales(_params(), workspace))
    assert [file.read_bytes() for file in files] == before


def test_growing_the_cache_by_others_answers_changes_no_projected_byte(workspace):
    """What stands downstream of the projection is then skipped by DVC."""
    list(teach(_params(), workspace))
    list(rationales(_params(), workspace))
    file = workspace.build("rationales") / "answers.parquet"
    before = file.read_bytes()
    answer = read_answers(file)[0].answer
    with RationaleCache(workspace.build("teach") / "cache") as cache:
        for number in range(20):
            request = Request("another", "endpoint", "p", input_digest=f"{number}", renderer="1")
            cache.add(request, "test_0", answer)
            cache.fail(request, "test_0", TimeoutError())
        cache.compact()
    list(rationales(_params(), workspace))
    assert file.read_bytes() == before


def test_replay_only_asks_nobody_and_says_what_to_do(workspace):
    with pytest.raises(BadInputError, match=r"teach\.replay_only"):
        list(teach(_params(replay_only=True), workspace))
    assert RationaleCache(workspace.build("teach") / "cache").answered() == set()


def test_replay_only_is_content_with_what_the_cache_holds(workspace):
    list(teach(_params(), workspace))
    items = list(teach(_params(replay_only=True), workspace))
    assert f"0 new answers, {4 * len(_REASONERS)} from the cache" in _said(items)


def test_an_unknown_panel_is_named_with_the_choices(workspace):
    with pytest.raises(BadInputError, match=r"teach\.panel: there is no panel 'ten'.*embedded"):
        list(teach(_params(panel="ten"), workspace))


def test_a_missing_part_is_one_sentence(workspace):
    (workspace.build("split") / "valid.parquet").unlink()
    with pytest.raises(BadInputError, match=r"valid\.parquet is missing"):
        list(teach(_params(), workspace))


def test_a_panel_that_speaks_of_other_sources_is_refused(workspace):
    with pytest.raises(BadInputError, match=r"answered a single case.*ingest\.sources"):
        list(teach(_params(panel="recorded"), workspace))


def test_rationales_without_a_cache_says_which_key_stands_in_the_way(workspace):
    with pytest.raises(BadInputError, match=r"rationales\.min_coverage"):
        list(rationales(_params(), workspace))
    assert (workspace.report("rationales") / "coverage.json").is_file()


def test_the_engine_ray_needs_its_extra_where_anything_is_to_be_spread(workspace, monkeypatch):
    list(teach(_params(engine="ray"), workspace))  # reasoners alone stay in this process
    endpoint = {
        "id": "e",
        "kind": "endpoint",
        "base_url": "http://127.0.0.1:1/v1",
        "model": "m",
        "key_variable": None,
        "price": None,
    }
    (workspace.data / "endpoint.yaml").write_text(yaml.safe_dump({"teachers": [endpoint]}))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RareAlertError, match=r"pip install 'rarealert\[ray\]'"):
        list(teach(_params(engine="ray", panel="data/endpoint.yaml"), workspace))
