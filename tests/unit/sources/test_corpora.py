"""The real corpora, where RAREALERT_CORPORA names them: counts, and what must not be in a case."""

import gzip
import json
import os
import re
import zipfile
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


def read(kind, folder):
    items = list(read_source(kind, folder))
    refused = [item for item in items if isinstance(item, Refused)]
    return [item for item in items if not isinstance(item, Refused)], refused


@pytest.mark.parametrize(
    ("kind", "labels", "left_out"),
    [
        ("craftmd", {"rare": 280, "nonrare": 540}, {"excluded": 538, "diagnosis_in_text": 1}),
        ("medrbench", {"rare": 267, "nonrare": 311}, {"diagnosis_in_text": 66, "out_of_scope": 28}),
    ],
)
def test_every_published_case_is_kept_or_refused_for_a_reason(data, kind, labels, left_out):
    kept, refused = read(kind, data / kind)
    assert Counter(item.label.label for item in kept) == labels
    assert Counter(item.kind for item in refused) == left_out
    assert sum(item.case.age_years is None for item in kept) < 0.03 * len(kept)
    assert sum(item.case.sex is None for item in kept) < 0.03 * len(kept)
    assert sum(item.label.orphanet_head is None for item in kept) == labels["nonrare"]
    texts = [render(item.case) for item in kept]
    assert not [text for text in texts if re.search(r"ancillary tests|\*\*", text, re.I)]
    ids = {item.case.case_id for item in kept}
    for archive in (data / kind / "teachers").iterdir():
        with gzip.open(archive, "rt", encoding="utf-8") as lines:
            answered = {json.loads(line)["case_id"] for line in lines}
        assert len(answered & ids) > 0.5 * min(len(ids), len(answered))


@pytest.mark.parametrize("share", [60, pytest.param(1, marks=pytest.mark.scale)])
def test_every_phenopacket_is_kept_or_refused_for_a_reason(tmp_path, share):
    folder = tmp_path / "phenopackets"
    folder.mkdir()
    store = Path(CORPORA) / "phenopacket-store.zip"
    with zipfile.ZipFile(store) as whole, zipfile.ZipFile(folder / "some.zip", "w") as some:
        names = sorted(whole.namelist())[::share]
        for name in names:
            some.writestr(name, whole.read(name))
    kept, refused = read("phenopackets", folder)
    assert len(kept) + len(refused) == len(names)
    assert len(kept) > 0.4 * len(names)
    assert {item.label.label for item in kept} == {"rare"}
    kinds = Counter(item.kind for item in refused)
    assert not {"invalid", "unlabelled"} & kinds.keys()
    if share == 1:
        assert (len(names), kinds["out_of_scope"]) == (7_089, 410)
