"""Data Docs of faulty cases: every outcome, no word of a case, nothing fetched."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.quality.data_docs import build_data_docs
from rarealert.visits.refused import write_refused
from rarealert.visits.store import SCHEMA

pytestmark = [
    # great_expectations 1.24 imports sre_constants, which Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]
SECRET = "zebrastriped"


def _row(number):
    rare = number % 2 == 0
    return dict.fromkeys(SCHEMA.names) | {
        "case_id": f"{SECRET}-case-{number % 30}",
        "source": "table" if number else SECRET,
        "patient_id": f"{SECRET} patient",
        "age_years": 400.0 if number == 1 else 40.0,
        "sex": SECRET if number == 2 else "female",
        "chief_complaint": f"A {SECRET} toe, number {number % 7}.",
        "history_of_present_illness": None if number % 5 else f"It names {SECRET} illness 3.",
        "label": SECRET if number == 3 else "rare" if rare else "nonrare",
        "disease_id": None if number == 4 else f"{SECRET}:{number}",
        "disease_name": f"{SECRET} illness {number % 4}",
        "orpha_code": SECRET if number == 6 else "ORPHA:1" if rare else None,
        "orphanet_head": SECRET,
        "reason": f"because of {SECRET}",
        "findings_present": [SECRET],
        "findings_excluded": [SECRET],
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    paths = Paths(tmp_path_factory.mktemp("ws"))
    paths.build("ingest").mkdir(parents=True)
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA])
    table = pa.Table.from_pylist([_row(number) for number in range(40)], schema=schema)
    pq.write_table(table, paths.build("ingest") / "cases.parquet")
    write_refused(paths.build("ingest") / "refused.jsonl", [])
    whole = load_params(request.config.rootpath / "params.yaml")
    ingest = whole.ingest.model_copy(update={"sources": ("table",)})
    summary = build_data_docs(whole.model_copy(update={"ingest": ingest}), paths)
    assert {item.relative_to(paths.root).as_posix() for item in paths.root.glob("*/*")} == {
        "build/data_docs", "build/ingest"}  # fmt: skip
    return summary, paths.build("data_docs")


def test_the_site_shows_every_suite_and_every_outcome(site):
    summary, folder = site
    met, checked = map(int, re.search(r"(\d+) of (\d+) expectations met", summary).groups())
    assert 0 < met < checked - 10
    pages = list((folder / "validations").rglob("*.html"))
    assert len(pages) == len(list((folder / "expectations").glob("*.html"))) == 4
    texts = "".join(page.read_text() for page in pages)
    assert texts.count("fa-times text-danger") >= checked - met
    assert "unexpected values found" in texts


def test_no_file_of_the_site_holds_a_word_of_a_case(site):
    pages = [item for item in site[1].rglob("*") if item.is_file()]
    assert len(pages) > 8
    assert not [page for page in pages if SECRET.encode() in page.read_bytes().lower()]


def test_nothing_is_fetched_when_a_page_is_opened(site):
    for page in site[1].rglob("*.html"):
        text = page.read_text()
        assert not re.search(r'(?:src|<link[^>]*href)="(?:https?:)?//', text)
        assert not re.search(r"(?:url|@import)\s*\(?['\"]?(?:https?:)?//", text)
        ours = re.findall(r'="([^"]+/offline\.(?:css|js))"', text)
        assert len(ours) == 2
        assert all((page.parent / place).is_file() for place in ours)
