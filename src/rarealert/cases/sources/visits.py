"""A visit as a record holds it, and its label: two steps, so that screening can take the first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rarealert.cases.case import Case
from rarealert.cases.render import render
from rarealert.cases.sources.diagnosis import core_name, disease_key, names_diagnosis
from rarealert.cases.sources.orphanet import LINEARISATION
from rarealert.cases.sources.refused import Place, Read, Refused, build_label
from rarealert.knowledge.orphanet import Disorder, OrphanetIndex, load_index, looks_common


@dataclass(frozen=True)
class Diagnosis:
    """What a record says the patient has: a name, codes such as ``OMIM:154700``, or both.

    ``at_visit`` is false for a diagnosis made after the first visit.
    """

    name: str | None
    codes: tuple[str, ...] = ()
    at_visit: bool = True


@dataclass(frozen=True)
class Visit:
    """A first visit with the diagnoses of its record, the earliest first; they are no part of it.

    ``place`` says where it stands in the source.
    """

    place: Place
    case: Case
    diagnoses: tuple[Diagnosis, ...] = ()


class Labeller:
    """Labels visits by their diagnoses, with what is known beside a folder of ``data/``."""

    def __init__(self, folder: Path) -> None:
        """Orphanet's tables in ``orphanet`` beside ``folder`` are used where they lie there.

        Else what the installed packages know. Nothing is read before the first visit is labelled.
        """
        self._tables = folder.parent / "orphanet"

    @cached_property
    def _index(self) -> OrphanetIndex:
        there = (self._tables / LINEARISATION).is_file()
        return load_index(self._tables if there else None)

    def label(self, visit: Visit) -> Read:
        """The labelled case of ``visit``, or why it has no label.

        Raises:
            BadInputError: Orphanet's tables are there but are not Orphadata's.
        """
        return label_visit(visit, self._index)

    def label_all(self, visits: Iterable[Visit | Refused]) -> Iterator[Read]:
        """Every visit with its label, or refused."""
        for visit in visits:
            yield visit if isinstance(visit, Refused) else self.label(visit)


def label_visit(visit: Visit, index: OrphanetIndex) -> Read:
    """The case of ``visit`` labelled by its diagnoses.

    Rare if any diagnosis, made then or later, is a rare Orphanet disorder: a rare disease is
    seldom named at the first visit. Else non-rare by a known common diagnosis of the visit
    itself, for a later one may be another illness. Else excluded.
    """
    if not visit.diagnoses:
        return visit.place.refuse("diagnosis", "the record gives no diagnosis", "unlabelled")
    for diagnosis in visit.diagnoses:
        disorder = _disorder(diagnosis, index)
        if disorder is not None and not disorder.common:
            return _labelled(visit, diagnosis, disorder)
    for diagnosis in visit.diagnoses:
        if diagnosis.at_visit and _is_common(diagnosis, index):
            return _labelled(visit, diagnosis, None)
    reason = "neither an active Orphanet disorder nor a disease known to be common"
    return visit.place.refuse("diagnosis", reason, "excluded")


def _disorder(diagnosis: Diagnosis, index: OrphanetIndex) -> Disorder | None:
    for code in diagnosis.codes:
        if found := index.by_code.get(code):
            return found
    return index.resolve(diagnosis.name) if diagnosis.name else None


def _is_common(diagnosis: Diagnosis, index: OrphanetIndex) -> bool:
    disorder = _disorder(diagnosis, index)
    common = disorder.common if disorder else looks_common(diagnosis.name or "")
    return common and diagnosis.name is not None


def _labelled(visit: Visit, diagnosis: Diagnosis, disorder: Disorder | None) -> Read:
    said = diagnosis.name or (disorder.name if disorder else "")
    label: dict[str, object] = {
        "label": "nonrare",
        "disease_id": disease_key(said),
        "disease_name": core_name(said),
        "reason": "the recorded diagnosis is a common disease",
    }
    if disorder is not None:
        label = {
            "label": "rare",
            "disease_id": disorder.orpha_code,
            "disease_name": disorder.name,
            "orpha_code": disorder.orpha_code,
            "orphanet_head": disorder.head,
            "reason": "the recorded diagnosis is an active Orphanet disorder",
        }
    return without_diagnosis(visit.place, build_label(visit.place, visit.case, label), said)


def without_diagnosis(place: Place, read: Read, *also_called: str) -> Read:
    """``read``, refused if its visit names the diagnosis, be it by one of ``also_called``."""
    if isinstance(read, Refused):
        return read
    names = [name for name in (read.label.disease_name, *also_called) if name]
    if names_diagnosis(render(read.case), names):
        return place.refuse("case", "the diagnosis stands in the text", "diagnosis_in_text")
    return read
