"""The published phenopackets, where RAREALERT_CORPORA names them: counts and reasons."""

import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from rarealert.sources.importing import read_source
from rarealert.visits.refused import Refused

CORPORA = os.environ.get("RAREALERT_CORPORA", "")
STORE = Path(CORPORA) / "phenopacket-store.zip"
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not CORPORA, reason="RAREALERT_CORPORA is not set"),
]


def read_some(folder, share):
    folder.mkdir()
    with zipfile.ZipFile(STORE) as store, zipfile.ZipFile(folder / "some.zip", "w") as some:
        names = sorted(store.namelist())[::share]
        for name in names:
            some.writestr(name, store.read(name))
    return len(names), list(read_source("phenopackets", folder))


def check(count, items):
    kept = [item for item in items if not isinstance(item, Refused)]
    refused = [item for item in items if isinstance(item, Refused)]
    assert len(items) == count
    assert {item.label.label for item in kept} == {"rare"}
    assert not [item for item in refused if item.kind in ("invalid", "unlabelled")]
    assert len(kept) > 0.4 * count
    return len(kept), Counter(item.kind for item in refused)


def test_every_packet_is_kept_or_refused_for_a_reason(tmp_path):
    check(*read_some(tmp_path / "phenopackets", 60))


@pytest.mark.scale
def test_all_packets(tmp_path):
    kept, refused = check(*read_some(tmp_path / "phenopackets", 1))
    assert kept + sum(refused.values()) == 7_089
    assert refused["out_of_scope"] == 410
