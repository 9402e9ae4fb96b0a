"""Orphanet's names and HPO's as readers of what a language model wrote."""

from functools import lru_cache
from pathlib import Path

from rarealert.cases.sources.orphanet import load_disorders
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.recognise import Recogniser, load_recogniser
from rarealert.teachers.naming import Disorder
from rarealert.teachers.recorded_medrbench import Readers

_MIN_CHARACTERS = 4  # shorter single words are abbreviations with many meanings


@lru_cache(maxsize=1)
def load_readers(data: Path) -> Readers:
    """Readers over ``data/orphanet`` and the packaged HPO, built once a process.

    Raises:
        BadInputError: Orphanet's tables are missing or not as published.
    """
    known = {
        name: Disorder(found.code, found.name)
        for name, found in load_disorders(data / "orphanet").items()
    }
    by_code = {disorder.code: disorder for disorder in known.values()}
    phrases = {
        tuple(name.split()): disorder.code
        for name, disorder in known.items()
        if len(name) >= _MIN_CHARACTERS
    }
    disorders, findings, ontology = Recogniser(phrases), load_recogniser(), load_ontology()

    def disorders_in(text: str) -> list[Disorder]:
        codes = dict.fromkeys(mention.hpo_id for mention in disorders.mentions(text))
        return [by_code[code] for code in codes]

    def findings_in(text: str) -> list[str]:
        told = (mention.hpo_id for mention in findings.mentions(text) if not mention.negated)
        return [ontology.name(hpo_id) for hpo_id in dict.fromkeys(told)]

    return Readers(lambda name: known.get(normalise_name(name)), disorders_in, findings_in)
