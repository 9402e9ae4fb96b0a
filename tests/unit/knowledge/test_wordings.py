"""The packaged wordings mean what HPO means by their terms, and nothing else."""

import pytest

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import Ontology, load_ontology
from rarealert.knowledge.names import name_words
from rarealert.knowledge.recognise import Recogniser, load_recogniser


@pytest.fixture(scope="module")
def ontology() -> Ontology:
    return load_ontology()


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return packaged_rows("wordings")


def test_ids_are_living_and_names_are_theirs(
    ontology: Ontology, rows: list[dict[str, str]]
) -> None:
    named = {term.id: term.name for term in ontology.terms.values()}
    assert [row for row in rows if named.get(row["hpo_id"]) != row["hpo_name"]] == []


def test_a_wording_is_written_once(rows: list[dict[str, str]]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    twice = []
    for row in rows:
        words = name_words(row["wording"])
        if words in seen:
            twice.append((row["wording"], seen[words]))
        seen[words] = row["wording"]
    assert twice == []


def test_a_name_of_hpo_keeps_its_meaning(ontology: Ontology, rows: list[dict[str, str]]) -> None:
    meanings: dict[tuple[str, ...], set[str]] = {}
    for term in ontology.terms.values():
        if ontology.is_phenotype(term.id):
            for text in (term.name, *(each.text for each in term.synonyms)):
                meanings.setdefault(name_words(text), set()).add(term.id)
    overridden = [
        (row["wording"], row["hpo_name"])
        for row in rows
        if row["hpo_id"] not in meanings.get(name_words(row["wording"]), {row["hpo_id"]})
    ]
    assert overridden == []


def test_a_wording_alone_is_read_as_its_term(
    recogniser: Recogniser, rows: list[dict[str, str]]
) -> None:
    unread = [
        (row["wording"], row["hpo_name"])
        for row in rows
        if row["hpo_id"] not in recogniser.affirmed(f"Complains of {row['wording']}.")
    ]
    assert unread == []


def test_no_counterexample_is_read_as_the_finding(
    ontology: Ontology, recogniser: Recogniser
) -> None:
    misread = [
        row
        for row in packaged_rows("wording_counterexamples.tsv")
        if any(
            row["not_hpo_id"] in ontology.ancestors(each)
            for each in recogniser.affirmed(row["text"])
        )
    ]
    assert misread == []
