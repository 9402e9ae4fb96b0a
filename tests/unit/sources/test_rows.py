"""Rows of CSV, JSONL and Parquet: damage costs the damaged rows, and each loss is reported."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.sources import published_files as files
from rarealert.sources.published_files import no_tick
from rarealert.sources.rows import rows

few = settings(max_examples=30)
texts = st.text(st.sampled_from('ab ,;"\n'), max_size=12)


def csv_lines(records):
    lines = []
    for record in records:
        made = io.StringIO()
        csv.writer(made, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(record)
        lines.append(made.getvalue())
    return lines


def read_csv(folder, content):
    path = folder / "t.csv"
    path.write_text("id,text,more\n" + content)
    return list(rows(path, no_tick))


@given(records=st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_whole_csv_is_read_as_the_library_reads_it(tmp_path_factory, records):
    content = "".join(csv_lines((f"r{number}", *each) for number, each in enumerate(records)))
    found = read_csv(tmp_path_factory.getbasetemp(), content)
    expected = csv.DictReader(io.StringIO("id,text,more\n" + content))
    assert [row for _, row in found] == [
        {name: cell for name, cell in row.items() if cell.strip()} for row in expected
    ]


@given(
    written=st.lists(st.text(st.sampled_from("ab ,\n"), min_size=1, max_size=12), min_size=3),
    data=st.data(),
)
def test_a_quote_too_many_or_too_few_costs_one_record(tmp_path_factory, written, data):
    lines = csv_lines((f"r{number}", f"x{text}y", "end") for number, text in enumerate(written))
    hurt = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.sampled_from([at for at, char in enumerate(lines[hurt]) if char == '"']))
    is_added = data.draw(st.booleans())
    lines[hurt] = lines[hurt][:at] + ('"x' if is_added else "") + lines[hurt][at + (not is_added) :]
    found = read_csv(tmp_path_factory.getbasetemp(), "".join(lines))
    kept = [row.get("id") for _, row in found if isinstance(row, dict)]
    others = [f"r{number}" for number in range(len(lines)) if number != hurt]
    assert [name for name in kept if name in others] == others
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    assert len([row for _, row in found if isinstance(row, str)]) <= 1 + lines[hurt].count("\n")


def test_lines_that_an_open_quote_swallowed_are_read_again_or_counted(tmp_path):
    content = 'r0,a,end\nr1,"open,end\nmore, of, this, text\nr2,b,end\nr3,"two\nlines",end\n'
    found = dict(read_csv(tmp_path, content))
    assert {number: row for number, row in found.items() if isinstance(row, dict)} == {
        2: {"id": "r0", "text": "a", "more": "end"},
        5: {"id": "r2", "text": "b", "more": "end"},
        7: {"id": "r3", "text": "two\nlines", "more": "end"},
    }
    assert "2 lines" in found[3]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_line_that_would_fill_memory_costs_itself(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 2_000)
    written = [("r0", "a"), ("r1", "x" * 9_000), ("r2", "b")]
    if ending == ".csv":
        lines = ["id,text", *(",".join(each) for each in written)]
    else:
        lines = [json.dumps(dict(zip(("id", "text"), each, strict=True))) for each in written]
    (tmp_path / f"t{ending}").write_text("\n".join(lines) + "\n")
    first, lost, last = (row for _, row in rows(tmp_path / f"t{ending}", no_tick))
    assert (first["id"], lost, last["id"]) == ("r0", files.TOO_LONG, "r2")


@few
@given(data=st.data())
def test_a_damaged_row_group_costs_its_own_rows(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "groups.parquet"
    table = pa.table({"id": [f"r{n}" for n in range(400)], "text": ["abc" * 20] * 400})
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    group = data.draw(st.integers(0, 3))
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    content = bytearray(path.read_bytes())
    at = column.data_page_offset + data.draw(st.integers(0, column.total_compressed_size // 4))
    content[at : at + 24] = bytes(byte ^ 0xFF for byte in content[at : at + 24])
    path.write_bytes(bytes(content))
    found = list(rows(path, no_tick))
    [(number, reason)] = [(number, row) for number, row in found if isinstance(row, str)]
    assert number == group * 100 + 1
    assert "100 rows" in reason
    kept = [row["id"] for _, row in found if isinstance(row, dict)]
    assert kept == [f"r{n}" for n in range(400) if n // 100 != group]


def test_a_parquet_text_that_is_not_utf8_costs_its_row(tmp_path):
    column = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "t.parquet")
    found = list(rows(tmp_path / "t.parquet", no_tick))
    assert found == [(1, {"text": "good"}), (2, "not UTF-8"), (3, {"text": "fine"})]
