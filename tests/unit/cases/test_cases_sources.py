import contextlib
import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_files import (
    labelled,
    report,
    summary,
    write_craftmd,
    write_medrbench,
    write_orphanet,
)

from rarealert.errors import BadInputError
from rarealert.sources.craftmd import without_question
from rarealert.sources.importing import SOURCES, read_source
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused

SECRET = "Zebra-striped hands since Tuesday"
# a file is written for each example, so the folder may be shared and a slow disk is no failure
reused_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


def row(**changes):
    item = labelled("a", "Gout", rare=False, text="The big toe hurts.")
    nested = json.loads(item.model_dump_json())
    nested["case"] |= {key[5:]: value for key, value in changes.items() if key[:5] == "case_"}
    nested["label"] |= {key[6:]: value for key, value in changes.items() if key[:6] == "label_"}
    return nested


def read_table(tmp_path, lines):
    (tmp_path / "cases.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(read_source("table", tmp_path))


def test_an_unknown_source_names_the_known_ones(tmp_path):
    with pytest.raises(
        BadInputError, match="craftmd, fhir, medrbench, phenopackets, simulated, table"
    ):
        list(read_source("nonsense", tmp_path))


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_a_missing_folder_says_how_to_get_it(tmp_path, kind):
    with pytest.raises(BadInputError, match="rarealert data"):
        list(read_source(kind, tmp_path / "absent"))


def test_nested_and_flat_rows_give_the_same_case(tmp_path):
    nested = row()
    flat = {key: value for key, value in (nested["case"] | nested["label"]).items() if value}
    flat["case_id"] = "b"
    first, second = read_table(tmp_path, [json.dumps(nested), json.dumps(flat)])
    assert first.case.model_copy(update={"case_id": "b"}) == second.case
    assert first.label == second.label


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (json.dumps(row(case_age_years=400)), "case.age_years", "less than or equal to 120"),
        (json.dumps(row(case_age_years=float("nan"))), "case.age_years", "finite"),
        (json.dumps(row(case_history_of_present_illness=None)), "case", "needs text"),
        (json.dumps(row(case_history_of_present_illness=" ")), "present_illness", "at least 1"),
        (json.dumps(row(label_orpha_code="ORPHA:58")), "label", "label is nonrare but"),
        (json.dumps(row(label_label="rare")), "label", "orpha_code is missing"),
        (json.dumps(row(label_label="maybe")), "label.label", "'rare' or 'nonrare'"),
        (json.dumps(row(case_diagnosis=SECRET)), "case.diagnosis", "unknown field"),
        (json.dumps(row(case_sex=SECRET)), "case.sex", "'female' or 'male'"),
        (
            json.dumps(
                row(case_history_of_present_illness="Gout again.", label_disease_name="Gout")
            ),
            "case",
            "the diagnosis stands in the text",
        ),
        (json.dumps(row() | {SECRET: 1}), "(unnamed)", "unknown field"),
        (json.dumps({"case": SECRET, "label": {}}), "case", "not a JSON object"),
        (f'{{"case": "{SECRET}', "line", "not valid JSON"),
        (json.dumps([SECRET]), "line", "not a JSON object"),
        ("[" * 100_000, "line", "not valid JSON"),
        ('{"age_years": ' + "9" * 5000 + "}", "line", "not valid JSON"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_kept(tmp_path, line, field, reason):
    good = row()
    good["case"]["case_id"] = "good"
    refused, kept = read_table(tmp_path, [line, json.dumps(good)])
    assert isinstance(refused, Refused)
    assert (refused.source, refused.file, refused.row) == ("table", "cases.jsonl", 1)
    assert field in refused.field
    assert reason in refused.reason
    assert SECRET not in json.dumps(refused.as_dict())
    assert kept.case.case_id == "good"


def test_a_line_that_is_not_utf8_is_refused(tmp_path):
    good = json.dumps(row()).encode()
    (tmp_path / "cases.jsonl").write_bytes(b'{"case": "\xff\xfe"}\n' + good + b"\n")
    refused, kept = read_source("table", tmp_path)
    assert refused.reason == "not UTF-8"
    assert kept.case.case_id == "a"


def test_a_case_id_counts_once(tmp_path):
    kept, refused = read_table(tmp_path, [json.dumps(row()), json.dumps(row(case_age_years=3))])
    assert kept.case.age_years is None
    assert (refused.field, refused.reason) == ("case_id", "duplicate case_id")


def test_a_foreign_source_name_is_refused_by_simulated(tmp_path):
    (tmp_path / "cases.jsonl").write_text(json.dumps(row(case_source="craftmd")))
    (refused,) = read_source("simulated", tmp_path)
    assert refused.field == "case.source"


@reused_folder
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_garbage_bytes_never_break_the_table_reader(tmp_path, chunks):
    content = b"\n".join(chunks)
    (tmp_path / "cases.jsonl").write_bytes(content)
    if not any(line.strip() for line in content.split(b"\n")):
        with pytest.raises(BadInputError, match="empty"):
            list(read_source("table", tmp_path))
    else:
        assert all(isinstance(item, Refused) for item in read_source("table", tmp_path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
field_names = st.sampled_from([*row()["case"], *row()["label"], "case", "label"])


@reused_folder
@given(st.dictionaries(field_names, json_values), st.booleans())
def test_any_row_is_a_case_or_refused(tmp_path, changes, nested):
    base = row()
    if nested:
        content = base | {"case": base["case"] | changes}
    else:
        content = base["case"] | base["label"] | changes
    (tmp_path / "cases.jsonl").write_text(json.dumps(content))
    (item,) = read_source("table", tmp_path)
    assert isinstance(item, LabelledCase | Refused)


def test_craftmd_keeps_labels_and_counts_what_is_excluded(tmp_path):
    write_craftmd(
        tmp_path,
        [
            ("c0", "A 5-month-old boy has a cough.\nWhat is the diagnosis?", "Foo fever", "rare"),
            ("c1", "A 50-year-old woman, aged by gout, aches.", "Gout", "nonrare"),
            ("c2", "A 60-year-old woman aches.", "Osteoarthritis", "nonrare"),
            ("c3", "A man aches.", "Figure B", "excluded"),
            ("c4", " What is the most likely diagnosis?", "Gout", "nonrare"),
        ],
    )
    rare, named, common, excluded, empty = read_source("craftmd", tmp_path)
    assert rare.case.history_of_present_illness == "A 5-month-old boy has a cough."
    assert (rare.case.age_years, rare.case.sex) == (pytest.approx(5 / 12), "male")
    assert rare.label.disease_id == rare.label.orpha_code == "ORPHA:100"
    assert rare.label.orphanet_head == "Rare bone disease"
    assert named.kind == "diagnosis_in_text"
    assert common.label.disease_id == "NAME:osteoarthritis"
    assert (excluded.kind, excluded.reason) == ("excluded", "not a known disease name")
    assert (empty.kind, empty.reason) == ("invalid", "no text")


@pytest.mark.parametrize(
    ("vignette", "left"),
    [
        ("He coughs. Which of the following is it?", "He coughs."),
        ('He coughs. Which is it?"', "He coughs."),
        ("Sodium 139 mEq/L\nWhich of the following is it?", "Sodium 139 mEq/L"),
        ("He coughs. Is it A? Or is it B?", "He coughs."),
        ('He asks "why me?" and leaves.', 'He asks "why me?" and leaves.'),
    ],
)
def test_the_exam_question_is_cut(vignette, left):
    assert without_question(vignette) == left


def test_craftmd_without_a_column_says_which(tmp_path):
    write_craftmd(tmp_path, [("c0", "A man aches.", "Gout", "nonrare")])
    (tmp_path / "labels.csv").write_text("case_id,diagnosis\nc0,Gout\n")
    with pytest.raises(BadInputError, match=r"labels.csv has no column label"):
        list(read_source("craftmd", tmp_path))


def test_craftmd_with_two_labels_for_a_case_refuses_it(tmp_path):
    write_craftmd(
        tmp_path,
        [("c0", "A man aches.", "Gout", "nonrare"), ("c1", "He coughs.", "Flu", "nonrare")],
    )
    labels = tmp_path / "labels.csv"
    again = "c0,Gout,excluded,,,not sure\nc1,Flu,nonrare,,,a reason\n"
    labels.write_text(labels.read_text() + again)
    refused, kept = read_source("craftmd", tmp_path)
    assert refused.reason == "several labels in labels.csv"
    assert kept.case.case_id == "c1"


def test_craftmd_cut_inside_a_vignette_keeps_those_before_it(tmp_path):
    write_craftmd(tmp_path, [(f"c{n}", 'A "big" man aches.', "Gout", "nonrare") for n in range(3)])
    path = tmp_path / "usmle_and_derm_dataset.csv"
    path.write_bytes(path.read_bytes()[:-30])
    first, second, lost = read_source("craftmd", tmp_path)
    assert [item.case.case_id for item in (first, second)] == ["c0", "c1"]
    assert (lost.file, lost.row) == ("usmle_and_derm_dataset.csv", 4)
    assert "this line is lost" in lost.reason


def test_craftmd_with_a_damaged_label_loses_its_vignette_alone(tmp_path):
    write_craftmd(tmp_path, [(f"c{n}", "A man aches.", "Gout", "nonrare") for n in range(3)])
    path = tmp_path / "labels.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("c1,", '"c1,')
    path.write_text("\n".join(lines))
    lost, first, unlabelled, last = read_source("craftmd", tmp_path)
    assert (lost.file, lost.row) == ("labels.csv", 3)
    assert unlabelled.reason == "no label in labels.csv"
    assert [item.case.case_id for item in (first, last)] == ["c0", "c2"]


def test_craftmd_case_without_label_is_refused(tmp_path):
    write_craftmd(tmp_path, [("c0", "A man aches.", "Gout", "nonrare")])
    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text().replace("c0", "c9"))
    (refused,) = read_source("craftmd", tmp_path)
    assert refused.reason == "no label in labels.csv"


@reused_folder
@given(
    content=st.binary(max_size=300), target=st.sampled_from(["labels", "usmle_and_derm_dataset"])
)
def test_garbage_csv_is_one_sentence_or_refused_rows(tmp_path, content, target):
    write_craftmd(tmp_path, [("c0", "A man aches.", "Gout", "nonrare")])
    path = tmp_path / f"{target}.csv"
    path.write_bytes(path.read_bytes()[:120] + content)
    with contextlib.suppress(BadInputError):
        items = list(read_source("craftmd", tmp_path))
        assert all(isinstance(item, LabelledCase | Refused) for item in items)


@pytest.fixture
def medrbench(tmp_path):
    write_orphanet(
        tmp_path / "orphanet", {"1": "Foo fever", "2": "Adult Foo fever", "3": "Bar ataxia"}
    )
    return tmp_path / "medrbench"


def test_medrbench_reads_the_visit_and_nothing_after_it(medrbench):
    write_medrbench(medrbench, {"P1": report(summary(), "Foo fever, adult.", ["Foo fever"])})
    (item,) = read_source("medrbench", medrbench)
    assert item.case.case_id == "P1"
    assert (item.case.age_years, item.case.sex) == (36, "male")
    assert item.case.history_of_present_illness == (
        "36-year-old Saudi male. Dry cough, worse at night."
    )
    assert item.case.past_medical_history is None
    assert item.case.family_history == "None significant."
    assert item.case.social_history == "Smoker."
    assert (item.label.label, item.label.orpha_code) == ("rare", "ORPHA:1")
    dumped = item.model_dump_json()
    assert "SECRET" not in dumped
    assert "granuloma" not in dumped


def test_medrbench_reports_that_share_a_name_are_one_disease(medrbench):
    reports = {
        "P1": report(summary(), "Foo fever.", ["Foo fever"]),
        "P2": report(summary(), "Foo fever in an adult.", ["Adult Foo fever", "Foo fever"]),
        "P3": report(summary(), "Adult Foo fever.", ["Adult Foo fever"]),
        "P4": report(summary(), "Bar ataxia.", ["Bar ataxia"]),
        "P5": report(summary(), "Baz (severe) with shock.", []),
    }
    write_medrbench(medrbench, reports)
    labels = [item.label for item in read_source("medrbench", medrbench)]
    assert len({label.disease_id for label in labels[:3]}) == 1
    assert [label.orpha_code for label in labels[:4]] == [
        "ORPHA:1", "ORPHA:2", "ORPHA:2", "ORPHA:3",
    ]  # fmt: skip
    assert labels[4].disease_id == "NAME:baz"


@pytest.mark.parametrize(
    ("content", "field", "kind"),
    [
        (report(summary(Chief_Complaint="Foo fever?"), "Foo fever", ["Foo fever"]),
         "case_summary", "diagnosis_in_text"),
        (report(summary(Patient_Information="4-year-old spayed cat."), "Baz", []),
         "case_summary", "out_of_scope"),
        (report(summary(Patient_Information="- Case 1: a man\n  - Case 2: a boy"), "Baz", []),
         "case_summary", "out_of_scope"),
        (report(summary(), "Baz", ["Unheard-of disease"]), "checked_rare_disease", "invalid"),
        (report("", "Baz", []), "case_summary", "invalid"),
        (report("- **Ancillary Tests:** MRI", "Baz", []), "case", "invalid"),
        (report(summary(), " ", []), "diagnosis_results", "invalid"),
        ({"generate_case": []}, "generate_case", "invalid"),
        (None, "generate_case", "invalid"),
    ],
)  # fmt: skip
def test_medrbench_refuses_with_the_reason(medrbench, content, field, kind):
    write_medrbench(medrbench, {"P1": content, "P2": report(summary(), "Baz", [])})
    refused, kept = read_source("medrbench", medrbench)
    assert (refused.field, refused.kind, refused.row) == (field, kind, 1)
    assert kept.case.case_id == "P2"


def test_medrbench_without_orphanet_says_what_to_import(medrbench):
    write_medrbench(medrbench, {"P1": report(summary(), "Baz", [])})
    (medrbench.parent / "orphanet" / "linearisation_of_rare_diseases.csv.gz").unlink()
    with pytest.raises(BadInputError, match="rarealert data import orphanet PATH"):
        list(read_source("medrbench", medrbench))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw[:-20], "truncated"),
        (lambda raw: b"", "truncated|empty"),
        (lambda raw: gzip.decompress(raw), "truncated or no gzip"),
        (lambda raw: gzip.compress(b""), "empty"),
        (lambda raw: gzip.compress(b"\xff\xfe{}"), "not UTF-8"),
        (lambda raw: gzip.compress(b"{"), "not valid JSON"),
        (lambda raw: gzip.compress(b"[]"), "not an object of reports"),
    ],
)
def test_a_damaged_archive_is_one_clear_sentence(medrbench, damage, sentence):
    write_medrbench(medrbench, {"P1": report(summary(), "Baz", [])})
    (path,) = medrbench.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInputError, match=sentence):
        list(read_source("medrbench", medrbench))


@reused_folder
@given(reports=st.dictionaries(st.text(max_size=5), json_values, min_size=1, max_size=4))
def test_any_json_gives_cases_or_refusals(tmp_path, reports):
    write_orphanet(tmp_path / "orphanet", {"1": "Foo fever"})
    write_medrbench(tmp_path / "medrbench", reports)
    items = list(read_source("medrbench", tmp_path / "medrbench"))
    assert len(items) == len(reports)
    assert all(isinstance(item, Refused) for item in items)
