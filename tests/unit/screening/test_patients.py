"""FHIR in flat memory: the same visits as when all is held, and whatever is damaged is said."""

import io
import json
import os
import random
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import ijson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.sources import fhir_patients as patients
from rarealert.sources.fhir import read_visits
from rarealert.sources.fhir_patients import read_patients
from rarealert.sources.records import Visit
from rarealert.visits.refused import Refused

sys.path.append(str(Path(__file__).parents[1] / "cases"))
from fhir_records import bundle, concept, condition, encounter, patient, record


def others(*names):
    """The record of ``fhir_records``, once for each name."""
    text = json.dumps(record())
    for name in names:
        told = text.replace('"Patient/p"', f'"Patient/{name}"')
        for each in json.loads(told):
            mine = {**each, "id": f"{name}.{each['id']}" if each["id"] != "p" else name}
            where = mine.get("encounter", {}).get("reference", "")
            if where:
                mine["encounter"] = {"reference": where.replace("/", f"/{name}.")}
            yield mine


@pytest.fixture
def by_entry(monkeypatch):
    """Read every bundle entry by entry, as large ones are."""
    monkeypatch.setattr(patients, "_HELD_BYTES", 0)


def told(items):
    """What was read, refusals first: only their place among the patients may differ."""
    return sorted(items, key=lambda each: isinstance(each, Visit))


@pytest.mark.parametrize("seed", range(3))
def test_the_visits_are_those_that_are_read_when_all_is_held(tmp_path, by_entry, seed):
    found = [*others("a", "c", "b"), {"resourceType": "Patient"}, encounter("x", None)]
    found += [condition("a.c1", "Gout", subject={"reference": "Patient/b"}), {"id": "none"}, 7]
    random.Random(seed).shuffle(found)
    (tmp_path / "all.ndjson").write_text("".join(json.dumps(each) + "\n" for each in found))
    (tmp_path / "one.json").write_text(json.dumps({**bundle(list(others("d"))), "total": 38.50}))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("in.json", json.dumps(bundle(list(others("e")))))
    expected, ours = list(read_visits(tmp_path)), list(read_patients(tmp_path))
    assert [each for each in ours if isinstance(each, Visit)] == [
        each for each in expected if isinstance(each, Visit)
    ]
    assert sorted(map(repr, ours)) == sorted(map(repr, expected))
    assert sum(isinstance(each, Refused) for each in ours) >= 4


def test_a_reference_that_only_the_bundle_explains_is_resolved(tmp_path, by_entry):
    found = [patient("p"), encounter(reasonCode=[concept("Cough")])]
    urls = {"p": "urn:uuid:1", "e1": "urn:uuid:2"}
    entries = [{"fullUrl": urls[each["id"]], "resource": each} for each in reversed(found)]
    entries[0]["resource"]["subject"] = {"reference": "urn:uuid:1"}
    source = tmp_path / "b.json"
    source.write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
    (visit,) = read_patients(source)
    assert (visit.case.case_id, visit.case.chief_complaint) == ("p/e1", "Cough")
    assert [visit] == list(read_visits(source))


@pytest.mark.parametrize("cut", [0.4, 0.7, 0.95])
def test_of_a_bundle_that_was_cut_the_entries_before_the_cut_are_read(tmp_path, by_entry, cut):
    whole = json.dumps(bundle(list(others(*"abcdefgh"))))
    source = tmp_path / "b.json"
    source.write_text(whole[: int(len(whole) * cut)])
    items = list(read_patients(source))
    broken = items[0]
    assert isinstance(broken, Refused)
    assert broken.reason == "cut or damaged from here on; the rest of the bundle is lost"
    assert broken.row == whole[: int(len(whole) * cut)].count('"fullUrl"')
    read = [each.case.patient_id for each in items if isinstance(each, Visit)]
    assert read == list("abcdefgh")[: int(8 * cut)]  # the last one's record may go on behind it
    assert [each.field for each in items[1:] if isinstance(each, Refused)] == ["patient"]


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("damage", ["cut", "hole"])
def test_whoever_a_loss_may_concern_is_refused_as_when_all_is_held(tmp_path, scattered, damage):
    found = list(others(*"abcdef"))
    if scattered:
        random.Random(1).shuffle(found)
    whole = json.dumps(bundle(found))
    at = whole.index('"fullUrl": "urn:uuid:c.e1"')
    spoilt = whole[: at + 40] if damage == "cut" else whole[: at + 30] + "}}" + whole[at + 60 :]
    (tmp_path / "a.json").write_text(spoilt)
    (tmp_path / "b.json").write_text(json.dumps(bundle(list(others("z")))))
    expected, ours = list(read_visits(tmp_path)), list(read_patients(tmp_path))
    assert sorted(map(repr, ours)) == sorted(map(repr, expected))
    assert any(each.field == "patient" for each in ours if isinstance(each, Refused))


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", '{"entry": ' + "[" * 100_000, '{"entry": {"a": {}}}', '{"entry": [3, null]}'],
)
def test_what_is_no_bundle_is_refused(tmp_path, by_entry, text):
    source = tmp_path / "b.json"
    source.write_text(text or " ")
    items = list(read_patients(source))
    assert items
    assert all(isinstance(each, Refused) for each in items)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_in_a_bundle_end_in_entries_or_an_error(noise, place):
    text = json.dumps(bundle([patient(), encounter()])).encode()
    place = min(place, len(text))
    with suppress(ValueError, ijson.JSONError):
        assert len(list(patients._items(io.BytesIO(text[:place] + noise + text[place:])))) < 100


def test_a_folder_without_records_says_so_and_a_link_is_refused(tmp_path, by_entry):
    with pytest.raises(BadInputError, match="holds no"):
        list(read_patients(tmp_path))
    (tmp_path / "a.json").symlink_to(tmp_path / "nowhere.json")
    (tmp_path / "b.json").write_text(json.dumps(bundle([patient()])))
    reasons = {each.reason for each in read_patients(tmp_path)}
    assert "a link; put the file itself there" in reasons


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("ending", ["json", "ndjson"])
def test_a_file_name_that_is_no_utf8_is_escaped(tmp_path, monkeypatch, large, ending):
    name = os.fsdecode(b"caf\xe9.") + ending
    lines = "\n".join(json.dumps(each) for each in record())
    text = lines if ending == "ndjson" else json.dumps(bundle(record()))
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(patients, "_HELD_BYTES", 0 if large else 10**6)
    [visit] = read_patients(tmp_path)
    assert visit.place.file == rf"caf\udce9.{ending}"
