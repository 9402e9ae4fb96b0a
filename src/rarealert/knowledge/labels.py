"""From a diagnosis, as text or code, to ``rare``, ``nonrare`` or ``excluded``, with the reason.

Rare is an active Orphanet disorder, a form of one, or a name for nothing but such. Non-rare is a
packaged common condition, or a disease that MONDO names and that has nothing rare above or below
it. All else is excluded: what covers rare and other diseases, disorders with a common prevalence
class, Mendelian traits that Orphanet does not list, ambiguous abbreviations, findings, names that
no source lists as a disease.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.heads import head_above
from rarealert.knowledge.mondo import Mondo, MondoTerm, load_icd10cm, load_mondo
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.orphanet import (
    Disorder,
    OrphanetIndex,
    load_index,
    looks_common,
    name_variants,
    without_brackets,
)
from rarealert.knowledge.plain_names import is_anothers_or_doubtful, linked_parts, plainer_names

_ORPHA = re.compile(r"(?:ORPHA|ORDO|ORPHANET)(?:CODE)?[:_# ]*(\d{1,7})", re.I)
_OMIM = re.compile(r"(?:(?:OMIM|MIM)(?: ?(?:NO|NUMBER)\.?)?[:_# ]*|[#%+*])?(\d{6})", re.I)
_ICD = re.compile(
    r"(?:ICD-?10(?:-?CM)?[: ]*)?([A-TV-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4}|\d[0-9A-Z]{0,3})?)", re.I
)
_CODE_OF_ANOTHER_SYSTEM = re.compile(
    r"(?:SNOMED(?: ?CT)?|SCTID|ICD-?11|ICD-?9(?:-?CM)?|MESH|UMLS|DOID|READ|ICPC-?2?)"
    r"[:_ ]+[A-Z]{0,3}\d[\w.]*|[A-Z][\w-]*:[A-Z]{0,3}\d[\w.]*|\d{7,18}",
    re.I,
)
_SHORT = re.compile(r"[A-Za-z]{1,4}s?")
_TRAIT = re.compile(
    r"susceptibility|predisposition|blood group|modifier|resistance to|protection against|"
    r"quantitative trait|variation in|\btrait\b|\bmyopia \d|alopecia, androgenetic",
    re.I,
)
_OMIM_NAME = re.compile(r"\d|\bwith\b|autosomal|x-linked|\btype\b|syndrom|related", re.I)
_NEURODEVELOPMENTAL = "ORPHA:102283"
"""Orphanet's group of syndromes with dysmorphism and intellectual disability."""
NOT_RARE = "not rare by Orphanet's class or published prevalence"
"""Why an active Orphanet disorder is excluded."""

SEVERAL = "several rare diseases"
_GROUP = "Orphanet group of disorders, not one disease"
_MIXED = "rare and other diseases"
_TRAIT_REASON = "a susceptibility or a trait, not a disease"
_UNLISTED = "a Mendelian disorder that Orphanet does not list"
_UNCLEAR = "a finding, or a name for rare and common diseases"
_NOT_LISTED = "known disease, not in Orphanet"
_MOSTLY = 2  # rare forms to each unlisted one that make a name rare
_FINDING_CHAPTERS = frozenset("RZVWXY")
_GROUP_SIZE = 3  # terms directly below a doubtful entry that make it a group
_HEREDITARY = "0003847"
_ICD_PREFIX = 3  # characters before the dot
_LONG_ENOUGH = 8  # letters of a name that is known without its spaces and hyphens

By = Literal["code", "name", "name within the text", "nothing"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label of a diagnosis.

    ``reason`` is one phrase for the label's ``reason``; ``by`` is the kind of match. A rare one has
    a ``disorder``, or in ``among`` the Orphanet codes of the several that it covers. ``name`` is
    MONDO's name of a disease that it lists.
    """

    label: Literal["rare", "nonrare", "excluded"]
    reason: str
    by: By
    disorder: Disorder | None = None
    name: str | None = None
    among: frozenset[str] = frozenset()


class Labeller:
    """Labels diagnoses; build one with ``load_labeller``."""

    def __init__(
        self, index: OrphanetIndex, mondo: Mondo, icd10cm: Mapping[str, tuple[str, ...]]
    ) -> None:
        """``icd10cm`` gives the ids of ``mondo`` by ICD-10-CM code."""
        self._index, self._mondo = index, mondo
        self._omim, self._icd10cm = mondo.by_code("OMIM"), icd10cm
        self._orphanet = mondo.by_code("Orphanet")
        self._reviewed = {row["code"]: row for row in packaged_rows("icd10cm.tsv")}
        self._short = {row["abbreviation"]: row for row in packaged_rows("abbreviations.tsv")}
        self._unclear = {
            normalise_name(row["name"])
            for row in packaged_rows("reviewed_names.tsv")
            if row["label"] == "excluded"
        }
        self._groups = {
            normalise_name(row["name"]): tuple(row["orpha_codes"].split())
            for row in packaged_rows("rare_groups.tsv")
        }
        self._families = [
            (row["beginning"], row["orpha_code"]) for row in packaged_rows("mendelian_families.tsv")
        ]
        self._children = _children(mondo)
        self._verdicts: dict[str, Verdict] = {}
        self._labels: dict[str, Verdict] = {}
        self._preferred = _by_name((term.id, (term.name,)) for term in mondo.terms.values())
        self._synonyms = _by_name((term.id, term.synonyms) for term in mondo.terms.values())
        known = (*self._preferred, *self._synonyms)
        self._joined = {name.replace(" ", ""): name for name in known if len(name) >= _LONG_ENOUGH}

    def label(self, diagnosis: str) -> Verdict:
        """The verdict on any string: a name, or a code such as ``ORPHA:558`` or ``Q87.4``."""
        known = self._labels.get(diagnosis)
        if known is None:
            known = self._labels[diagnosis] = self._judge(diagnosis.strip())
        return known

    def _judge(self, text: str) -> Verdict:
        if code := _ORPHA.fullmatch(text):
            return self._of_orpha(f"ORPHA:{int(code[1])}")
        if code := _OMIM.fullmatch(text):
            return self._of_terms(self._omim.get(code[1], ()), f"OMIM {code[1]}")
        if row := self._short.get(text) or self._short.get(text.upper()):
            return self._of_abbreviation(row)
        if code := _ICD.fullmatch(text):
            return self._of_icd(code[1].upper())
        if _CODE_OF_ANOTHER_SYSTEM.fullmatch(text) and not self._exact(text):
            return Verdict("excluded", "a code of a system that is not read", "nothing")
        return self._of_name(text)

    def _of_abbreviation(self, row: Mapping[str, str]) -> Verdict:
        if row["label"] == "excluded":
            reason = f"an abbreviation of {row['readings']}"
            return Verdict("excluded", reason, "name")
        if row["label"] == "nonrare":
            return Verdict("nonrare", "common disease", "name", name=row["readings"])
        return replace(self._of_name(row["readings"]), by="name")

    def _of_orpha(self, code: str) -> Verdict:
        if disorder := self._index.by_code.get(code):
            return _of_disorder(disorder, "code")
        for mondo_id in self._orphanet.get(code.removeprefix("ORPHA:"), ()):
            verdict = self._of_term(self._mondo.terms[mondo_id], "code")
            if verdict.label != "nonrare":
                return verdict
        return Verdict("excluded", "no active Orphanet disorder has this code", "code")

    def _of_icd(self, code: str) -> Verdict:
        """The verdict of the reviewed table, else on the longest prefix of ``code`` with a term.

        A code is rare by the table alone: a term that MONDO gives to a code may be one of many that
        the code covers.
        """
        plain = code.replace(".", "")
        dotted = [
            f"{plain[:_ICD_PREFIX]}.{plain[_ICD_PREFIX:end]}" for end in range(len(plain), 3, -1)
        ]
        candidates = (*dotted, plain[:_ICD_PREFIX])
        named = f"ICD-10-CM {code}"
        if row := next((self._reviewed[one] for one in candidates if one in self._reviewed), None):
            return self._of_reviewed(row, named)
        if code[0] in _FINDING_CHAPTERS:
            return Verdict("excluded", f"{named} is a finding or a circumstance", "code")
        for candidate in candidates:
            if terms := self._icd10cm.get(candidate):
                verdict = self._of_terms(terms, named)
                if verdict.label != "rare":
                    return verdict
                return Verdict("excluded", f"{named} covers more than the rare disease", "code")
        return Verdict("excluded", f"no known disease has {named}", "code")

    def _of_reviewed(self, row: Mapping[str, str], code: str) -> Verdict:
        if row["label"] == "nonrare":
            return Verdict("nonrare", "common disease", "code", name=row["title"])
        if row["label"] == "excluded":
            return Verdict("excluded", f"{code} is {row['title']}, not one disease", "code")
        found = [self._of_orpha(one) for one in row["orpha_codes"].split()]
        return _together(found, code, "code")

    def _of_terms(self, terms: Sequence[str], code: str) -> Verdict:
        if not terms:
            return Verdict("excluded", f"no known disease has {code}", "code")
        return _together([self._of_term(self._mondo.terms[one], "code") for one in terms], code)

    def _of_term(self, term: MondoTerm, by: By) -> Verdict:
        known = self._verdicts.get(term.id)
        if known is None:
            known = self._verdicts[term.id] = self._of_disease(term)
        return replace(known, by=by)

    def _of_disease(self, term: MondoTerm) -> Verdict:
        """Its own Orphanet disorder, a common name, the disorder above it, or those below it."""
        if looks_common(term.name):
            return Verdict("nonrare", "packaged common condition", "name", name=term.name)
        codes = [f"ORPHA:{code}" for code in term.codes.get("Orphanet", ())]
        own = (found for code in codes if (found := self._index.by_code.get(code)))
        if disorder := next(own, None):
            return _of_disorder(disorder, "name")
        if reviewed := self._of_reviewed_name(term.name):
            return reviewed
        if _TRAIT.search(term.name):
            return Verdict("excluded", _TRAIT_REASON, "name", name=term.name)
        if above := self._nearest_above(term):
            return above
        if below := self._covered(term, codes):
            return below
        return self._alone(term, codes)

    def _alone(self, term: MondoTerm, codes: Sequence[str]) -> Verdict:
        """The verdict on a disease with nothing rare above or below it."""
        is_mendelian = "OMIM" in term.codes or "OMIMPS" in term.codes
        if is_mendelian and (family := self._of_family(term.name)):
            return family
        if any(code in self._index.groups for code in codes):
            return Verdict("excluded", _GROUP, "name")
        if codes and not self._index.complete:
            return Verdict("excluded", "an Orphanet code that may be withdrawn", "name")
        if is_mendelian:
            return Verdict("excluded", _UNLISTED, "name", name=term.name)
        return Verdict("nonrare", _NOT_LISTED, "name", name=term.name)

    def _nearest_above(self, term: MondoTerm) -> Verdict | None:
        level, seen = set(term.parents), {term.id}
        while level:
            found = [
                self._index.by_code[code]
                for one in sorted(level)
                for number in self._mondo.terms[one].codes.get("Orphanet", ())
                if (code := f"ORPHA:{number}") in self._index.by_code
                and not looks_common(self._mondo.terms[one].name)
                and not self._may_be_a_group(code, one)
            ]
            if found:
                verdict = _of_disorder(found[0], "name")
                reason = f"a form of {found[0].name}" if verdict.disorder else verdict.reason
                return replace(verdict, reason=reason, name=term.name)
            seen |= level
            level = {p for one in level for p in self._mondo.terms[one].parents} - seen
        return None

    def _may_be_a_group(self, code: str, mondo_id: str) -> bool:
        """Orphanet's table names groups as well; most have no kind and cover many terms."""
        many = len(self._children.get(mondo_id, ())) >= _GROUP_SIZE
        return many and self._index.complete and code in self._index.doubtful

    def _covered(self, term: MondoTerm, codes: Sequence[str]) -> Verdict | None:
        """The verdict on a name for several diseases; ``None`` if it covers nothing rare."""
        below = [
            self._of_term(self._mondo.terms[child], "name")
            for child in self._children.get(term.id, ())
        ]
        below = [one for one in below if one.reason not in (_UNLISTED, _TRAIT_REASON)]
        rare = [one for one in below if one.label == "rare"]
        if not rare and not any(one.reason.endswith(_MIXED) for one in below):
            return None
        unlisted = [one for one in below if one.reason == _NOT_LISTED]
        if len(rare) >= _MOSTLY * len(unlisted) and len(rare) + len(unlisted) == len(below):
            # a form without an Orphanet code is no sign of a common disease among so many rare ones
            below = rare
        verdict = _together(below, term.name, "name")
        if verdict.label != "rare":
            return replace(verdict, name=term.name)
        if codes and verdict.among:
            return self._group(codes[0], term)
        if codes or _HEREDITARY in self._mondo.ancestors(term.id):
            return replace(verdict, name=term.name)
        # only the rare ones of its forms have a term: "folliculitis" is not rare for that
        return Verdict("excluded", f"{term.name} covers {_MIXED}", "name", name=term.name)

    def _of_reviewed_name(self, name: str) -> Verdict | None:
        key = normalise_name(name)
        if key in self._unclear:
            return Verdict("excluded", _UNCLEAR, "name", name=name)
        codes = self._groups.get(key)
        return self._of_group(codes, name) if codes else None

    def _of_group(self, codes: Sequence[str], name: str) -> Verdict:
        """The verdict on a reviewed name for rare diseases only."""
        if len(codes) > 1:
            among = frozenset(codes)
            return Verdict("rare", f"{name} covers {SEVERAL}", "name", name=name, among=among)
        if disorder := self._index.by_code.get(codes[0]):
            return _of_disorder(disorder, "name")
        terms = self._orphanet[codes[0].removeprefix("ORPHA:")]
        return self._group(codes[0], self._mondo.terms[terms[0]])

    def _group(self, code: str, term: MondoTerm) -> Verdict:
        head = head_above((term.id,), self._mondo)
        group = Disorder(code, term.name, head, head_derived=bool(head))
        return Verdict("rare", "a group of rare diseases", "name", group, term.name)

    def _of_name(self, text: str) -> Verdict:
        """Exact names first: a variant of another disease's name must not outrank one."""
        if verdict := self._exact(text):
            return verdict
        if _SHORT.fullmatch(text):
            return Verdict("excluded", "an abbreviation without one sure reading", "name")
        if is_anothers_or_doubtful(text):
            reason = "not said to be a disease that the patient has"
            return Verdict("excluded", reason, "nothing")
        if verdict := self._of_family(text) or self._of_parts(text):
            return verdict
        for name in plainer_names(text):
            verdict = self._known_short(name)
            if verdict and verdict.label != "excluded":
                return verdict
        if disorder := self._index.resolve(text):
            return _of_disorder(disorder, "name within the text")
        return Verdict("excluded", "not a known disease name", "nothing")

    def _of_family(self, text: str) -> Verdict | None:
        """The verdict on a form that only OMIM numbers, by the family that its name begins with."""
        key = normalise_name(text)
        if _TRAIT.search(text) or not _OMIM_NAME.search(text):
            return None
        found = (code for begin, code in self._families if f"{key} ".startswith(f"{begin} "))
        code = next(found, _NEURODEVELOPMENTAL if "neurodevelopmental syndrome" in key else None)
        return replace(self._of_group((code,), text), name=text) if code else None

    def _of_parts(self, text: str) -> Verdict | None:
        """Of linked diseases a rare one decides, wherever it stands; else the first one known."""
        found = [
            verdict
            for part in linked_parts(text)
            for verdict in [self._known(part)]
            if verdict is not None
        ]
        rare = (verdict for verdict in found if verdict.label == "rare")
        return next(rare, found[0] if found else None)

    def _known(self, part: str) -> Verdict | None:
        verdicts = (self._known_short(name) for name in (part, *plainer_names(part)))
        return next((verdict for verdict in verdicts if verdict), None)

    def _known_short(self, name: str) -> Verdict | None:
        if row := self._short.get(name):
            return self._of_abbreviation(row)
        return None if _SHORT.fullmatch(name) else self._exact(name)

    def _exact(self, text: str) -> Verdict | None:
        """The verdict on a name as the sources spell it, or all but spell it."""
        plain = without_brackets(text)
        if looks_common(text):
            return Verdict("nonrare", "packaged common condition", "name")
        key = normalise_name(plain)
        if not key or (_SHORT.fullmatch(text) and text.upper() == text):
            return None
        if reviewed := self._of_reviewed_name(plain):
            return reviewed
        if disorder := self._index.resolve_official(plain):
            return _of_disorder(disorder, "name")
        if terms := self._preferred.get(key) or self._synonyms.get(key):
            return self._of_synonym(terms, plain)
        if disorder := self._index.resolve_whole(text):
            return _of_disorder(disorder, "name")
        near = (*name_variants(plain), self._joined.get(key.replace(" ", ""), ""))
        known = (self._preferred.get(one) or self._synonyms.get(one) for one in near)
        terms = next((terms for terms in known if terms), None)
        return self._of_synonym(terms, plain) if terms else None

    def _of_synonym(self, terms: Sequence[str], name: str) -> Verdict:
        found = [self._of_term(self._mondo.terms[term], "name") for term in terms]
        return found[0] if len(found) == 1 else _together(found, f"the name {name}", "name")


def _by_name(named: Iterable[tuple[str, Sequence[str]]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for mondo_id, names in named:
        for key in {normalise_name(name) for name in names} - {""}:
            found[key] = (*found.get(key, ()), mondo_id)
    return found


def _children(mondo: Mondo) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for term in mondo.terms.values():
        for parent in term.parents:
            found[parent] = (*found.get(parent, ()), term.id)
    return found


def _together(verdicts: Sequence[Verdict], what: str, by: By = "code") -> Verdict:
    """The verdict on a code or a name for all of ``verdicts``."""
    if len({verdict.label for verdict in verdicts}) > 1:
        among = {verdict.label for verdict in verdicts}
        if "rare" in among or any(one.reason.endswith(_MIXED) for one in verdicts):
            return Verdict("excluded", f"{what} covers {_MIXED}", by)
        return Verdict("excluded", f"{what} covers several diseases", by)
    rare = frozenset(
        code
        for one in verdicts
        for code in (one.among or ({one.disorder.orpha_code} if one.disorder else ()))
    )
    if len(rare) > 1:
        return Verdict("rare", f"{what} covers {SEVERAL}", by, among=rare)
    first = verdicts[0]
    if first.label == "excluded" and any(one.reason.endswith(_MIXED) for one in verdicts):
        return Verdict("excluded", f"{what} covers {_MIXED}", by)
    return replace(first, by=by)


def _of_disorder(disorder: Disorder, by: By) -> Verdict:
    if disorder.common:
        return Verdict("excluded", NOT_RARE, by)
    return Verdict("rare", "active Orphanet disorder", by, disorder)


@lru_cache(maxsize=4)
def load_labeller(folder: Path | None = None) -> Labeller:
    """The labeller over the installed names, or over Orphadata's tables in ``folder``.

    Raises:
        BadInputError: a table or an installed data file is missing or damaged.
    """
    return Labeller(load_index(folder), load_mondo(), load_icd10cm())


def verdict_line(diagnosis: str, data: Path) -> str:
    """The verdict as one line of JSON, by the tables in ``data/orphanet`` if they are there.

    Raises:
        BadInputError: a table or an installed data file is missing or damaged.
    """
    tables = data / "orphanet"
    verdict = load_labeller(tables if tables.is_dir() else None).label(diagnosis)
    disorder = verdict.disorder
    content = {
        "label": verdict.label,
        "reason": verdict.reason,
        "by": verdict.by,
        "orpha_code": disorder.orpha_code if disorder else None,
        "name": disorder.name if disorder else None,
        "head": disorder.head if disorder else None,
        "head_derived": disorder.head_derived if disorder else None,
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False)
