import pytest
from published_files import summary

from rarealert.sources.medrbench import is_unsaid, visit_sections


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


def test_a_nested_test_loses_its_own_lines_only():
    text = (
        "- **Physical Examination:**\n  - Chest: clear\n  - MRI: LEAK\n    - LEAK too\n"
        "  - Abdomen: soft\n- **Family History:** A sister coughs."
    )
    sections = visit_sections(text)
    assert sections["physical_examination"] == "Chest: clear Abdomen: soft"
    assert sections["family_history"] == "A sister coughs."


def test_plain_and_bold_headings_read_alike():
    bold = visit_sections("- **Chief Complaint:** Cough.\n- **Personal History:** Smoker.")
    assert bold == visit_sections("- Chief Complaint: Cough.\n- Personal History: Smoker.")
    assert bold == {"chief_complaint": "Cough.", "social_history": "Smoker."}


def test_a_qualified_heading_is_known():
    text = "- **Physical Examination at Admission:** Pale."
    assert visit_sections(text) == {"physical_examination": "Pale."}


@pytest.mark.parametrize(
    "text",
    [
        "None.",
        "None reported",
        "Not mentioned.",
        'If none, write "None."',
        "None detailed in the report.",
    ],
)
def test_a_bare_none_is_absent(text):
    assert is_unsaid(text)


@pytest.mark.parametrize(
    "text",
    ["None significant.", "Unremarkable.", "No previous illness.", "None, but smokes.", "Normal."],
)
def test_a_negative_finding_is_information(text):
    assert not is_unsaid(text)
