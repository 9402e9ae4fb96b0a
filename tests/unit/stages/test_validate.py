import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.cases.imports import write_refused
from rarealert.cases.sources.refused import Refused
from rarealert.cases.store import SCHEMA
from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.validate import validate
from rarealert.tracking.items import Summary

pytestmark = [
    # great_expectations 1.24 imports sre_constants, which Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]
SECRET = "Zebra-striped hands"
Row = dict[str, Any]


def rows(count: int = 30) -> list[Row]:
    made = []
    for number in range(2 * count):
        rare = number < count
        row: Row = dict.fromkeys(SCHEMA.names)
        row |= {
            "case_id": f"c{number}",
            "source": "table",
            "age_years": float(number),
            "sex": "female",
            "chief_complaint": f"{SECRET} {number}",
            "label": "rare" if rare else "nonrare",
            "disease_id": f"ORPHA:{number}" if rare else f"NAME:illness {number}",
            "disease_name": f"Illness {number}",
            "orpha_code": f"ORPHA:{number}" if rare else None,
            "reason": "made for a test",
        }
        made.append(row)
    return made


def workspace(folder, items: list[Row], refused: Sequence[Refused] = (), schema=None) -> Paths:
    paths = Paths(folder)
    paths.build("ingest").mkdir(parents=True)
    open_schema = schema or pa.schema([field.with_nullable(True) for field in SCHEMA])
    table = pa.Table.from_pylist(items, schema=open_schema)
    pq.write_table(table, paths.build("ingest") / "cases.parquet")
    write_refused(paths.build("ingest") / "refused.jsonl", list(refused))
    return paths


@pytest.fixture
def params(request):
    whole = load_params(request.config.rootpath / "params.yaml")
    return whole.model_copy(
        update={"ingest": whole.ingest.model_copy(update={"sources": ("table",)})}
    )


def test_good_cases_pass_and_the_page_is_stable(tmp_path, params):
    pages = []
    for name in ("one", "two"):
        paths = workspace(tmp_path / name, rows())
        items = list(validate(params, paths))
        assert items[-1] == Summary("21 expectations met")
        pages.append((paths.report("validate") / "index.html").read_text())
        report = json.loads((paths.report("validate") / "report.json").read_text())
        assert report["success"]
    assert pages[0] == pages[1]
    assert str(tmp_path) not in pages[0]
    assert SECRET not in pages[0]
    assert "http" not in pages[0]


def _set(column: str, value: object, places: slice = slice(0, 1)) -> Callable[[list[Row]], None]:
    def change(items: list[Row]) -> None:
        for row in items[places]:
            row[column] = value

    return change


@pytest.mark.parametrize(
    ("plant", "title"),
    [
        (_set("case_id", "c1"), "case_id is unique"),
        (_set("case_id", None), "case_id is never missing"),
        (_set("source", "elsewhere"), "source is one of ingest.sources"),
        (_set("age_years", 400.0), "age_years lies between 0 and 120 years"),
        (_set("age_years", None, slice(0, 31)), "age is missing in at most 0.5 of a source"),
        (_set("sex", "f"), "sex is female or male"),
        (_set("label", "maybe"), "label is rare or nonrare"),
        (_set("orpha_code", "58"), "orpha_code looks like ORPHA:<number>"),
        (_set("orpha_code", None), "orpha_code is given exactly where the label is rare"),
        (_set("disease_id", "NAME:x"), "disease_id is an ORPHA code exactly where it is rare"),
        (_set("disease_name", None), "disease_name is never missing"),
        (_set("reason", None), "reason is never missing"),
        (_set("chief_complaint", None), "every visit has text"),
        (_set("chief_complaint", "Known ILLNESS 0."), "no visit names its own diagnosis"),
        (lambda items: items.__delitem__(slice(0, 11)), "every source has at least 20 rare cases"),
        (lambda items: items.__delitem__(slice(30, 41)), "at least 20 nonrare cases"),
    ],
)
def test_a_planted_fault_stops_the_graph_after_writing_the_page(tmp_path, params, plant, title):
    items = rows()
    plant(items)
    paths = workspace(tmp_path, items)
    with pytest.raises(BadInputError) as caught:
        list(validate(params, paths))
    assert title in str(caught.value)
    page = (paths.report("validate") / "index.html").read_text()
    assert "the pipeline stops here" in page
    assert SECRET not in page + str(caught.value)
    assert not json.loads((paths.report("validate") / "report.json").read_text())["success"]


def test_too_many_broken_rows_fail_but_rows_left_out_on_purpose_do_not(tmp_path, params):
    broken = [Refused("table", "cases.jsonl", n, "line", "not valid JSON") for n in range(20)]
    with pytest.raises(BadInputError, match=r"at most 0\.2 of a source's rows are broken"):
        list(validate(params, workspace(tmp_path / "a", rows(), broken)))
    meant = [Refused("table", "f", n, "label", "not a disease", "excluded") for n in range(90)]
    list(validate(params, workspace(tmp_path / "b", rows(), meant)))


def test_a_source_without_a_single_case_fails(tmp_path, params):
    both = params.ingest.model_copy(update={"sources": ("table", "craftmd")})
    params = params.model_copy(update={"ingest": both})
    with pytest.raises(BadInputError, match="every source has at least 20 rare cases"):
        list(validate(params, workspace(tmp_path, rows())))


def test_a_foreign_column_is_caught(tmp_path, params):
    wider = pa.schema([*(f.with_nullable(True) for f in SCHEMA), pa.field("mri", pa.string())])
    paths = workspace(tmp_path, rows(), schema=wider)
    with pytest.raises(BadInputError, match="the columns are those of the case schema"):
        list(validate(params, paths))


def test_a_missing_or_damaged_file_is_one_sentence(tmp_path, params):
    with pytest.raises(BadInputError, match="missing; run dvc repro ingest"):
        list(validate(params, Paths(tmp_path)))
    paths = workspace(tmp_path / "b", rows())
    (paths.build("ingest") / "cases.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BadInputError, match="no Parquet file"):
        list(validate(params, paths))
    narrow = pa.schema([field for field in SCHEMA if field.name != "sex"])
    with pytest.raises(BadInputError, match="has no column sex"):
        list(validate(params, workspace(tmp_path / "c", rows(), schema=narrow)))
