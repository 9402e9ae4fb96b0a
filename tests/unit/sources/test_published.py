"""CRAFT-MD and MedR-Bench: which part of a published record is the first visit, and its label."""

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_files import (
    VIGNETTES,
    report,
    summary,
    write_craftmd,
    write_medrbench,
    write_orphanet,
)

from rarealert.errors import BadInputError
from rarealert.sources.craftmd import without_question
from rarealert.sources.importing import read_source
from rarealert.sources.medrbench import is_uninformative, visit_sections
from rarealert.visits.refused import Refused

reused_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


def test_craftmd_keeps_labels_and_refuses_what_has_none(tmp_path):
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
    assert (empty.kind, empty.field) == ("invalid", "case_vignette")


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


@pytest.mark.parametrize(
    ("damage", "kept", "refused"),
    [
        (lambda text: text + "c0,Gout,excluded,,,not sure\nc1,Gout,nonrare,,,a reason\n",
         ["c1", "c2"], [(VIGNETTES, 2)]),
        (lambda text: text.replace("c0,", "c9,"), ["c1", "c2"],
         [(VIGNETTES, 2)]),
        (lambda text: text.replace("c1,", '"c1,'), ["c0", "c2"],
         [("labels.csv", 3), (VIGNETTES, 3)]),
    ],
    ids=["two labels", "no label", "damaged label"],
)  # fmt: skip
def test_a_vignette_without_one_sure_label_is_refused(tmp_path, damage, kept, refused):
    write_craftmd(tmp_path, [(f"c{n}", "A man aches.", "Gout", "nonrare") for n in range(3)])
    labels = tmp_path / "labels.csv"
    labels.write_text(damage(labels.read_text()))
    found = list(read_source("craftmd", tmp_path))
    assert [item.case.case_id for item in found if not isinstance(item, Refused)] == kept
    assert [(item.file, item.row) for item in found if isinstance(item, Refused)] == refused


def test_craftmd_without_a_column_names_it(tmp_path):
    write_craftmd(tmp_path, [("c0", "A man aches.", "Gout", "nonrare")])
    (tmp_path / "labels.csv").write_text("case_id,diagnosis\nc0,Gout\n")
    with pytest.raises(BadInputError, match=r"labels\.csv has no column label"):
        list(read_source("craftmd", tmp_path))


@pytest.fixture
def medrbench(tmp_path):
    write_orphanet(
        tmp_path / "orphanet", {"1": "Foo fever", "2": "Adult Foo fever", "3": "Bar ataxia"}
    )
    return tmp_path / "medrbench"


def test_medrbench_reads_the_visit_and_nothing_after_it(medrbench):
    write_medrbench(medrbench, {"P1": report(summary(), "Foo fever, adult.", ["Foo fever"])})
    (item,) = read_source("medrbench", medrbench)
    assert (item.case.case_id, item.case.age_years, item.case.sex) == ("P1", 36, "male")
    assert item.case.history_of_present_illness == (
        "36-year-old Saudi male. Dry cough, worse at night."
    )
    assert item.case.past_medical_history is None
    assert item.case.family_history == "None significant."
    assert item.case.social_history == "Smoker."
    assert (item.label.label, item.label.orpha_code) == ("rare", "ORPHA:1")
    assert "SECRET" not in item.model_dump_json()
    assert "granuloma" not in item.model_dump_json()


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
    codes = [label.orpha_code for label in labels]
    assert codes == ["ORPHA:1", "ORPHA:2", "ORPHA:2", "ORPHA:3", None]
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


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[:-20], "truncated"),
        (lambda raw: raw[:-6] + bytes([raw[-6] ^ 1]) + raw[-5:], "truncated"),
        (lambda raw: b"", "truncated|empty"),
        (lambda raw: gzip.decompress(raw), "no gzip"),
        (lambda raw: gzip.compress(b""), "empty"),
        (lambda raw: gzip.compress(b"\xff\xfe{}"), "not UTF-8"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "not valid JSON"),
        (lambda raw: gzip.compress(b"[]"), "not an object of reports"),
    ],
)
def test_a_damaged_archive_of_reports_is_one_sentence(medrbench, damage, reason):
    write_medrbench(medrbench, {"P1": report(summary(), "Baz", [])})
    (path,) = medrbench.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInputError, match=reason) as caught:
        list(read_source("medrbench", medrbench))
    assert path.name in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@reused_folder
@given(reports=st.dictionaries(st.text(max_size=5), json_values, min_size=1, max_size=4))
def test_any_report_is_a_case_or_refused(medrbench, reports):
    write_medrbench(medrbench, reports)
    items = list(read_source("medrbench", medrbench))
    assert len(items) == len(reports)
    assert all(isinstance(item, Refused) for item in items)


def test_everything_from_the_tests_on_is_cut():
    sections = visit_sections(summary(Ancillary_Tests="\n  - **MRI:** a mass\n- Outcome: died"))
    assert sections["physical_examination"] == "Clear chest."
    assert "mass" not in str(sections)
    assert "died" not in str(sections)


@pytest.mark.parametrize(
    "heading",
    [
        "- **Ancillary Tests:**",
        "- **Ancillary Tests**:",
        "- Ancillary Investigations:",
        "**Laboratory Findings:**",
        "- Imaging:",
        "3. Diagnostic Workup:",
        "- **Histopathology:** tumor",
    ],
)
def test_every_heading_of_tests_ends_the_visit(heading):
    text = f"- **Chief Complaint:** Cough.\n{heading}\n- LEAK\n- **Family History:** LEAK"
    assert visit_sections(text) == {"chief_complaint": "Cough."}


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (
            "- **Physical Examination:**\n  - Chest: clear\n  - MRI: LEAK\n    - LEAK too\n"
            "  - Abdomen: soft\n- **Family History:** A sister coughs.",
            {
                "physical_examination": "Chest: clear Abdomen: soft",
                "family_history": "A sister coughs.",
            },
        ),
        (
            "- Chief Complaint: Cough.\n- **Personal History:** Smoker.",
            {"chief_complaint": "Cough.", "social_history": "Smoker."},
        ),
        (
            "- **Physical Examination at Admission:** Pale.",
            {"physical_examination": "Pale."},
        ),
    ],
    ids=["nested test", "plain and bold", "qualified heading"],
)
def test_sections_become_fields(text, sections):
    assert visit_sections(text) == sections


@pytest.mark.parametrize(
    ("text", "is_absent"),
    [
        ("None.", True),
        ("None reported", True),
        ("Not mentioned.", True),
        ('If none, write "None."', True),
        ("None detailed in the report.", True),
        ("None significant.", False),
        ("Unremarkable.", False),
        ("No previous illness.", False),
        ("None, but smokes.", False),
        ("Normal.", False),
    ],
)
def test_a_bare_none_is_absent_and_a_negative_finding_is_information(text, is_absent):
    assert is_uninformative(text) is is_absent
