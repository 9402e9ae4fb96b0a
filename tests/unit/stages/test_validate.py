"""The validate stage: planted faults stop it, drift must be accepted, no page holds case text."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.validate import validate
from rarealert.tracking.items import Summary
from rarealert.visits.refused import Refused, write_refused
from rarealert.visits.store import SCHEMA

pytestmark = [
    # great_expectations 1.24 imports sre_constants, which Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),
]
SECRET = "Zebra-striped hands"
BONE = "Rare bone disease"
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
            "findings_present": ["HP:0000001"],
        }
        made.append(row)
    return made


def workspace(folder, items: list[Row], refused: Sequence[Refused] = (), schema=None) -> Paths:
    paths = Paths(folder)
    paths.build("ingest").mkdir(parents=True, exist_ok=True)
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
        assert items[-1] == Summary("29 expectations met")
        pages.append((paths.report("validate") / "index.html").read_text())
        report = json.loads((paths.report("validate") / "report.json").read_text())
        assert report["success"]
        assert report["sources"][0]["head_share"] is None  # the source names no heads
    assert pages[0] == pages[1]
    assert str(tmp_path) not in pages[0]
    assert SECRET not in pages[0]
    assert "http" not in pages[0]


def _set(column: str, value: object, places: slice = slice(0, 1)) -> Callable[[list[Row]], None]:
    def change(items: list[Row]) -> None:
        for row in items[places]:
            row[column] = value

    return change


def _shrunk(rare: int, nonrare: int) -> Callable[[list[Row]], None]:
    def change(items: list[Row]) -> None:
        items[:] = items[:rare] + items[30 : 30 + nonrare]

    return change


FIELDS = [
    (_set("case_id", "c1"), "case_id is unique"),
    (_set("case_id", None, slice(2, 3)), "case_id is never missing"),
    (_set("source", "elsewhere", slice(3, 4)), "source is one of ingest.sources"),
    (_set("age_years", 400.0), "age_years is between 0 and 120 years"),
    (_set("sex", "f"), "sex is female or male"),
    (_set("label", "maybe", slice(4, 5)), "label is rare or nonrare"),
    (_set("orpha_code", "58"), "orpha_code looks like ORPHA:<number>"),
    (_set("orphanet_head", "Rare oddity"), "orphanet_head is one of Orphanet's 33"),
    (_set("disease_name", None), "disease_name is never missing"),
    (_set("reason", None), "reason is never missing"),
]
TIES = [
    (_set("orpha_code", None), "orpha_code is given exactly where the label is rare"),
    (_set("disease_id", "NAME:x"), "disease_id is an ORPHA code exactly where it is rare"),
    (_set("chief_complaint", None), "every visit has text"),
    (_set("chief_complaint", "Known ILLNESS 1.", slice(1, 2)), "no visit names its own diagnosis"),
    (_set("orphanet_head", BONE, slice(-1, None)), "no case that is not rare has an orphanet_head"),
    (_set("findings_excluded", ["HP:0000001"], slice(0, 3)),
     "findings are HPO ids, none both present and excluded"),
    (_set("chief_complaint", f"{SECRET} twice", slice(29, 31)), "no text has both labels"),
]  # fmt: skip
SHARES = [
    (_set("age_years", None, slice(None)), "age is missing in at most 0.5 of a source"),
    (_set("orphanet_head", BONE), "a source that names heads does so for 0.9 of rare cases"),
    (_set("chief_complaint", f"{SECRET} again", slice(40, 47)),
     "at most 0.05 of a source's texts are repeated"),
    (_shrunk(2, 30), "every source has at least 20 rare cases"),
    (lambda items: None, "each label is at least 0.1 of every source"),
]  # fmt: skip


@pytest.mark.parametrize("planted", [FIELDS, TIES, SHARES], ids=["fields", "ties", "shares"])
def test_planted_faults_stop_the_graph_after_writing_the_page(tmp_path, params, planted):
    items = rows()
    for plant, _ in planted:
        plant(items)
    paths = workspace(tmp_path, items)
    with pytest.raises(BadInputError) as caught:
        list(validate(params, paths))
    page = (paths.report("validate") / "index.html").read_text()
    report = json.loads((paths.report("validate") / "report.json").read_text())
    failed = {check["title"] for check in report["checks"] if not check["success"]}
    for _, title in planted:
        assert title in failed
        assert title in str(caught.value)
    assert "the pipeline stops here" in page
    assert SECRET not in page + str(caught.value)
    assert not report["success"]
    assert not (paths.report("validate") / "reference.json").exists()


def test_a_shift_against_the_pinned_corpus_must_be_accepted_by_name(tmp_path, params):
    paths = workspace(tmp_path / "ws", rows())
    list(validate(params, paths))
    reference = paths.report("validate") / "reference.json"
    pinned = reference.read_bytes()
    older = rows()
    for row in older:
        row["age_years"] = 80.0
    workspace(tmp_path / "ws", older)
    with pytest.raises(BadInputError, match="drifts by a stability index above") as caught:
        list(validate(params, paths))
    assert reference.read_bytes() == pinned
    assert "beyond chance" in (paths.report("validate") / "index.html").read_text()
    name = str(caught.value).split("accept_profile to ")[1][:64]
    settings = params.validate_.model_copy(update={"accept_profile": name})
    list(validate(params.model_copy(update={"validate_": settings}), paths))
    assert reference.read_bytes() != pinned
    list(validate(params, paths))


def test_too_many_broken_rows_fail_but_rows_left_out_on_purpose_do_not(tmp_path, params):
    broken = [Refused("table", "cases.jsonl", n, "line", "not valid JSON") for n in range(20)]
    with pytest.raises(BadInputError, match="rows are broken"):
        list(validate(params, workspace(tmp_path / "a", rows(), broken)))
    meant = [Refused("table", "f", n, "label", "not a disease", "excluded") for n in range(90)]
    list(validate(params, workspace(tmp_path / "b", rows(), meant)))


def test_a_source_without_a_case_and_a_foreign_column_fail(tmp_path, params):
    wider = pa.schema([*(f.with_nullable(True) for f in SCHEMA), pa.field("mri", pa.string())])
    paths = workspace(tmp_path, rows(), schema=wider)
    sources = params.ingest.model_copy(update={"sources": ("table", "craftmd")})
    with pytest.raises(BadInputError) as caught:
        list(validate(params.model_copy(update={"ingest": sources}), paths))
    assert "every source has at least 20 rare cases" in str(caught.value)
    assert "the columns are those of the case schema" in str(caught.value)


def test_a_missing_or_damaged_file_is_named(tmp_path, params):
    with pytest.raises(BadInputError, match="missing; run dvc repro ingest"):
        list(validate(params, Paths(tmp_path)))
    paths = workspace(tmp_path / "b", rows())
    (paths.build("ingest") / "cases.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BadInputError, match="no Parquet file"):
        list(validate(params, paths))
    narrow = pa.schema([field for field in SCHEMA if field.name != "sex"])
    with pytest.raises(BadInputError, match="has no column sex"):
        list(validate(params, workspace(tmp_path / "c", rows(), schema=narrow)))
