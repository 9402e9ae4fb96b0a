"""A visit as a record holds it, and its label: two steps, so that screening can take the first."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rarealert.knowledge.labels import NOT_RARE, Labeller, Verdict, load_labeller
from rarealert.sources.orphanet import LINEARISATION
from rarealert.visits.case import Case
from rarealert.visits.diagnosis import core_name, disease_key, names_diagnosis
from rarealert.visits.reading import render
from rarealert.visits.refused import Place, Read, Refused, build_label

_SERIES = re.compile(r",?\s+(?:type\s+)?\d+[A-Za-z]?$")
_CODE = re.compile(r"\b(OMIM|ICD-10-CM) \S+")


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


class VisitLabeller:
    """Labels visits by their diagnoses, with what is known beside a folder of ``data/``."""

    def __init__(self, folder: Path) -> None:
        """Orphanet's tables in ``orphanet`` beside ``folder`` are used where they lie there.

        Else what the installed packages know. Nothing is read before the first visit is labelled.
        """
        self._tables = folder.parent / "orphanet"

    @cached_property
    def _labeller(self) -> Labeller:
        there = (self._tables / LINEARISATION).is_file()
        return load_labeller(self._tables if there else None)

    def label(self, visit: Visit) -> Read:
        """The labelled case of ``visit``, or why it has no label.

        Raises:
            BadInputError: Orphanet's tables are there but are not Orphadata's.
        """
        return label_visit(visit, self._labeller)

    def label_all(self, visits: Iterable[Visit | Refused]) -> Iterator[Read]:
        """Every visit with its label, or refused."""
        for visit in visits:
            yield visit if isinstance(visit, Refused) else self.label(visit)


def label_visit(visit: Visit, labeller: Labeller) -> Read:
    """The case of ``visit`` labelled by its diagnoses.

    Rare if any diagnosis, made then or later, is rare: a rare disease is seldom named at the first
    visit. Excluded if one is a code of several rare diseases, for nobody can say which it is. Else
    non-rare by a diagnosis of the visit itself, for a later one may be another illness. Else
    excluded, for the reason of the first diagnosis.
    """
    if not visit.diagnoses:
        return visit.place.refuse("diagnosis", "the record gives no diagnosis", "unlabelled")
    verdicts = [(diagnosis, _verdict(diagnosis, labeller)) for diagnosis in visit.diagnoses]
    for diagnosis, verdict in verdicts:
        if verdict.label == "rare":
            return _labelled(visit, diagnosis, verdict)
    for _, verdict in verdicts:
        if verdict.among:
            return _excluded(visit.place, verdict.reason)
    for diagnosis, verdict in verdicts:
        if verdict.label == "nonrare" and diagnosis.at_visit:
            return _labelled(visit, diagnosis, verdict)
    first = verdicts[0][1]
    later = "only a common disease, and not of this visit"
    return _excluded(visit.place, later if first.label == "nonrare" else first.reason)


def _excluded(place: Place, reason: str) -> Refused:
    # a reason for each code would make as many rows in every count
    return place.refuse("diagnosis", _CODE.sub(r"this \1 code", reason), "excluded")


def _verdict(diagnosis: Diagnosis, labeller: Labeller) -> Verdict:
    """What the codes say, else the name, else its core.

    Of a code that covers several rare diseases the name says which one it is. A disease that is
    only named within a longer text counts for nothing: "family history of Marfan syndrome" names
    one that the patient has not.
    """
    said = [labeller.label(text) for text in (*diagnosis.codes, *_names(diagnosis))]
    sure = [verdict for verdict in said if verdict.by in ("code", "name")]
    told = [verdict for verdict in sure if verdict.label != "excluded"]
    if several := [verdict for verdict in sure if verdict.among]:
        among = frozenset[str]().union(*(verdict.among for verdict in several))
        one = (v for v in told if v.disorder and (v.by == "code" or v.disorder.orpha_code in among))
        return next(one, several[0])
    if _is_mendelian(diagnosis):
        # that Orphanet lacks an entry of OMIM doesn't make it common
        unlisted = Verdict("excluded", "a Mendelian disorder that Orphanet does not list", "code")
        rare = (verdict for verdict in told if verdict.label == "rare")
        common = (verdict for verdict in sure if verdict.reason == NOT_RARE)
        return (*rare, *common, unlisted)[0]
    unknown = Verdict("excluded", "not the name of a known disease", "nothing")
    return (*told, *sure, unknown)[0]


def _is_mendelian(diagnosis: Diagnosis) -> bool:
    return any(code.startswith("OMIM:") for code in diagnosis.codes)


def _names(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The name, and the name without complications, or for OMIM without its place in a series.

    OMIM writes "Lipodystrophy, familial partial": what stands after the comma is no complication.
    """
    name = diagnosis.name
    if name is None:
        return ()
    return (name, _SERIES.sub("", name) if _is_mendelian(diagnosis) else core_name(name))


def _labelled(visit: Visit, diagnosis: Diagnosis, verdict: Verdict) -> Read:
    disorder = verdict.disorder
    named = diagnosis.name or (disorder.name if disorder else verdict.name)
    said = named or diagnosis.codes[0]
    # a code has no complications to cut off: all of ICD10CM would become one disease
    key, name = (disease_key(said), core_name(said)) if named else (f"NAME:{said.casefold()}", said)
    label: dict[str, object] = {
        "label": verdict.label,
        "disease_id": disorder.orpha_code if disorder else key,
        "disease_name": disorder.name if disorder else name,
        "orpha_code": disorder.orpha_code if disorder else None,
        "orphanet_head": disorder.head if disorder else None,
        "reason": f"recorded diagnosis: {verdict.reason} (by {verdict.by})",
    }
    spoken = said.replace(",", " ") if _is_mendelian(diagnosis) else said
    return without_diagnosis(visit.place, build_label(visit.place, visit.case, label), spoken)


def without_diagnosis(place: Place, read: Read, *also_called: str) -> Read:
    """``read``, refused if its visit names the diagnosis, be it by one of ``also_called``."""
    if isinstance(read, Refused):
        return read
    names = [name for name in (read.label.disease_name, *also_called) if name]
    if names_diagnosis(render(read.case), names):
        return place.refuse("case", "the diagnosis stands in the text", "diagnosis_in_text")
    return read
