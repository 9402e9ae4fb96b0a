"""Importing: what is copied, counted and reported, and what a failed or killed import leaves."""

import gzip
import json
from pathlib import Path

import pytest
from published_files import (
    LINEARISATION,
    VIGNETTES,
    report,
    summary,
    write_craftmd,
    write_medrbench,
    write_orphanet,
)

from rarealert.errors import BadInputError
from rarealert.sources.importing import KINDS, SOURCES, import_source, read_source
from rarealert.visits.refused import read_refused


@pytest.fixture
def craftmd(tmp_path):
    folder = tmp_path / "published"
    write_craftmd(
        folder,
        [
            ("c0", "A man aches.", "Foo fever", "rare"),
            ("c1", "A man aches.", "Gout", "excluded"),
            ("c2", "A man has gout.", "Gout", "nonrare"),
        ],
    )
    (folder / "teachers").mkdir()
    (folder / "teachers" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"case_id": "c0"}\n'))
    (folder / "notes.txt").write_text("not published")
    return folder


@pytest.fixture
def data(tmp_path):
    return tmp_path / "ws" / "data"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_import_copies_what_was_published_and_counts(data, craftmd):
    done = import_source("craftmd", craftmd, data)
    copied = {f"craftmd/{VIGNETTES}", "craftmd/labels.csv"}
    assert files(data) == copied | {"craftmd/teachers/a.jsonl.gz"}
    assert (done.kept, done.left_out) == (1, {"excluded": 1, "diagnosis_in_text": 1})
    for part in ("1 cases kept", "1 diagnosis in text", "1 excluded", str(done.refused_file)):
        assert part in done.sentence()
    kinds = [item.kind for item in read_refused(done.refused_file)]
    assert kinds == ["excluded", "diagnosis_in_text"]
    assert not done.refused_file.is_relative_to(data)

    (craftmd / "teachers" / "a.jsonl.gz").unlink()
    import_source("craftmd", craftmd, data)
    assert files(data) == copied


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", None),
        ("labels.csv", b""),
        (VIGNETTES, b"\xff\xfe"),
        (VIGNETTES, b"case_id,case_vignette,answer\n"),
        ("teachers/a.jsonl.gz", b"\x1f\x8b\x08\x00half"),
    ],
)
def test_a_failed_import_leaves_data_as_it_was(data, craftmd, name, content):
    import_source("craftmd", craftmd, data)
    before = {path: (data / path).read_bytes() for path in files(data)}
    (craftmd / name).unlink()
    if content is not None:
        (craftmd / name).write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        import_source("craftmd", craftmd, data)
    assert "partial" not in str(caught.value)
    assert {path: (data / path).read_bytes() for path in files(data)} == before
    assert {item.name for item in data.iterdir()} == {"craftmd"}


@pytest.mark.parametrize("killed_at", [1, 2])
def test_an_import_killed_between_renames_is_finished_by_the_next(
    data, craftmd, monkeypatch, killed_at
):
    import_source("craftmd", craftmd, data)
    rename, calls = Path.rename, []

    def dies(self, target):
        calls.append(target)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        import_source("craftmd", craftmd, data)
    monkeypatch.undo()
    import_source("craftmd", craftmd, data)
    assert {item.name for item in data.iterdir()} == {"craftmd"}
    assert len(files(data)) == 3


def test_medrbench_is_checked_against_the_orphanet_tables_of_data(tmp_path, data):
    write_orphanet(tmp_path / "published", {"1": "Foo fever"})
    write_medrbench(tmp_path / "reports", {"P1": report(summary(), "Foo fever", ["Foo fever"])})
    with pytest.raises(BadInputError, match="data import orphanet PATH"):
        import_source("medrbench", tmp_path / "reports", data)
    assert "Orphanet" in import_source("orphanet", tmp_path / "published", data).sentence()
    assert import_source("medrbench", tmp_path / "reports", data).kept == 1


def test_damaged_orphanet_tables_are_refused_before_they_are_used(tmp_path, data):
    published = tmp_path / "published"
    write_orphanet(published, {"1": "Foo fever"})
    other = published / "epidemiology_of_rare_diseases.csv.gz"
    other.write_bytes(b"garbage")
    with pytest.raises(BadInputError, match=other.name):
        import_source("orphanet", published, data)
    other.unlink()
    table = published / LINEARISATION
    table.write_bytes(gzip.compress(gzip.decompress(table.read_bytes()) + b"1,2\n"))
    with pytest.raises(BadInputError, match="line 3"):
        import_source("orphanet", published, data)


def test_a_table_may_be_one_file_and_keeps_its_own_source(tmp_path, data):
    path = tmp_path / "team.jsonl"
    row = {"case_id": "a", "source": "clinic_a", "vitals": "Pulse 80", "diagnosis": "Gout"}
    path.write_text(json.dumps(row))
    done = import_source("table", path, data)
    assert (done.kept, done.refused_file) == (1, None)
    (read,) = read_source("table", data / "table")
    assert read.case.source == "clinic_a"
    path.write_text("\n")
    with pytest.raises(BadInputError, match=r"team\.jsonl is empty"):
        import_source("table", path, data)


def test_an_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(BadInputError, match=", ".join(sorted(KINDS))):
        import_source("nonsense", tmp_path, tmp_path)
    with pytest.raises(BadInputError, match=", ".join(sorted(SOURCES))):
        list(read_source("nonsense", tmp_path))


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_every_source_can_be_imported_and_says_so_where_it_is_missing(tmp_path, kind):
    assert kind in KINDS
    with pytest.raises(BadInputError, match="rarealert data"):
        list(read_source(kind, tmp_path / "absent"))


def test_a_damaged_list_of_refused_rows_says_what_to_do(tmp_path):
    path = tmp_path / "refused.jsonl"
    path.write_text("{}\n")
    with pytest.raises(BadInputError, match="dvc repro ingest"):
        read_refused(path)
