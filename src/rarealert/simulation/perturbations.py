"""Perturbations of a visit: missing fields, other wordings, other units, typing errors.

A risk that changes much while the medicine stays the same rests on something else. Every change is
seeded by the case, keeps its label, and adds no finding.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import load_everyday_wordings, load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case, LabelledCase
from rarealert.visits.reading import Finding, Reading, read_visit

_TYPO_EVERY = 12  # words of five letters or more a typing error, on average
_WORD = re.compile(r"\b[A-Za-z]{5,}\b")
_PHRASES = (
    (r"\bThe patient also reports\b", "In addition there is"),
    (r"\bThe patient mentions\b", "There is also"),
    (r"\bA parent also reports\b", "The parents add that there is"),
    (r"\bA parent mentions\b", "A parent speaks of"),
    (r"\bExamination shows\b", "On examination one finds"),
    (r"\bFindings are\b", "The examiner notes"),
    (r"\bOn examination there is\b", "Examination reveals"),
    (r"\bThere has been no\b", "There is no history of"),
    (r"\bcomplains of\b", "reports"),
    (r"\bpresents with\b", "comes with"),
    (r"\bpresents to\b", "comes to"),
    (r"\bbecause of\b", "due to"),
    (r"\bhas a history of\b", "is known for"),
)
# one number of several ("2-3 weeks", "3 x 4 cm", "half a year") can't change its unit alone
_ONE = (
    r"(?<![\w.,/\u2013-])(?<!half )(?<!\d[\u2013-] )(?<!\d [\u2013-] )"
    r"(?<!\d to )(?<!\d or )(?<!\d x )(?<!\d \u00d7 )(?<!\d\u00d7)"
)
_SPAN = r"(?![ -](?:old|ago|and a half))"
_UNITS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (rf"{_ONE}(\d{{2}}(?:\.\d+)?) ?°? ?C\b", lambda m: f"{float(m[1]) * 9 / 5 + 32:.1f} F"),
    (
        rf"{_ONE}(\d{{2,3}})/(\d{{2,3}}) ?mm ?Hg\b",
        lambda m: f"{int(m[1]) * 0.133322:.1f}/{int(m[2]) * 0.133322:.1f} kPa",
    ),
    (rf"{_ONE}(\d+(?:\.\d+)?) ?kg\b(?!/)", lambda m: f"{float(m[1]) / 0.45359237:.0f} lb"),
    (rf"{_ONE}(\d+(?:\.\d+)?) ?cm\b", lambda m: f"{float(m[1]) / 2.54:.1f} in"),
    (rf"{_ONE}(a|\d{{1,2}})[ -]weeks?\b{_SPAN}", lambda m: f"{_number(m[1]) * 7} days"),
    (rf"{_ONE}(a|\d)[ -]years?\b{_SPAN}", lambda m: f"{_number(m[1]) * 12} months"),
)

Perturbation = Callable[[Reading, random.Random], Case | None]
"""Returns the changed case, or ``None`` if the visit has nothing to change."""


@dataclass(frozen=True)
class PerturbedCase:
    """``case``, with its own id, is the case ``case_id`` after one perturbation."""

    case_id: str
    perturbation: str
    case: Case


def perturbed_cases(cases: Sequence[LabelledCase], count: int, seed: int) -> list[PerturbedCase]:
    """All perturbations of a sample of ``count`` cases, half of each label if there are enough.

    The sample depends on the seed and the ids alone, and takes one case of each disease before a
    second one. A perturbation that would leave a case unchanged is left out.
    """
    found: list[PerturbedCase] = []
    for item in _sample(cases, count, seed):
        reading = read_visit(item.case)
        for name, perturb in PERTURBATIONS.items():
            rng = random.Random(_digest(seed, f"{name}/{item.case.case_id}"))  # noqa: S311
            changed = perturb(reading, rng)
            if changed is not None:
                changed = changed.model_copy(update={"case_id": f"perturbed-{len(found)}"})
                found.append(PerturbedCase(item.case.case_id, name, changed))
    return found


def without(*fields: str) -> Perturbation:
    """A perturbation that deletes ``fields``, unless none is there or no text would be left."""

    def perturb(reading: Reading, _: random.Random) -> Case | None:
        case = reading.case
        if all(getattr(case, name) is None for name in fields):
            return None
        if all(name in fields or getattr(case, name) is None for name in TEXT_FIELDS):
            return None
        return case.model_copy(update=dict.fromkeys(fields))

    return perturb


def paraphrased(reading: Reading, rng: random.Random) -> Case | None:
    """Findings in other wordings of the same HPO term, and stock phrases in other words.

    Nothing if that would change which findings are recognised as present or absent.
    """

    def reworded(name: str, text: str) -> str:
        in_field = [finding for finding in reading.findings if finding.field == name]
        return _reworded(text, in_field, rng)

    changed = _with_texts(reading.case, reworded)
    if changed is None:
        return None
    again = read_visit(changed)
    before, after = (
        (set(one.affirmed), set(one.denied) - set(one.affirmed)) for one in (reading, again)
    )
    return changed if before == after else None


def other_units(reading: Reading, _: random.Random) -> Case | None:
    """Fahrenheit, kilopascal, pounds, inches, days and months; the same quantities."""

    def converted(_: str, text: str) -> str:
        for pattern, convert in _UNITS:
            text = re.sub(pattern, convert, text)
        return text

    return _with_texts(reading.case, converted)


def mistyped(reading: Reading, rng: random.Random) -> Case | None:
    """Two inner letters swapped in about one of twelve longer words."""

    def swapped(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() * _TYPO_EVERY >= 1:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _with_texts(reading.case, lambda _, text: _WORD.sub(swapped, text))


PERTURBATIONS: dict[str, Perturbation] = {
    "without_examination": without("physical_examination", "vitals"),
    "without_background": without("past_medical_history", "family_history", "social_history"),
    "without_age_and_sex": without("age_years", "sex"),
    "paraphrase": paraphrased,
    "other_units": other_units,
    "typing_errors": mistyped,
}


def _with_texts(case: Case, change: Callable[[str, str], str]) -> Case | None:
    """The case with ``change(name, text)`` in each text field, ``None`` if all stay the same."""
    texts = {name: text for name in TEXT_FIELDS if (text := getattr(case, name)) is not None}
    changed = {name: change(name, text) for name, text in texts.items()}
    return None if changed == texts else case.model_copy(update=changed)


def _reworded(text: str, findings: Sequence[Finding], rng: random.Random) -> str:
    for finding in reversed(findings):  # from the end, so that earlier places stay right
        start, end = finding.span
        old = text[start:end]
        others = [word for word in _wordings(finding.hpo_id) if word.lower() != old.lower()]
        if others:
            new = rng.choice(others)
            if old[:1].isupper():
                new = new[:1].upper() + new[1:]
            text = text[:start] + new + text[end:]
    for pattern, phrase in _PHRASES:
        text = re.sub(pattern, phrase, text)
    return text


@lru_cache(maxsize=4096)
def _wordings(hpo_id: str) -> tuple[str, ...]:
    """Wordings of a term that the recogniser maps to that term and nothing else."""
    term = load_ontology().terms[hpo_id]
    exact = [synonym.text for synonym in term.synonyms if synonym.scope == "EXACT"]
    everyday = [text for text, meant in load_everyday_wordings() if meant == hpo_id]
    names = {
        name if name[1:2].isupper() else name[:1].lower() + name[1:]
        for name in (term.name, *exact, *everyday)
    }
    mentions = load_recogniser().mentions
    return tuple(
        name for name in sorted(names) if [found.hpo_id for found in mentions(name)] == [hpo_id]
    )


def _number(word: str) -> int:
    return 1 if word == "a" else int(word)


def _sample(cases: Sequence[LabelledCase], count: int, seed: int) -> list[LabelledCase]:
    chosen: list[LabelledCase] = []
    for label, wanted in (("rare", (count + 1) // 2), ("nonrare", count // 2)):
        of_label = [item for item in cases if item.label.label == label]
        of_label.sort(key=lambda item: _digest(seed, item.case.case_id))
        seen: Counter[str] = Counter()
        turns: list[tuple[int, int, LabelledCase]] = []
        for item in of_label:
            turns.append((seen[item.label.disease_id], len(turns), item))
            seen[item.label.disease_id] += 1
        chosen += [item for _, _, item in sorted(turns, key=lambda turn: turn[:2])[:wanted]]
    return chosen


def _digest(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8])
