"""HPO as installed, and hostile OBO texts."""

import pytest

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology, parse_obo

SEIZURE, NERVOUS_SYSTEM = "HP:0001250", "HP:0000707"


def test_a_known_term_has_its_name_synonyms_and_place() -> None:
    ontology = load_ontology()
    term = ontology.terms[SEIZURE]
    assert term.name == "Seizure"
    assert any(s.text == "Seizures" and s.scope == "EXACT" for s in term.synonyms)
    assert any(s.text == "Epilepsy" and s.layperson for s in term.synonyms)
    assert {SEIZURE, NERVOUS_SYSTEM, "HP:0000118", "HP:0000001"} <= ontology.ancestors(SEIZURE)
    assert ontology.organ_system(SEIZURE) == NERVOUS_SYSTEM
    assert ontology.version == "2025-01-16"


def test_alternative_and_obsolete_ids_lead_to_living_terms() -> None:
    ontology = load_ontology()
    assert ontology.resolve("HP:0001275") == SEIZURE
    assert ontology.name("HP:0001275") == "Seizure"
    assert all(new in ontology.terms for new in ontology.aliases.values())
    assert not set(ontology.aliases) & set(ontology.terms)
    assert ontology.resolve("HP:9999999") is None


def test_parents_and_children_mirror_each_other() -> None:
    ontology = load_ontology()
    for term in list(ontology.terms.values())[::97]:
        for parent in term.parents:
            assert term.id in ontology.children(parent)
            assert ontology.ancestors(parent) < ontology.ancestors(term.id)


def test_the_nearest_branch_is_the_organ_system() -> None:
    text = (
        "data-version: hp/releases/2030-01-01\n"
        "\n[Term]\nid: HP:0000118\nname: Phenotypic abnormality\n"
        "\n[Term]\nid: HP:0000010\nname: Near\nis_a: HP:0000118\n"
        "\n[Term]\nid: HP:0000009\nname: Far\nis_a: HP:0000118\n"
        "\n[Term]\nid: HP:0000008\nname: Middle\nis_a: HP:0000009 ! Far\n"
        "\n[Term]\nid: HP:0000007\nname: Leaf\nis_a: HP:0000008 ! Middle\nis_a: HP:0000010\n"
    )
    ontology = parse_obo(text)
    assert ontology.organ_system("HP:0000007") == "HP:0000010"
    assert ontology.organ_systems("HP:0000007") == {"HP:0000010", "HP:0000009"}
    assert ontology.organ_system("HP:0000118") is None
    assert ontology.version == "2030-01-01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data-version: x\n",
        "data-version: x\n\n[Term]\nid: HP:1\n",
        "\n[Term]\nid: HP:1\nname: a",
    ],
)
def test_a_broken_file_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match=r"hp\.obo"):
        parse_obo(text)
