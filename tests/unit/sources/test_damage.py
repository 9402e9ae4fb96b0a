"""Truncated, mis-encoded, empty, huge, duplicated and hostile files, for every reader.

Whatever the damage, an import keeps the records or reports what is lost: no exception, nothing
half-written, and no patient text in a message.
"""

import gzip
import io
import json
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fhir_records import bundle, concept, encounter, patient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_files import (
    REPORTS,
    VIGNETTES,
    report,
    summary,
    write_craftmd,
    write_medrbench,
    write_orphanet,
)

from rarealert.errors import BadInputError
from rarealert.sources import published_files as files
from rarealert.sources.importing import import_source
from rarealert.visits.refused import read_refused

SECRET = "zebrastriped"
RECORDS = 4
shared_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)


def _row(number):
    return {
        "case_id": f"visit-{number}",
        "age_years": 40 + number,
        "chief_complaint": f"A {SECRET} toe, number {number}, hurts, and so on.",
        "label": "nonrare",
        "disease_name": "Gout",
    }


def _packet(number):
    return {
        "id": f"packet-{number}",
        "subject": {"id": SECRET},
        "phenotypicFeatures": [{"type": {"id": "HP:0001250", "label": SECRET}}],
        "diseases": [{"term": {"id": "ORPHA:558", "label": "Marfan syndrome"}}],
    }


def _patients():
    for number in range(RECORDS):
        who = {"reference": f"Patient/p{number}"}
        yield patient(f"p{number}")
        yield encounter(f"e{number}", subject=who, reasonCode=[concept(f"{SECRET} cough")])
        gout = {"resourceType": "Condition", "id": f"c{number}", "code": concept("Gout")}
        yield {**gout, "subject": who, "encounter": {"reference": f"Encounter/e{number}"}}


def _lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)


def _csv(path):
    items = [_row(number) for number in range(RECORDS)]
    lines = [",".join(f'"{value}"' for value in item.values()) for item in items]
    path.write_text("\n".join([",".join(items[0]), *lines]) + "\n")


def _parquet(path):
    pq.write_table(pa.Table.from_pylist([_row(number) for number in range(RECORDS)]), path)


def _zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(RECORDS):
            archive.writestr(f"{number}.json", json.dumps(_packet(number)))


def _craftmd(path):
    rows = [(f"c{n}", f"A {SECRET} man aches, {n}.", "Gout", "nonrare") for n in range(RECORDS)]
    write_craftmd(path.parent, rows)


def _medrbench(path):
    text = summary(Chief_Complaint=f"A {SECRET} cough.")
    write_medrbench(path.parent, {f"P{n}": report(text, "Gout", []) for n in range(RECORDS)})


def _write(text):
    return lambda path: path.write_text(text)


# kind, name of its file, what writes it; the import is given the folder where names are fixed
SOURCES = {
    "jsonl": ("table", "t.jsonl", _write(_lines(map(_row, range(RECORDS))))),
    "csv": ("table", "t.csv", _csv),
    "parquet": ("table", "t.parquet", _parquet),
    "phenopackets": ("phenopackets", "packets.zip", _zip),
    "ndjson": ("fhir", "export.ndjson", _write(_lines(_patients()))),
    "bundle": ("fhir", "bundle.json", _write(json.dumps(bundle(list(_patients()))))),
    "craftmd": ("craftmd", VIGNETTES, _craftmd),
    "medrbench": ("medrbench", REPORTS, _medrbench),
}


class Workspace:
    """A published source of four good records, and a data folder to import it into."""

    def __init__(self, root, name):
        self.kind, file, write = SOURCES[name]
        shutil.rmtree(root, ignore_errors=True)
        (root / "published").mkdir(parents=True)
        self.root, self.data = root, root / "ws" / "data"
        write_orphanet(root / "orphanet", {"558": "Marfan syndrome", "324": "Fabry disease"})
        if self.kind == "medrbench":
            import_source("orphanet", root / "orphanet", self.data)
        self.file = root / "published" / file
        write(self.file)

    def run(self):
        """The kept cases and the refused rows, or the error; nothing half-written may be left."""
        path = self.file.parent if self.kind in ("craftmd", "medrbench") else self.file
        try:
            done = import_source(self.kind, path, self.data)
        except BadInputError as error:
            return self._failed(str(error))
        left = {item.name for item in self.data.iterdir()}
        assert left <= {self.kind, "orphanet"}
        assert done.kept > 0
        refused = read_refused(done.refused_file) if done.refused_file else []
        assert sum(done.left_out.values()) == len(refused)
        assert all(item.row > 0 and item.field and item.reason for item in refused)
        assert SECRET not in str(refused)
        return done.kept, refused

    def _failed(self, message):
        left = {item.name for item in self.data.glob("*")} if self.data.exists() else set()
        assert left <= {"orphanet"}
        assert SECRET not in message
        assert len(message.splitlines()) == 1
        return message


@pytest.fixture
def workspace(tmp_path):
    return lambda name: Workspace(tmp_path / "one", name)


@pytest.mark.parametrize("name", SOURCES)
def test_all_good_records_are_kept(workspace, name):
    assert workspace(name).run() == (RECORDS, [])


@pytest.mark.parametrize("name", SOURCES)
@shared_folder
@given(data=st.data())
def test_any_damage_is_one_sentence_or_refused_rows(workspace, name, data):
    made = workspace(name)
    content = bytearray(made.file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    made.file.write_bytes(bytes(content))
    done = made.run()
    if not isinstance(done, str):
        kept, refused = done
        assert kept == RECORDS or refused


@pytest.mark.parametrize("name", SOURCES)
@shared_folder
@given(data=st.data())
def test_cut_anywhere_lines_are_kept_and_other_files_are_refused(workspace, name, data):
    made = workspace(name)
    whole = made.file.read_bytes()
    made.file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    done = made.run()
    if name in ("jsonl", "csv"):
        lines = made.file.read_bytes().count(b"\n") - (name == "csv")
        assert lines <= 0 or done[0] >= lines
    elif name not in ("craftmd", "ndjson"):
        assert isinstance(done, str)
        assert made.file.name in done


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"\x00" * 500,
        b"\xff\xfe" + "a,b\n1,2\n".encode("utf-16-le"),
        b"{}",
        b"[" * 99_999,
        b'{"entry": ' + b"[" * 99_999,
    ],
    ids=["empty", "blank", "zeros", "utf16", "braces", "deep", "deep entry"],
)
def test_any_other_file_is_one_sentence(workspace, name, content):
    made = workspace(name)
    made.file.write_bytes(content)
    assert isinstance(made.run(), str)


@pytest.mark.parametrize("name", ["jsonl", "csv", "ndjson"])
def test_a_mis_encoded_record_alone_is_refused(workspace, name):
    made = workspace(name)
    lines = made.file.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(SECRET[:5].encode(), "zäbr".encode("latin-1"))
    made.file.write_bytes(b"\n".join(lines))
    kept, refused = made.run()
    assert kept == RECORDS - 1
    assert "not UTF-8" in [item.reason for item in refused]


@pytest.mark.parametrize("name", ["jsonl", "csv", "ndjson", "bundle"])
def test_a_byte_order_mark_is_no_damage(workspace, name):
    made = workspace(name)
    made.file.write_bytes(b"\xef\xbb\xbf" + made.file.read_bytes())
    assert made.run() == (RECORDS, [])


def test_a_line_of_ndjson_that_would_fill_memory_is_refused_unread(workspace, monkeypatch):
    made = workspace("ndjson")
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    with made.file.open("ab") as stream:
        stream.write(b'{"resourceType": "Binary", "data": "' + b"x" * 50_000 + b'"}\n')
    kept, [refused] = made.run()
    assert (kept, refused.reason) == (RECORDS, files.TOO_LONG)


@pytest.mark.parametrize("field", ["data", "entry"])
def test_a_fhir_document_that_would_fill_memory_is_refused_unread(workspace, monkeypatch, field):
    made = workspace("bundle")
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 100_000)
    long = [{"resource": {"resourceType": "Binary", "data": "x" * 400_000}}]
    content = {"resourceType": "Bundle", "entry": long} if field == "entry" else {field: long}
    made.file.write_text(json.dumps(content))
    assert files.TOO_LONG in made.run()


def test_a_zip_member_that_unpacks_to_gigabytes_is_refused_unread(workspace, monkeypatch):
    made = workspace("phenopackets")
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    with zipfile.ZipFile(made.file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", b"0" * 5_000_000)
    kept, [refused] = made.run()
    assert (kept, refused.file) == (RECORDS, "bomb.json")


def test_a_gzip_bomb_is_not_unpacked_whole(workspace, monkeypatch):
    made = workspace("medrbench")
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 10_000)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(b" " * 1_000_000)
    made.file.write_bytes(buffer.getvalue())
    assert "unpacks to more than" in made.run()


def test_a_zip_writes_nothing_outside_its_place(workspace):
    made = workspace("phenopackets")
    with zipfile.ZipFile(made.file, "a") as archive:
        for name in ("../../../evil.json", "/tmp/rarealert-evil.json", "a\nb\x1b[31m.json"):
            archive.writestr(name, json.dumps(_packet(len(name))))
    assert made.run() == (RECORDS + 3, [])
    assert not list(made.root.rglob("*evil*"))
    assert not Path("/tmp/rarealert-evil.json").exists()


def test_a_locked_zip_member_is_named(workspace):
    made = workspace("phenopackets")
    content = bytearray(made.file.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag of the first member
    made.file.write_bytes(bytes(content))
    kept, [refused] = made.run()
    assert (kept, refused.file) == (RECORDS - 1, "0.json")
    assert "encrypted" in refused.reason


def test_a_link_in_a_folder_is_not_followed(tmp_path):
    folder = tmp_path / "packets"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps(_packet(1)))
    (tmp_path / "outside.json").write_text(json.dumps(_packet(2)))
    (folder / "link.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(BadInputError, match=r"link\.json is a link"):
        import_source("phenopackets", folder, tmp_path / "ws" / "data")
    (folder / "link.json").unlink()
    assert import_source("phenopackets", folder, tmp_path / "ws" / "data").kept == 1


@pytest.mark.parametrize("kind", ["phenopackets", "fhir"])
def test_a_folder_of_good_and_bad_files_keeps_the_good_ones(tmp_path, kind):
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = _packet(1) if kind == "phenopackets" else bundle(list(_patients()))
    (folder / "good.json").write_text(json.dumps(good))
    (folder / "empty.json").write_bytes(b"")
    (folder / "half.json").write_text(json.dumps(good)[:50])
    (folder / "latin.json").write_bytes(b'{"id": "\xe4"}')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "notes.txt").write_text("not read")
    done = import_source(kind, folder, tmp_path / "ws" / "data")
    assert done.kept == (1 if kind == "phenopackets" else RECORDS)
    bad = {"empty.json", "half.json", "latin.json", "list.json"}
    assert {item.file for item in read_refused(done.refused_file)} == bad
