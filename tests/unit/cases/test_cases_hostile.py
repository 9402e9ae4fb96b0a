"""Truncated, mis-encoded, empty, huge, duplicated and hostile files, for every importer."""

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
from published_files import report, summary, write_craftmd, write_medrbench, write_orphanet

from rarealert.errors import BadInputError
from rarealert.sources import files
from rarealert.sources.importing import import_source, read_refused

SECRET = "zebrastriped"
RECORDS = 4
shared_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12
)


def _row(number):
    return {
        "case_id": f"visit-{number}",
        "age_years": 40 + number,
        "chief_complaint": f"A {SECRET} toe, number {number}, hurts, and so on.",
        "label": "nonrare",
        "disease_name": "Gout",
    }


def _jsonl(folder):
    path = folder / "team.jsonl"
    path.write_text("".join(json.dumps(_row(number)) + "\n" for number in range(RECORDS)))
    return path


def _csv(folder):
    path = folder / "team.csv"
    rows = [_row(number) for number in range(RECORDS)]
    lines = [",".join(rows[0])]
    lines += [",".join(f'"{value}"' for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def _parquet(folder):
    path = folder / "team.parquet"
    pq.write_table(pa.Table.from_pylist([_row(number) for number in range(RECORDS)]), path)
    return path


def _packet(number):
    disease = {"id": "ORPHA:558", "label": "Marfan syndrome"}
    return {
        "id": f"packet-{number}",
        "subject": {"id": SECRET},
        "phenotypicFeatures": [{"type": {"id": "HP:0001250", "label": SECRET}}],
        "diseases": [{"term": disease}],
    }


def _zip(folder):
    path = folder / "packets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(RECORDS):
            archive.writestr(f"{number}.json", json.dumps(_packet(number)))
    return path


def _patients():
    for number in range(RECORDS):
        who = {"reference": f"Patient/p{number}"}
        reason = [concept(f"{SECRET} cough")]
        yield patient(f"p{number}")
        yield encounter(f"e{number}", subject=who, reasonCode=reason)
        code = {"resourceType": "Condition", "id": f"c{number}", "code": concept("Gout")}
        yield {**code, "subject": who, "encounter": {"reference": f"Encounter/e{number}"}}


def _ndjson(folder):
    path = folder / "export.ndjson"
    path.write_text("".join(json.dumps(resource) + "\n" for resource in _patients()))
    return path


def _bundle(folder):
    path = folder / "bundle.json"
    path.write_text(json.dumps(bundle(list(_patients()))))
    return path


def _craftmd(folder):
    rows = [(f"c{n}", f"A {SECRET} man aches, {n}.", "Gout", "nonrare") for n in range(RECORDS)]
    write_craftmd(folder, rows)
    return folder / "usmle_and_derm_dataset.csv"


def _medrbench(folder):
    text = summary(Chief_Complaint=f"A {SECRET} cough.")
    write_medrbench(folder, {f"P{n}": report(text, "Gout", []) for n in range(RECORDS)})
    return next(folder.iterdir())


# kind → a maker of its file, and whether the import is given the folder or the file
SOURCES = {
    "table jsonl": ("table", _jsonl, False),
    "table csv": ("table", _csv, False),
    "table parquet": ("table", _parquet, False),
    "phenopackets zip": ("phenopackets", _zip, False),
    "fhir ndjson": ("fhir", _ndjson, False),
    "fhir bundle": ("fhir", _bundle, False),
    "craftmd": ("craftmd", _craftmd, True),
    "medrbench": ("medrbench", _medrbench, True),
}


class Workspace:
    """A published source of four good records, and a data folder to import it into."""

    def __init__(self, root, name):
        self.kind, make, self.whole_folder = SOURCES[name]
        self.root = root
        shutil.rmtree(root, ignore_errors=True)
        (root / "published").mkdir(parents=True)
        self.data = root / "ws" / "data"
        write_orphanet(root / "orphanet", {"558": "Marfan syndrome", "324": "Fabry disease"})
        if self.kind == "medrbench":
            import_source("orphanet", root / "orphanet", self.data)
        self.file = make(root / "published")

    def run(self):
        """The report or the error; whichever it is, nothing half-written may be left."""
        path = self.file.parent if self.whole_folder else self.file
        try:
            done = import_source(self.kind, path, self.data)
        except BadInputError as error:
            done = error
        if isinstance(done, BadInputError):
            assert SECRET not in str(done)
            assert len(str(done).splitlines()) == 1
            assert not (self.data / self.kind).exists()
        else:
            assert done.kept > 0
            self.check_refused(done)
        left = {item.name for item in self.data.glob("*")} if self.data.exists() else set()
        assert left <= {self.kind, "orphanet"}
        return done

    def check_refused(self, done):
        if done.refused_file is not None:
            assert SECRET not in done.refused_file.read_text()
            refused = read_refused(done.refused_file)
            assert sum(done.left_out.values()) == len(refused)
            assert all(item.row > 0 and item.field and item.reason for item in refused)


@pytest.fixture
def workspace(tmp_path):
    return lambda name: Workspace(tmp_path / "one", name)


@pytest.mark.parametrize("name", SOURCES)
def test_the_good_records_are_all_kept(workspace, name):
    done = workspace(name).run()
    assert (done.kept, dict(done.left_out)) == (RECORDS, {})


@pytest.mark.parametrize("name", SOURCES)
@shared_folder
@given(data=st.data())
def test_cut_anywhere_it_keeps_what_is_whole_or_says_so(workspace, name, data):
    made = workspace(name)
    whole = made.file.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    made.file.write_bytes(whole[:cut])
    done = made.run()
    if name in ("table jsonl", "table csv"):
        lines = whole[:cut].count(b"\n") - (name == "table csv")
        kept = 0 if isinstance(done, BadInputError) else done.kept
        assert kept >= max(lines, 0)


@pytest.mark.parametrize("name", SOURCES)
@shared_folder
@given(data=st.data())
def test_any_damage_is_one_sentence_or_a_refusal(workspace, name, data):
    made = workspace(name)
    content = bytearray(made.file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    made.file.write_bytes(bytes(content))
    done = made.run()
    assert isinstance(done, BadInputError) or done.kept > 0


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
    ],
    ids=["empty", "blank", "zeros", "utf16", "braces", "deep"],
)
def test_what_is_no_such_file_is_one_sentence(workspace, name, content):
    made = workspace(name)
    made.file.write_bytes(content)
    assert isinstance(made.run(), BadInputError)


@pytest.mark.parametrize("name", ["table jsonl", "table csv", "fhir ndjson"])
def test_a_mis_encoded_record_alone_is_refused(workspace, name):
    made = workspace(name)
    lines = made.file.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(SECRET[:5].encode(), "zäbr".encode("latin-1"))
    made.file.write_bytes(b"\n".join(lines))
    done = made.run()
    assert done.kept == RECORDS - 1
    assert "not UTF-8" in [item.reason for item in read_refused(done.refused_file)]


@pytest.mark.parametrize("name", ["table jsonl", "table csv", "fhir ndjson"])
def test_a_byte_order_mark_is_no_damage(workspace, name):
    made = workspace(name)
    made.file.write_bytes(b"\xef\xbb\xbf" + made.file.read_bytes())
    assert made.run().kept == RECORDS


@pytest.mark.parametrize("name", ["table jsonl", "fhir ndjson"])
def test_a_line_that_would_fill_memory_is_refused_unread(workspace, name, monkeypatch):
    made = workspace(name)
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    with made.file.open("ab") as stream:
        stream.write(b'{"resourceType": "Binary", "data": "' + b"x" * 50_000 + b'"}\n')
    done = made.run()
    assert done.kept == RECORDS
    (refused,) = read_refused(done.refused_file)
    assert refused.reason == files.TOO_LONG


def test_a_zip_that_unpacks_to_gigabytes_is_refused_unread(workspace, monkeypatch):
    made = workspace("phenopackets zip")
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    with zipfile.ZipFile(made.file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", b"0" * 5_000_000)
    done = made.run()
    assert done.kept == RECORDS
    assert [item.file for item in read_refused(done.refused_file)] == ["bomb.json"]


def test_a_zip_writes_nothing_outside_its_place(workspace):
    made = workspace("phenopackets zip")
    with zipfile.ZipFile(made.file, "a") as archive:
        for name in ("../../../evil.json", "/tmp/rarealert-evil.json", "a\nb\x1b[31m.json"):
            archive.writestr(name, json.dumps(_packet(len(name))))
    done = made.run()
    assert done.kept == RECORDS + 3
    assert not list(made.root.rglob("*evil*"))
    assert not Path("/tmp/rarealert-evil.json").exists()


def test_a_locked_zip_member_is_named(workspace):
    made = workspace("phenopackets zip")
    content = bytearray(made.file.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag of the first member
    made.file.write_bytes(bytes(content))
    done = made.run()
    assert done.kept == RECORDS - 1
    (refused,) = read_refused(done.refused_file)
    assert (refused.file, refused.reason) == ("0.json", "encrypted; unpack it first")


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


@pytest.mark.parametrize("name", ["table jsonl", "table csv", "table parquet", "phenopackets zip"])
def test_a_record_given_twice_counts_once(workspace, name):
    made = workspace(name)
    if name == "table parquet":
        table = pq.read_table(made.file)
        pq.write_table(pa.concat_tables([table, table]), made.file)
    elif name == "phenopackets zip":
        with zipfile.ZipFile(made.file, "a") as archive:
            for number in range(RECORDS):
                archive.writestr(f"again/{number}.json", json.dumps(_packet(number)))
    else:
        content = made.file.read_bytes().split(b"\n", name == "table csv")
        made.file.write_bytes(b"\n".join([*content, content[-1]]))
    done = made.run()
    assert done.kept == RECORDS
    assert {item.reason for item in read_refused(done.refused_file)} == {"duplicate case_id"}


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
    assert {item.file: item.reason for item in read_refused(done.refused_file)} == {
        "empty.json": "empty",
        "half.json": "not valid JSON",
        "latin.json": "not UTF-8",
        "list.json": "not a JSON object",
    }


def test_a_gzip_bomb_is_not_unpacked_whole(workspace, monkeypatch):
    made = workspace("medrbench")
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 10_000)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(b" " * 1_000_000)
    made.file.write_bytes(buffer.getvalue())
    done = made.run()
    assert isinstance(done, BadInputError)
    assert "unpacks to more than" in str(done)
