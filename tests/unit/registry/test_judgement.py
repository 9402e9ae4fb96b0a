"""The facts of a judgement: the search for case text covers every part."""

from contextlib import contextmanager

import pytest

from rarealert.paths import Paths
from rarealert.registry import judgement
from rarealert.visits.case import Case, Label, LabelledCase

_LABEL = Label(label="nonrare", disease_id="NAME:x", disease_name="x", reason="made up")


def _case(part: str) -> LabelledCase:
    text = f"This visit of the {part} part is about a purple giraffe on the stairs."
    return LabelledCase(
        case=Case(case_id=part, source="simulated", history_of_present_illness=text), label=_LABEL
    )


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_text_of_a_case_of_any_part_is_found(part, tmp_path, monkeypatch):
    cases = {name: [_case(name)] for name in ("train", "valid", "test")}
    quoted = cases[part][0].case.history_of_present_illness
    (tmp_path / "note.txt").write_text(f"An example: {quoted}")

    @contextmanager
    def folders(*_):
        yield {"evaluate": tmp_path}

    monkeypatch.setattr(judgement, "tracked_folders", folders)
    outputs = judgement.StageOutputs(cases, {}, {}, {}, tmp_path)
    found = judgement.scan_artifacts(outputs, None, Paths(tmp_path))
    assert found.hits.keys() == {"evaluate/note.txt"}
