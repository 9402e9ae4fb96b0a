"""The real corpora, where RAREALERT_CORPORA names them: counts, and what must not be in a case."""

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from rarealert.sources.importing import import_source, read_source
from rarealert.visits.reading import render
from rarealert.visits.refused import Refused

CORPORA = os.environ.get("RAREALERT_CORPORA", "")
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not CORPORA, reason="RAREALERT_CORPORA is not set"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ws") / "data"
    for kind in ("orphanet", "craftmd", "medrbench"):
        import_source(kind, Path(CORPORA) / kind, folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "labels", "left_out"),
    [
        ("craftmd", {"rare": 280, "nonrare": 540}, {"excluded": 538, "diagnosis_in_text": 1}),
        (
            "medrbench",
            {"rare": 267, "nonrare": 311},
            {"diagnosis_in_text": 66, "out_of_scope": 28},
        ),
    ],
)
def test_every_published_case_is_kept_or_refused_for_a_reason(data, kind, labels, left_out):
    items = list(read_source(kind, data / kind))
    refused = [item for item in items if isinstance(item, Refused)]
    kept = [item for item in items if not isinstance(item, Refused)]
    assert Counter(item.label.label for item in kept) == labels
    assert Counter(item.kind for item in refused) == left_out
    assert sum(item.case.age_years is None for item in kept) < 0.03 * len(kept)
    assert sum(item.case.sex is None for item in kept) < 0.03 * len(kept)
    assert sum(item.label.orphanet_head is None for item in kept) == labels["nonrare"]


def test_no_medrbench_visit_holds_a_section_of_tests(data):
    items = list(read_source("medrbench", data / "medrbench"))
    texts = [render(item.case) for item in items if not isinstance(item, Refused)]
    assert not [text for text in texts if re.search(r"ancillary tests|\*\*", text, re.I)]


@pytest.mark.parametrize("kind", ["craftmd", "medrbench"])
def test_case_ids_are_those_of_the_recorded_teachers(data, kind):
    items = read_source(kind, data / kind)
    kept = {item.case.case_id for item in items if not isinstance(item, Refused)}
    for archive in (data / kind / "teachers").iterdir():
        with gzip.open(archive, "rt", encoding="utf-8") as lines:
            answered = {json.loads(line)["case_id"] for line in lines}
        assert len(answered & kept) > 0.5 * min(len(kept), len(answered))
