"""FHIR files of any kind give the same visits, and a loss costs whoever it may concern."""

import json
import os
import random
import zipfile

import pytest
from fhir_records import (
    bundle,
    concept,
    condition,
    encounter,
    ndjson,
    observation,
    patient,
    records,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rarealert.errors import BadInputError
from rarealert.sources.fhir import read_bundle, read_recorded
from rarealert.sources.importing import read_source
from rarealert.sources.labelling import RecordedCase
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused

NAMES = "abcdef"
few = settings(max_examples=30)


def read(path):
    """Ids of the patients whose visit is read, and the refusals."""
    items = list(read_recorded(path))
    kept = [item.case.patient_id for item in items if isinstance(item, RecordedCase)]
    return kept, [item for item in items if isinstance(item, Refused)]


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def by_type(resources):
    found = {}
    for item in resources:
        found.setdefault(f"{item['resourceType']}.ndjson", []).append(item)
    return {name: ndjson(items) for name, items in found.items()}


@pytest.mark.parametrize("form", ["shuffled", "by type", "zip", "urn", "single", "twice"])
def test_all_forms_of_an_export_give_the_same_visits(tmp_path, form):
    resources = records("c", "a", "b")
    files = {"all.json": json.dumps(bundle(resources))}
    expected = [item.case for item in read_bundle(bundle(resources))]
    assert [case.patient_id for case in expected] == ["a", "b", "c"]
    if form == "shuffled":
        random.Random(1).shuffle(resources)
        files = {"1.ndjson": ndjson(resources[::2]), "2.jsonl": ndjson(resources[1::2])}
    elif form in ("by type", "zip"):
        files = by_type(resources)
    elif form == "urn":
        files = {"all.json": files["all.json"].replace('"Patient/', '"urn:uuid:')}
    elif form == "single":
        files = {f"{item['id']}.json": json.dumps(item) for item in resources}
    elif form == "twice":
        files["again.json"] = files["all.json"]
    if form == "zip":
        write_zip(tmp_path / "all.zip", files)
    else:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
    assert [item.case for item in read_recorded(tmp_path)] == expected


def test_a_reference_that_only_the_bundle_explains_is_resolved(tmp_path):
    found = [encounter(reasonCode=[concept("Cough")], subject={"reference": "urn:uuid:1"})]
    entries = [
        {"fullUrl": f"urn:uuid:{number}", "resource": each}
        for number, each in enumerate([*found, patient("p")])
    ]
    whole = {"resourceType": "Bundle", "entry": entries}
    (tmp_path / "b.json").write_text(json.dumps(whole))
    (recorded,) = read_recorded(tmp_path / "b.json")
    assert (recorded.case.case_id, recorded.case.chief_complaint) == ("p/e1", "Cough")
    assert [recorded.case] == [item.case for item in read_bundle(whole)]


def test_what_belongs_to_no_patient_is_refused_first_and_an_id_belongs_to_one(tmp_path):
    gout = condition("a.c1", "Gout", subject={"reference": "Patient/b"})
    found = [*records("b", "a"), {"resourceType": "Patient"}, gout, {"id": "none"}]
    (tmp_path / "all.ndjson").write_text(ndjson(found))
    kept, refused = read(tmp_path)
    assert kept == ["a"]
    fields = [item.field for item in refused]
    assert fields == ["Patient.id", "resourceType", "Condition.id", "patient"]


@few
@given(data=st.data())
def test_a_damaged_bundle_is_refused_whole_with_the_patients_it_names(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    text = json.dumps(bundle(records("a", "b"))).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    hole = data.draw(st.sampled_from([b"", b"\xff", b'"', b"}"]))
    is_cut = data.draw(st.booleans())
    (folder / "bad.json").write_bytes(text[:at] if is_cut else text[:at] + hole + text[at + 2 :])
    (folder / "good.json").write_text(json.dumps(bundle(records("z"))))
    kept, refused = read(folder)
    assert "z" in kept
    assert refused or kept == ["a", "b", "z"]


@pytest.mark.parametrize(("damaged", "kept"), [("ab", ["z"]), ("a", ["b", "z"]), ("az", ["b"])])
def test_a_patient_of_a_damaged_bundle_is_refused_in_other_files_too(tmp_path, damaged, kept):
    (tmp_path / "bad.json").write_text(json.dumps(bundle(records(*damaged)))[:-40])
    (tmp_path / "good.json").write_text(json.dumps(bundle(records("b", "z")[1:])))
    read_ones, refused = read(tmp_path)
    assert read_ones == kept
    assert ("bad.json", "entry") in [(item.file, item.field) for item in refused]


def lines_of(damaged):
    """Two patients, of whom the second has a rare disease, by id, one of the lines cut."""
    who = {"reference": "Patient/p1"}
    rare = condition("rare", "Marfan syndrome", "558", "http://www.orpha.net", subject=who)
    pulse = observation("pulse", "Pulse", subject=who)
    found = {item["id"]: json.dumps(item) for item in (*records("p0", "p1"), rare, pulse)}
    found[damaged] = found[damaged][:-1]
    return found


@pytest.mark.parametrize("form", ["ndjson", "zip", "files"])
@pytest.mark.parametrize(("damaged", "kept"), [("rare", ["p0"]), ("pulse", ["p0", "p1"])])
def test_a_damaged_resource_costs_its_patient_only_if_it_decides(tmp_path, form, damaged, kept):
    lines = lines_of(damaged)
    if form == "ndjson":
        (tmp_path / "all.ndjson").write_text("\n".join(lines.values()))
    elif form == "zip":
        write_zip(tmp_path / "all.zip", {"all.ndjson": "\n".join(lines.values())})
    else:
        for name, text in lines.items():
            (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "Immunization.ndjson").write_text("\n")
    read_ones, refused = read(tmp_path)
    assert read_ones == kept
    assert {"entry"} <= {item.field for item in refused}


@few
@given(data=st.data())
def test_a_damaged_line_never_makes_a_rare_patient_nonrare(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("line") / "fhir"
    folder.mkdir()
    lines = [line.encode() for line in ndjson(records("a", "b")).splitlines()]
    place = next(number for number, line in enumerate(lines) if b'"b.c2"' in line)
    # damage to the reference to the patient can leave a line that is whole, of somebody else
    start, end = (lines[place].index(name) for name in (b'"subject"', b'"code"'))
    places = [at for at in range(len(lines[place])) if not start <= at < end]
    at = data.draw(st.sampled_from(places))
    hole = data.draw(st.sampled_from([b"", b"x", b"\xff", b'"', b"{"]))
    lines[place] = lines[place][:at] + hole + lines[place][at + 1 :]
    (folder / "all.ndjson").write_bytes(b"\n".join(lines))
    labels = {
        item.case.patient_id: item.label.label
        for item in read_source("fhir", folder)
        if isinstance(item, LabelledCase)
    }
    assert labels["a"] == "rare"
    assert labels.get("b", "rare") == "rare"


@pytest.mark.parametrize("is_scattered", [False, True])
def test_a_line_cut_before_it_names_a_patient_may_be_of_those_beside_it_or_of_all(
    tmp_path, is_scattered
):
    resources = records(*NAMES)
    if is_scattered:
        resources.sort(key=lambda item: item["resourceType"])
    lines = [json.dumps(item) for item in resources]
    place = next(number for number, line in enumerate(lines) if '"c.c2"' in line)
    lines[place] = '{"resourceType": "Condition", "id": "c.'
    (tmp_path / "all.ndjson").write_text("\n".join(lines))
    (tmp_path / "other.json").write_text(json.dumps(bundle(records("z"))))
    kept, refused = read(tmp_path)
    assert kept == ([] if is_scattered else ["a", "b", "d", "e", "f", "z"])
    assert [item.row for item in refused if item.field == "entry"] == [place + 1]


@pytest.mark.parametrize("entry", [{"a": {}}, [3, None], [], "x"])
def test_a_bundle_without_resources_is_refused(tmp_path, entry):
    (tmp_path / "b.json").write_text(json.dumps({"resourceType": "Bundle", "entry": entry}))
    kept, refused = read(tmp_path)
    assert not kept
    assert refused


def test_an_empty_folder_and_a_damaged_zip_are_one_sentence(tmp_path):
    with pytest.raises(BadInputError, match="ndjson"):
        list(read_recorded(tmp_path))
    write_zip(tmp_path / "all.zip", by_type(records("a")))
    (tmp_path / "all.zip").write_bytes((tmp_path / "all.zip").read_bytes()[:-30])
    with pytest.raises(BadInputError, match=r"all\.zip"):
        list(read_recorded(tmp_path))


def test_a_link_in_a_folder_is_refused(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "nowhere.json")
    (tmp_path / "b.json").write_text(json.dumps(bundle(records("a"))))
    kept, [refused] = read(tmp_path)
    assert (kept, refused.file) == (["a"], "a.json")


@pytest.mark.parametrize("ending", ["json", "ndjson"])
def test_a_file_name_that_is_no_utf8_is_escaped(tmp_path, ending):
    text = ndjson(records("a")) if ending == "ndjson" else json.dumps(bundle(records("a")))
    (tmp_path / (os.fsdecode(b"caf\xe9.") + ending)).write_text(text)
    [recorded] = read_recorded(tmp_path)
    assert recorded.place.file == rf"caf\udce9.{ending}"
