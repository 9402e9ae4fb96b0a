"""Coded findings that are written as words are read back with the state they were coded with."""

from hypothesis import given
from hypothesis import strategies as st

from rarealert.knowledge.hpo import load_ontology
from rarealert.sources.observable import describe_findings, shows_at_a_visit
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

_TERMS = sorted(
    term
    for term in load_ontology().terms
    if load_ontology().is_phenotype(term) and shows_at_a_visit(term)
)


@given(st.lists(st.sampled_from(_TERMS), min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_an_excluded_finding_is_never_read_as_present(terms: list[str], split: int) -> None:
    present, excluded = terms[:split], terms[split:]
    text = describe_findings(present, excluded) or ""
    reading = read_visit(Case(case_id="v", source="s", history_of_present_illness=text))
    absent = text.find("Absent: ") if excluded else len(text)
    assert all(
        finding.state == "excluded" for finding in reading.findings if finding.span.start >= absent
    )
