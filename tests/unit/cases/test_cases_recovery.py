"""Damage costs the damaged record: what stands before it and behind it is read as it was."""

import csv
import gzip
import io
import json
import re
import struct
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fhir_records import bundle, concept, encounter, patient
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import report, summary, write_medrbench, write_orphanet

from rarealert.errors import BadInputError
from rarealert.sources import files
from rarealert.sources.fhir import read_visits
from rarealert.sources.files import documents, no_tick
from rarealert.sources.importing import read_source
from rarealert.sources.json_survivors import survivors
from rarealert.sources.records import Visit
from rarealert.sources.rows import csv_records, rows
from rarealert.visits.refused import Refused

few = settings(max_examples=30)
texts = st.text(st.sampled_from('ab ,;"\n'), max_size=12)


def _csv_lines(records):
    lines = []
    for record in records:
        made = io.StringIO()
        csv.writer(made, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(record)
        lines.append(made.getvalue())
    return lines


def _read_csv(path, content):
    path.write_text("id,text,more\n" + content)
    return list(csv_records(path, no_tick))


@given(records=st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_whole_csv_is_read_as_the_library_reads_it(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "whole.csv"
    named = [(f"r{number}", *record) for number, record in enumerate(records)]
    found = _read_csv(path, "".join(_csv_lines(named)))
    expected = list(csv.reader(io.StringIO("".join(_csv_lines(named)))))
    assert [row for _, row in found] == [
        {name: cell for name, cell in zip(("id", "text", "more"), cells, strict=True)
         if cell.strip()}
        for cells in expected
    ]  # fmt: skip


@given(
    told=st.lists(st.text(st.sampled_from("ab ,\n"), min_size=1, max_size=12), min_size=3),
    data=st.data(),
)
def test_a_quote_too_many_or_too_few_costs_one_record(tmp_path_factory, told, data):
    path = tmp_path_factory.getbasetemp() / "quote.csv"
    records = [(f"r{number}", f"x{text}y", "end") for number, text in enumerate(told)]
    lines = _csv_lines(records)
    hurt = data.draw(st.integers(0, len(lines) - 1))
    marks = [at for at, char in enumerate(lines[hurt]) if char == '"']
    at = data.draw(st.sampled_from(marks))
    more = data.draw(st.booleans())
    lines[hurt] = lines[hurt][:at] + ('"x' if more else "") + lines[hurt][at + (not more) :]
    found = _read_csv(path, "".join(lines))
    kept = [row.get("id") for _, row in found if isinstance(row, dict)]
    others = [record[0] for number, record in enumerate(records) if number != hurt]
    assert [name for name in kept if name in others] == others
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    assert len([row for _, row in found if isinstance(row, str)]) <= 1 + lines[hurt].count("\n")


def test_lines_that_a_quote_swallowed_are_counted(tmp_path):
    content = 'r0,a,end\nr1,"open,end\nmore, of, this, text\nr2,b,end\nr3,"two\nlines",end\n'
    assert _read_csv(tmp_path / "t.csv", content) == [
        (2, {"id": "r0", "text": "a", "more": "end"}),
        (3, "not CSV (is a quote open?); 2 lines from here on are lost"),
        (5, {"id": "r2", "text": "b", "more": "end"}),
        (7, {"id": "r3", "text": "two\nlines", "more": "end"}),
    ]


def test_hostile_quotes_take_no_longer_than_the_file_is_long(tmp_path):
    seconds = []
    for count in (2_000, 20_000):
        start = time.process_time()
        _read_csv(tmp_path / "t.csv", '",b","c\n' * count)
        _read_csv(tmp_path / "t.csv", 'r,"a,b\nr,a,b\n' * count)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 40 * max(seconds[0], 0.005)


def test_a_line_that_would_fill_memory_costs_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    found = _read_csv(tmp_path / "t.csv", f"r0,a,end\nr1,{'x' * 9_000},end\nr2,b,end\n")
    assert [row if isinstance(row, str) else row["id"] for _, row in found] == [
        "r0", files.TOO_LONG, "r2",
    ]  # fmt: skip


def _table(count):
    return pa.table({"case_id": [f"r{n}" for n in range(count)], "text": ["abc" * 20] * count})


@few
@given(data=st.data())
def test_a_damaged_row_group_costs_its_own_rows(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "groups.parquet"
    pq.write_table(_table(400), path, row_group_size=100, write_page_checksum=True)
    group = data.draw(st.integers(0, 3))
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    content = bytearray(path.read_bytes())
    start = column.data_page_offset
    at = start + data.draw(st.integers(0, column.total_compressed_size // 4))
    content[at : at + 24] = bytes(byte ^ 0xFF for byte in content[at : at + 24])
    path.write_bytes(bytes(content))
    found = list(rows(path, no_tick))
    lost = [(number, row) for number, row in found if isinstance(row, str)]
    kept = [row["case_id"] for _, row in found if isinstance(row, dict)]
    assert lost == [(group * 100 + 1, "a damaged block; 100 rows from here on are lost")]
    assert kept == [f"r{n}" for n in range(400) if n // 100 != group]


def test_a_text_that_is_not_utf8_costs_its_row(tmp_path):
    column = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "t.parquet")
    assert list(rows(tmp_path / "t.parquet", no_tick)) == [
        (1, {"text": "good"}), (2, "not UTF-8"), (3, {"text": "fine"}),
    ]  # fmt: skip


MEMBERS = 5


def _zip(path, method=zipfile.ZIP_DEFLATED, stream=False):
    raw = io.BytesIO()
    if stream:
        raw.seek = lambda *_: (_ for _ in ()).throw(OSError("a pipe"))  # sizes follow the data
    with zipfile.ZipFile(raw, "w", method) as archive:
        for number in range(MEMBERS):
            content = json.dumps({"number": number, "noise": "".join(map(str, range(150)))})
            archive.writestr(f"{number}.json", content)
        archive.writestr("notes.txt", "not read")
    path.write_bytes(raw.getvalue())
    return raw.getvalue()


def _ends(content):
    """Where the data of each JSON member ends."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    return starts[1:]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@few
@given(data=st.data())
def test_a_cut_zip_gives_every_member_before_the_cut(tmp_path_factory, method, data):
    path = tmp_path_factory.getbasetemp() / "cut.zip"
    content = _zip(path, method)
    ends = _ends(content)
    cut = data.draw(st.integers(ends[0], len(content) - 1))
    path.write_bytes(content[:cut])
    *found, rest = documents(path, (".json",))
    whole = [item.name for item in found if item.problem is None]
    assert whole == [f"{number}.json" for number in range(MEMBERS) if ends[number] <= cut]
    assert rest.rest_lost
    assert rest.name == "cut.zip"
    assert [json.loads(item.content)["number"] for item in found if not item.problem] == list(
        range(len(whole))
    )


def test_members_whose_sizes_follow_them_survive_too(tmp_path):
    content = _zip(tmp_path / "piped.zip", stream=True)
    assert struct.unpack_from("<H", content, 6)[0] & 8
    (tmp_path / "piped.zip").write_bytes(content[:-100])
    *found, rest = documents(tmp_path / "piped.zip", (".json",))
    assert [item.problem for item in found] == [None] * MEMBERS
    assert rest.rest_lost


@few
@given(data=st.data())
def test_a_changed_or_lost_byte_of_a_zip_costs_one_member(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "hurt.zip"
    content = _zip(path)
    ends = _ends(content)
    at = data.draw(st.integers(ends[0] + 40, ends[1] - 1))
    gone = data.draw(st.booleans())
    other = b"" if gone else bytes([content[at] ^ 0x55])
    path.write_bytes(content[:at] + other + content[at + 1 :])
    found = list(documents(path, (".json",)))
    whole = {item.name: item.content for item in found if item.problem is None}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert all(archive.read(name) == told for name, told in whole.items())
    # the last bits of what is packed may mean nothing
    assert whole.keys() | {"1.json"} == {f"{number}.json" for number in range(MEMBERS)}
    assert "1.json" not in whole or at == ends[1] - 1


def test_what_a_damaged_zip_may_unpack_to_is_bounded(tmp_path, monkeypatch):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(30):
            archive.writestr(f"{number}.json", b"0" * 200_000)
    content = bytearray(raw.getvalue()[:-50])
    at = 0
    while (at := content.find(b"PK\x03\x04", at)) >= 0:
        content[at + 14] ^= 1  # the checksum
        at += 4
    (tmp_path / "bomb.zip").write_bytes(bytes(content))
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1_000_000)
    found = documents(tmp_path / "bomb.zip", (".json",))
    assert [next(found).problem for _ in range(5)] == ["cut off or damaged in the archive"] * 5
    with pytest.raises(BadInputError, match="truncated or no zip"):
        next(found)


PATIENTS = 4


def _records(number):
    who = {"reference": f"Patient/p{number}"}
    yield patient(f"p{number}")
    yield encounter(f"e{number}", subject=who, reasonCode=[concept("A cough")])
    told = {"resourceType": "Condition", "id": f"c{number}", "code": concept("Gout")}
    yield {**told, "subject": who, "encounter": {"reference": f"Encounter/e{number}"}}


def _read_bundle(path, content):
    path.write_bytes(content)
    found = list(read_visits(path))
    kept = [item.case.patient_id for item in found if isinstance(item, Visit)]
    return kept, [item for item in found if isinstance(item, Refused)]


def _whole_bundle():
    return json.dumps(bundle([one for number in range(PATIENTS) for one in _records(number)]))


@few
@given(data=st.data())
def test_a_cut_bundle_gives_the_patients_before_the_one_it_is_cut_at(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut.json"
    whole = _whole_bundle()
    first_end = whole.index('"p1"')
    cut = data.draw(st.integers(first_end + 200, len(whole) - 1))
    kept, refused = _read_bundle(path, whole[:cut].encode())
    seen = whole[:cut].count('"resourceType": "Patient"')
    assert kept == [f"p{number}" for number in range(len(kept))]
    assert seen - 2 <= len(kept) <= seen
    assert len(kept) < PATIENTS or cut > len(whole) - 4
    assert refused


@few
@given(data=st.data())
def test_damage_in_a_bundle_costs_the_patients_it_is_in(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "hurt.json"
    whole = _whole_bundle().encode()
    start, end = whole.index(b'"p1"') + 4, whole.index(b'"p2"') - 60
    at = data.draw(st.integers(start, end))
    kept, refused = _read_bundle(path, whole[:at] + b"\xff\x00" + whole[at + 2 :])
    # between two patients it may be either's
    assert {"p0", "p3"} <= set(kept) < {"p0", "p1", "p2", "p3"}
    assert refused


def test_where_nobody_knows_whose_entries_are_lost_all_are_in_doubt(tmp_path):
    by_type = [list(_records(number)) for number in range(PATIENTS)]
    listed = [records[kind] for kind in range(3) for records in by_type]
    whole = json.dumps(bundle(listed))
    kept, refused = _read_bundle(tmp_path / "b.json", whole[: whole.index('"c3"')].encode())
    assert kept == []
    assert "may stand in what is lost" in refused[-1].reason


def test_a_lost_observation_costs_itself(tmp_path):
    who = {"reference": "Patient/p0"}
    observation = {"resourceType": "Observation", "id": "o", "status": "final", "subject": who}
    records = [*_records(0), {**observation, "code": concept("Pulse"), "note": [{"text": "@"}]}]
    whole = json.dumps(bundle([*records, *_records(1)])).replace("@", "\n")
    kept, refused = _read_bundle(tmp_path / "b.json", whole.encode())
    assert kept == ["p0", "p1"]
    assert [item.row for item in refused] == [4]
    assert "damaged" in refused[0].reason


def _lines(*, damaged):
    """Two patients, of whom the second also has a rare disease, each resource as JSON by its id."""
    records = [*_records(0), *_records(1)]
    rare = concept("Marfan syndrome", "558", "http://www.orpha.net")
    who = {"reference": "Patient/p1"}
    records.append({"resourceType": "Condition", "id": "rare", "subject": who, "code": rare})
    pulse = {"resourceType": "Observation", "id": "pulse", "status": "final", "subject": who}
    told = {item["id"]: json.dumps(item) for item in (*records, pulse)}
    told[damaged] = told[damaged][:-1]
    return told


def _unpacked(folder, told, form):
    if form == "ndjson":
        (folder / "all.ndjson").write_text("\n".join(told.values()))
    elif form == "zip":
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            archive.writestr("all.ndjson", "\n".join(told.values()))
    else:
        for name, text in told.items():
            (folder / f"{name}.json").write_text(text)


@pytest.mark.parametrize("form", ["ndjson", "zip", "files"])
@pytest.mark.parametrize(("damaged", "kept"), [("rare", ["p0"]), ("pulse", ["p0", "p1"])])
def test_a_damaged_resource_costs_its_patient_only_if_it_decides(tmp_path, form, damaged, kept):
    _unpacked(tmp_path, _lines(damaged=damaged), form)
    found = list(read_visits(tmp_path))
    assert [item.case.patient_id for item in found if isinstance(item, Visit)] == kept
    assert "not valid JSON" in [item.reason for item in found if isinstance(item, Refused)]


def test_a_line_cut_before_it_names_anybody_may_be_anybodys(tmp_path):
    told = _lines(damaged="pulse") | {"rare": '{"resourceType": "Condition", "id": "ra'}
    _unpacked(tmp_path, dict(sorted(told.items())), "ndjson")
    assert not [item for item in read_visits(tmp_path) if isinstance(item, Visit)]


def test_a_file_of_blank_lines_costs_nothing_else(tmp_path):
    _unpacked(tmp_path, _lines(damaged="pulse"), "ndjson")
    (tmp_path / "Immunization.ndjson").write_text("\n")
    found = list(read_visits(tmp_path))
    assert len([item for item in found if isinstance(item, Visit)]) == 2
    assert ("Immunization.ndjson", "empty") in [
        (item.file, item.reason) for item in found if isinstance(item, Refused)
    ]


def test_a_cut_zip_of_bundles_gives_the_whole_ones(tmp_path):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for number in range(PATIENTS):
            archive.writestr(f"{number}.json", json.dumps(bundle(list(_records(number)))))
    content = raw.getvalue()
    kept, refused = _read_bundle(tmp_path / "b.zip", content[: content.index(b'"c3"')])
    assert kept == ["p0", "p1", "p2"]
    assert [item.file for item in refused] == ["3.json", "b.zip"]


@given(st.text(st.sampled_from('{}[]",:\\ab1 '), max_size=60))
def test_survivors_never_raise_and_always_end(text):
    found = list(survivors(text, 0, re.compile(r"(?=\{)"), "]", bool))
    assert all((item.value is None) != (item.lost is None) for item in found)


def test_many_damaged_entries_take_no_longer_than_the_text_is_long():
    damaged = '{"resource": {"id": "o", "said": "one\nline", "pad": "' + "x" * 600 + '"}}'
    seconds = []
    for count in (300, 2_400):
        text = "\n[" + ",\n".join([damaged] * count) + "]"
        start = time.process_time()
        (lost,) = survivors(text, 2, re.compile(r'(?=\{"resource")'), "]", bool)
        seconds.append(time.process_time() - start)
        assert lost.tail
    assert seconds[1] < 24 * max(seconds[0], 0.005)


@pytest.fixture
def medrbench(tmp_path):
    write_orphanet(tmp_path / "orphanet", {"1": "Foo fever"})
    text = summary(Chief_Complaint="A cough.")
    write_medrbench(tmp_path / "medrbench", {f"P{n}": report(text, "Gout", []) for n in range(4)})
    return next((tmp_path / "medrbench").iterdir())


def test_a_cut_archive_of_reports_gives_those_before_the_cut(medrbench):
    plain = gzip.decompress(medrbench.read_bytes())
    stored = gzip.compress(plain, compresslevel=0)
    medrbench.write_bytes(stored[: stored.index(b'"P3"') + 50])
    *kept, lost = read_source("medrbench", medrbench.parent)
    assert [item.case.case_id for item in kept] == ["P0", "P1", "P2"]
    assert (lost.row, lost.field) == (4, "report")


def test_a_damaged_report_costs_itself(medrbench):
    plain = gzip.decompress(medrbench.read_bytes())
    at = plain.index(b'"P2"') + 30
    medrbench.write_bytes(gzip.compress(plain[:at] + b"\xff" + plain[at + 1 :]))
    found = list(read_source("medrbench", medrbench.parent))
    assert [item.case.case_id for item in found if not isinstance(item, Refused)] == [
        "P0", "P1", "P3",
    ]  # fmt: skip
    assert [item.row for item in found if isinstance(item, Refused)] == [3]


def test_an_archive_damaged_within_is_not_believed(medrbench):
    content = bytearray(medrbench.read_bytes())
    content[-6] ^= 1  # the checksum
    medrbench.write_bytes(bytes(content))
    with pytest.raises(BadInputError, match="truncated or no gzip"):
        list(read_source("medrbench", medrbench.parent))
