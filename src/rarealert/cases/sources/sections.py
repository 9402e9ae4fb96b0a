"""The sections of a MedR-Bench case summary, up to where the tests begin."""

import re

FIELDS = {
    "patient information": "patient_information",
    "chief complaint": "chief_complaint",
    "history of present illness": "history_of_present_illness",
    "past medical history": "past_medical_history",
    "personal history": "social_history",
    "social history": "social_history",
    "family history": "family_history",
    "physical examination": "physical_examination",
    "vital signs": "vitals",
    "vitals": "vitals",
}
_HEADING = re.compile(
    r"^(?P<indent>\s*)(?:(?P<bullet>[-*•#]+)\s+|\d+\.\s+)?\**\s*"
    r"(?P<name>[A-Z][^:*\n]{1,60}?)\s*\**\s*(?::|\*\*\s*$)\s*\**\s*(?P<rest>.*)$"
)
_AFTER_THE_VISIT = re.compile(
    r"\b(?:ancillary|auxiliary|paraclinical|investigations?|laborator(?:y|ies)|labs?|blood ?(?:work"
    r"|tests?)|urinalysis|imaging|radiolog\w*|radiograph\w*|x-?rays?|ct|cect|mri|mra|pet|pet-ct|"
    r"ultrasound|ultrasonograph\w*|sonograph\w*|echocardiogra\w*|ecg|ekg|eeg|emg|endoscop\w*|"
    r"colonoscop\w*|gastroscop\w*|bronchoscop\w*|laparoscop\w*|biops\w*|histolog\w*|"
    r"histopatholog\w*|patholog\w*|immunohistochemi\w*|cytolog\w*|fnac?|genetic\w*|sequencing|"
    r"diagnos\w*|differential|treatment|management|intervention|surger\w*|operati\w*|"
    r"intraoperative|postoperative|post-surgery|outcomes?|follow-?ups?|tests?)\b",
    re.I,
)
_UNSAID = re.compile(
    r"(?:if none, write \W*)?(?:none|not|n/?a|no (?:details?|information|data))"
    r"(?: (?:explicitly|specifically|otherwise|further))?"
    r"(?: (?:is |was |were )?(?:reported|provided|mentioned|stated|documented|specified|noted|"
    r"available|detailed|given|described|recorded|applicable|disclosed|known))?"
    r"(?: in the (?:case |provided )?(?:report|summary|text))?",
    re.I,
)
_MARKUP = re.compile(r"\*\*|__|^\s*[-*•]\s+", re.M)


def visit_sections(summary: str) -> dict[str, str]:
    """Text by field of the case, plus ``patient_information``; unsaid sections are left out.

    Reading ends at the first top-level heading of anything that comes after the first visit
    (``Ancillary Tests`` and its like); a nested heading of a test loses its own lines only. A
    heading that is not known belongs to the section it stands in.
    """
    kept: dict[str, list[str]] = {}
    field = ""
    skipped_from: int | None = None
    for line in summary.splitlines():
        match = _HEADING.match(line)
        depth = len(line) - len(line.lstrip())
        if skipped_from is not None and (not line.strip() or depth > skipped_from):
            continue
        skipped_from = None
        name = match.group("name").strip().lower() if match else ""
        if match and name not in FIELDS and _AFTER_THE_VISIT.search(name):
            if depth == 0 and match.group("bullet") != "•":
                break
            skipped_from = depth
            continue
        known = _known(name) if match and depth == 0 else None
        field = known or field
        text = match.group("rest") if match and known else line
        kept.setdefault(field, []).append(text)
    return _said({name: "\n".join(lines) for name, lines in kept.items() if name})


def _known(name: str) -> str | None:
    """The field of a heading such as "Physical Examination at Admission"."""
    return next((field for heading, field in FIELDS.items() if name.startswith(heading)), None)


def _said(sections: dict[str, str]) -> dict[str, str]:
    plain = {name: " ".join(_MARKUP.sub("", text).split()) for name, text in sections.items()}
    return {name: text for name, text in plain.items() if not is_unsaid(text)}


def is_unsaid(text: str) -> bool:
    """Whether a section says only that nothing was said.

    The summaries were written by a language model told to write "None." where a report has
    nothing (the instruction itself stands in some of them), so a bare "None" does not tell a
    healthy past from an unmentioned one and counts as absent. "Unremarkable", "None significant"
    or "No previous illness" are findings and stay.
    """
    return _UNSAID.fullmatch(text.strip(" .;,-\"'*")) is not None
