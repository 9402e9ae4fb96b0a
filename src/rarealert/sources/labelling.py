"""Label a case by the diagnoses of its record."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rarealert.knowledge.labels import NOT_RARE, Labeller, Verdict, load_labeller
from rarealert.knowledge.orphanet import LINEARISATION
from rarealert.visits.case import Case, LabelledCase
from rarealert.visits.diagnosis import core_name, disease_key, names_diagnosis
from rarealert.visits.reading import render
from rarealert.visits.refused import Place, Refused, build_labelled

_CODE = re.compile(r"\b(OMIM|ICD-10-CM) \S+")


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis of a record: a name, codes such as ``OMIM:154700``, or both.

    ``at_visit`` is false for a diagnosis made after the first visit.
    """

    name: str | None
    codes: tuple[str, ...] = ()
    at_visit: bool = True


@dataclass(frozen=True)
class RecordedCase:
    """A case as its source records it, with the diagnoses of the record, the earliest first."""

    place: Place
    case: Case
    diagnoses: tuple[Diagnosis, ...] = ()


class CaseLabeller:
    """Labels the cases of a folder of ``data/``."""

    def __init__(self, folder: Path) -> None:
        """Use Orphanet's tables in ``orphanet`` beside ``folder``, else the installed packages.

        Nothing is read before the first case is labelled.
        """
        self._tables = folder.parent / "orphanet"

    @cached_property
    def _labeller(self) -> Labeller:
        is_there = (self._tables / LINEARISATION).is_file()
        return load_labeller(self._tables if is_there else None)

    def label(self, recorded: RecordedCase) -> LabelledCase | Refused:
        """Label a case by the diagnoses of its record.

        The first rule that applies decides:

        1. Rare if any diagnosis is rare, whenever it was made: a rare disease is seldom named at
           the first visit.
        2. Excluded if a code covers several rare diseases, because the case could be any of them.
        3. Nonrare by a diagnosis of the visit itself; a later one may be another illness.
        4. Excluded, for the reason of the first diagnosis.

        Raises:
            BadInputError: Orphanet's tables are damaged or not Orphadata's.
        """
        place = recorded.place
        if not recorded.diagnoses:
            return place.refuse("diagnosis", "the record gives no diagnosis", "unlabelled")
        verdicts = [
            (diagnosis, _verdict(diagnosis, self._labeller)) for diagnosis in recorded.diagnoses
        ]
        for diagnosis, verdict in verdicts:
            if verdict.disorder:
                return _labelled(recorded, diagnosis, verdict)
        for _, verdict in verdicts:
            if verdict.among:
                return _excluded(place, verdict.reason)
        for diagnosis, verdict in verdicts:
            if verdict.label == "nonrare" and diagnosis.at_visit:
                return _labelled(recorded, diagnosis, verdict)
        first = verdicts[0][1]
        later = "only a common disease, and not of this visit"
        return _excluded(place, later if first.label == "nonrare" else first.reason)

    def label_all(
        self, found: Iterable[RecordedCase | Refused]
    ) -> Iterator[LabelledCase | Refused]:
        """Label every case; rows that are refused already are passed on."""
        for item in found:
            yield item if isinstance(item, Refused) else self.label(item)


def _excluded(place: Place, reason: str) -> Refused:
    # with its code, each reason would be counted separately
    return place.refuse("diagnosis", _CODE.sub(r"this \1 code", reason), "excluded")


def _verdict(diagnosis: Diagnosis, labeller: Labeller) -> Verdict:
    """Judge by the codes, else by the name.

    Where a code covers several rare diseases, the name decides which one it is. A disease that is
    only part of a longer text does not count: "family history of Marfan syndrome" names a disease
    that the patient does not have.
    """
    verdicts = [
        labeller.label(text)
        for text in (*diagnosis.codes, *([diagnosis.name] if diagnosis.name else []))
    ]
    exact = [verdict for verdict in verdicts if verdict.by in ("code", "name")]
    decided = [verdict for verdict in exact if verdict.label != "excluded"]
    if several := [verdict for verdict in exact if verdict.among]:
        among = frozenset[str]().union(*(verdict.among for verdict in several))
        one = (
            verdict
            for verdict in decided
            if verdict.disorder and (verdict.by == "code" or verdict.disorder.orpha_code in among)
        )
        return next(one, several[0])
    if _is_mendelian(diagnosis):
        # an entry of OMIM that Orphanet does not list need not be common
        unlisted = Verdict("excluded", "a Mendelian disorder that Orphanet does not list", "code")
        rare = (verdict for verdict in decided if verdict.label == "rare")
        common = (verdict for verdict in exact if verdict.reason == NOT_RARE)
        return (*rare, *common, unlisted)[0]
    unknown = Verdict("excluded", "not the name of a known disease", "nothing")
    return (*decided, *exact, unknown)[0]


def _is_mendelian(diagnosis: Diagnosis) -> bool:
    return any(code.startswith("OMIM:") for code in diagnosis.codes)


def _labelled(
    recorded: RecordedCase, diagnosis: Diagnosis, verdict: Verdict
) -> LabelledCase | Refused:
    disorder = verdict.disorder
    name = diagnosis.name or (disorder.name if disorder else verdict.name)
    wording = name or diagnosis.codes[0]
    if name:
        key, core = disease_key(name), core_name(name)
    else:
        # core_name would cut a code to its vocabulary, and all of ICD10CM would be one disease
        key, core = f"NAME:{wording.casefold()}", wording
    label: dict[str, object] = {
        "label": verdict.label,
        "disease_id": disorder.orpha_code if disorder else key,
        "disease_name": disorder.name if disorder else core,
        "orpha_code": disorder.orpha_code if disorder else None,
        "orphanet_head": disorder.head if disorder else None,
        "reason": f"recorded diagnosis: {verdict.reason} (by {verdict.by})",
    }
    in_text = wording.replace(",", " ") if _is_mendelian(diagnosis) else wording
    labelled = build_labelled(recorded.place, recorded.case, label)
    return without_diagnosis(recorded.place, labelled, in_text)


def without_diagnosis(
    place: Place, labelled: LabelledCase | Refused, *names: str, field: str = "case"
) -> LabelledCase | Refused:
    """Refuse a case whose text names its diagnosis: the disease of the label, or one of ``names``.

    ``field`` is the field of the source that the refusal names.
    """
    if isinstance(labelled, Refused):
        return labelled
    diagnoses = [name for name in (labelled.label.disease_name, *names) if name]
    if names_diagnosis(render(labelled.case), diagnoses):
        return place.refuse(field, "the text names the diagnosis", "diagnosis_in_text")
    return labelled
