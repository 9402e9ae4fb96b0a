"""Orphanet's names and HPO's as readers of what a language model wrote."""

from functools import lru_cache
from pathlib import Path

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import name_words
from rarealert.knowledge.orphanet import Disorder, load_index, looks_common, without_brackets
from rarealert.knowledge.profiles import load_rare_profiles
from rarealert.knowledge.recognise import Recogniser, load_recogniser
from rarealert.teachers.recorded_medrbench import Readers

_MIN_CHARACTERS = 6  # shorter single words are abbreviations with many meanings


@lru_cache(maxsize=1)
def load_readers(data: Path) -> Readers:
    """Readers over Orphanet's names and the packaged HPO, built once a process.

    Orphadata's tables in ``data/orphanet`` are used where they lie there, else the installed
    names. A disorder above Europe's bound for rarity is no rare disease, so it is never found.

    Raises:
        BadInputError: Orphadata's tables are there but not as published.
    """
    tables = data / "orphanet"
    index = load_index(tables if tables.is_dir() else None)
    rare = {code: found for code, found in index.by_code.items() if not found.common}
    names = {profile.name: profile.disease_id for profile in load_rare_profiles()}
    names |= {found.name: code for code, found in rare.items()}
    phrases = {
        words: code
        for name, code in names.items()
        if code in rare and len(" ".join(words := name_words(name))) >= _MIN_CHARACTERS
    }
    disorders, findings, ontology = Recogniser(phrases), load_recogniser(), load_ontology()

    def resolve(name: str) -> Disorder | None:
        if looks_common(without_brackets(name)):
            return None
        found = index.resolve(name)
        return None if found is None or found.common else found

    def disorders_in(text: str) -> list[Disorder]:
        codes = dict.fromkeys(mention.hpo_id for mention in disorders.mentions(text))
        return [rare[code] for code in codes]

    def findings_in(text: str) -> list[str]:
        told = (mention.hpo_id for mention in findings.mentions(text) if not mention.negated)
        return [ontology.name(hpo_id) for hpo_id in dict.fromkeys(told)]

    return Readers(resolve, disorders_in, findings_in)
