"""The search for case text: finds quotations in every kind of file, and only there."""

import json
import zipfile

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.registry.text_scan import WORDS, runs_of_words, scan

TEXT = "A boy of nine has walked on his toes since spring and falls when he runs."
WANTED = runs_of_words([TEXT])


def test_short_texts_have_no_shingle():
    assert runs_of_words(["seven words are not enough for it"]) == frozenset()
    assert len(runs_of_words(["these are exactly eight words in a row"])) == 1


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=WORDS, max_size=30))
def test_punctuation_and_case_do_not_hide_a_quotation(words):
    plain, disguised = " ".join(words), ", ".join(word.upper() for word in words) + "!"
    assert runs_of_words([plain]) == runs_of_words([disguised])


@pytest.fixture
def write(tmp_path):
    def text(name):
        (tmp_path / name).write_text(f"<p>{TEXT}</p>")

    def parquet(name):
        pd.DataFrame({"id": ["c1"], "text": [TEXT]}).to_parquet(tmp_path / name)

    def archive(name):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("schema.json", TEXT)

    def escaped(name):
        (tmp_path / name).write_text(json.dumps({"text": TEXT.replace(" ", "\n")}))

    def binary(name):
        (tmp_path / name).write_bytes(b"\x00\xff" + TEXT.encode() + b"\x00")

    return {
        "page.html": text,
        "rows.parquet": parquet,
        "model.skops": archive,
        "rows.json": escaped,
        "weights.safetensors": binary,
    }


@pytest.mark.parametrize(
    "name", ["page.html", "rows.parquet", "model.skops", "rows.json", "weights.safetensors"]
)
def test_a_quotation_is_found_in_every_kind_of_file(tmp_path, write, name):
    write[name](name)
    found = scan({"evaluate": tmp_path}, WANTED, known=[])
    assert set(found.hits) == {f"evaluate/{name}"}
    assert found.files == 1


def test_other_text_is_no_hit(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT.replace("walked", "gone").replace("falls", "stops"))
    assert scan({"x": tmp_path}, WANTED, known=[]).hits == {}


def test_a_public_file_is_known_by_its_bytes_only(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "package" / "table.tsv").write_text(TEXT)
    (tmp_path / "model" / "copy.tsv").write_text(TEXT)
    (tmp_path / "model" / "edited.tsv").write_text(TEXT + " More.")
    found = scan({"model": tmp_path / "model"}, WANTED, known=[tmp_path / "package"])
    assert set(found.hits) == {"model/edited.tsv"}
