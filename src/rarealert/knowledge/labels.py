"""From a diagnosis, as text or code, to ``rare``, ``nonrare`` or ``excluded``, with the reason.

Rare is an active Orphanet disorder; non-rare is a disease that MONDO or the packaged table of
common conditions names and Orphanet does not. All else is excluded: groups of disorders,
disorders with a common prevalence class, names that no source lists as a disease.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

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

_ORPHA = re.compile(r"(?:ORPHA|ORDO|ORPHANET)(?:CODE)?[:_ ]*(\d{1,7})", re.I)
_OMIM = re.compile(r"(?:OMIM|MIM)[:# ]*(\d{6})", re.I)
_ICD = re.compile(r"(?:ICD-?10(?:-?CM)?[: ]*)?([A-TV-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?)", re.I)
NOT_RARE = "not rare by Orphanet's class or published prevalence"
"""Why an active Orphanet disorder is excluded."""

_ICD_PREFIX = 3  # characters before the dot


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label of a diagnosis; ``disorder`` is set for a rare one only.

    ``reason`` is one phrase for the label's ``reason``; ``by`` is the kind of match. ``name`` is
    MONDO's name of a disease that it lists; ``among`` holds the Orphanet codes of a code that
    covers several rare disorders.
    """

    label: Literal["rare", "nonrare", "excluded"]
    reason: str
    by: Literal["code", "name", "name within the text", "nothing"]
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
        self._by_name: dict[str, str] = {}
        terms = mondo.terms.values()
        for names in ([(t.name,) for t in terms], [t.synonyms for t in terms]):
            for term, own in zip(terms, names, strict=True):
                for name in own:
                    self._by_name.setdefault(normalise_name(name), term.id)

    def label(self, diagnosis: str) -> Verdict:
        """The verdict on any string: a name, or a code such as ``ORPHA:558`` or ``Q87.4``."""
        text = diagnosis.strip()
        if code := _ORPHA.fullmatch(text):
            return self._of_orpha(f"ORPHA:{code[1]}")
        if code := _OMIM.fullmatch(text):
            return self._of_terms(self._omim.get(code[1], ()), f"OMIM {code[1]}")
        if code := _ICD.fullmatch(text):
            return self._of_icd(code[1].upper())
        return self._of_name(text)

    def _of_orpha(self, code: str) -> Verdict:
        if disorder := self._index.by_code.get(code):
            return _of_disorder(disorder, "code")
        if code in self._index.groups:
            return Verdict("excluded", "Orphanet group of disorders, not one disease", "code")
        return Verdict("excluded", "no active Orphanet disorder has this code", "code")

    def _of_icd(self, code: str) -> Verdict:
        """The verdict on the longest prefix of ``code`` that some term has."""
        plain = code.replace(".", "")
        dotted = [
            f"{plain[:_ICD_PREFIX]}.{plain[_ICD_PREFIX:end]}" for end in range(len(plain), 3, -1)
        ]
        for candidate in (*dotted, plain[:_ICD_PREFIX]):
            if terms := self._icd10cm.get(candidate):
                return self._of_terms(terms, f"ICD-10-CM {code}")
        return Verdict("excluded", f"no known disease has ICD-10-CM {code}", "code")

    def _of_terms(self, terms: Sequence[str], code: str) -> Verdict:
        if not terms:
            return Verdict("excluded", f"no known disease has {code}", "code")
        verdicts = [self._of_term(self._mondo.terms[term], "code") for term in terms]
        if len({verdict.label for verdict in verdicts}) > 1:
            return Verdict("excluded", f"{code} covers rare and other diseases", "code")
        rare = frozenset(item.disorder.orpha_code for item in verdicts if item.disorder)
        if len(rare) > 1:
            return Verdict("excluded", f"{code} covers several rare diseases", "code", among=rare)
        return verdicts[0]

    def _of_term(self, term: MondoTerm, by: Literal["code", "name"]) -> Verdict:
        codes = [f"ORPHA:{code}" for code in term.codes.get("Orphanet", ())]
        known = [found for code in codes if (found := self._index.by_code.get(code))]
        if known:
            return _of_disorder(known[0], by)
        if looks_common(term.name):
            return Verdict("nonrare", "packaged common condition", by, name=term.name)
        if any(code in self._index.groups for code in codes):
            return Verdict("excluded", "Orphanet group of disorders, not one disease", by)
        if codes and not self._index.complete:
            return Verdict("excluded", "an Orphanet code that may be withdrawn", by)
        return Verdict("nonrare", "known disease, not in Orphanet", by, name=term.name)

    def _of_name(self, text: str) -> Verdict:
        """Exact names first: a variant of another disease's name must not outrank one."""
        plain = without_brackets(text)
        if looks_common(text):
            return Verdict("nonrare", "packaged common condition", "name")
        if disorder := self._index.resolve_exact(plain):
            return _of_disorder(disorder, "name")
        if exact := self._by_name.get(normalise_name(plain)):
            return self._of_term(self._mondo.terms[exact], "name")
        if disorder := self._index.resolve_whole(text):
            return _of_disorder(disorder, "name")
        near = (self._by_name.get(key) for key in name_variants(plain))
        if term := next((term for term in near if term), None):
            return self._of_term(self._mondo.terms[term], "name")
        if disorder := self._index.resolve(text):
            return _of_disorder(disorder, "name within the text")
        return Verdict("excluded", "not a known disease name", "nothing")


def _of_disorder(
    disorder: Disorder, by: Literal["code", "name", "name within the text"]
) -> Verdict:
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
