"""What a judgement collects: the search for case text knows every part."""

from contextlib import contextmanager

import pytest

from rarealert.paths import Paths
from rarealert.registry import judgement
from rarealert.visits.case import Case, Label, LabelledCase

_LABEL = Label(label="nonrare", disease_id="NAME:x", disease_name="x", reason="made up")


def _case(part: str) -> LabelledCase:
    said = f"This visit of the {part} part tells of a purple giraffe on the stairs."
    return LabelledCase(
        case=Case(case_id=part, source="simulated", history_of_present_illness=said), label=_LABEL
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
    study = judgement.Study(cases, {}, {}, {}, tmp_path)
    found = judgement._scan(study, None, Paths(tmp_path))
    assert found.hits.keys() == {"evaluate/note.txt"}
