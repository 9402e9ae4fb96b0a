"""The same visit told otherwise: fields missing, other words, other units, typing errors.

A risk that moves much when the medicine stays the same rests on something else. Every change is
seeded by the case, keeps its label true, and adds no finding.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import findings_of, load_everyday_wordings, load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case, LabelledCase

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


@dataclass(frozen=True)
class Retelling:
    """``case``, under an id of its own, is the case ``case_id`` after one perturbation."""

    case_id: str
    perturbation: str
    case: Case


def retellings(cases: Sequence[LabelledCase], count: int, seed: int) -> list[Retelling]:
    """All perturbations of a sample of ``count`` cases, half of each label where there are enough.

    The sample depends on the seed and the ids alone, one case a disease before a second. A
    perturbation that leaves a case as it is, because it has no such field or unit, is left out.
    """
    told: list[Retelling] = []
    for item in _sample(cases, count, seed):
        for name, perturb in PERTURBATIONS.items():
            rng = random.Random(_digest(seed, f"{name}/{item.case.case_id}"))  # noqa: S311
            changed = perturb(item.case, rng)
            if changed is not None:
                alone = changed.model_copy(update={"case_id": f"retold-{len(told)}"})
                told.append(Retelling(item.case.case_id, name, alone))
    return told


def without(*fields: str) -> Callable[[Case, random.Random], Case | None]:
    """A perturbation that deletes ``fields``; nothing if none is there or no text would be left."""

    def perturb(case: Case, _: random.Random) -> Case | None:
        if all(getattr(case, name) is None for name in fields):
            return None
        if all(name in fields or getattr(case, name) is None for name in TEXT_FIELDS):
            return None
        return case.model_copy(update=dict.fromkeys(fields))

    return perturb


def paraphrased(case: Case, rng: random.Random) -> Case | None:
    """Findings under other wordings of the same HPO term, and stock phrases in other words.

    Nothing where that would change which findings are recognised as present or absent.
    """
    changed = _with_texts(case, lambda text: _reworded(text, rng))
    if changed is None:
        return None
    return changed if _findings(changed) == _findings(case) else None


def other_units(case: Case, _: random.Random) -> Case | None:
    """Fahrenheit, kilopascal, pounds, inches, days and months; the same quantities."""

    def converted(text: str) -> str:
        for pattern, convert in _UNITS:
            text = re.sub(pattern, convert, text)
        return text

    return _with_texts(case, converted)


def mistyped(case: Case, rng: random.Random) -> Case | None:
    """Two inner letters swapped in about one of twelve longer words."""

    def swapped(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() * _TYPO_EVERY >= 1:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _with_texts(case, lambda text: _WORD.sub(swapped, text))


PERTURBATIONS: dict[str, Callable[[Case, random.Random], Case | None]] = {
    "without_examination": without("physical_examination", "vitals"),
    "without_background": without("past_medical_history", "family_history", "social_history"),
    "without_age_and_sex": without("age_years", "sex"),
    "paraphrase": paraphrased,
    "other_units": other_units,
    "typing_errors": mistyped,
}


def _with_texts(case: Case, change: Callable[[str], str]) -> Case | None:
    texts = {name: getattr(case, name) for name in TEXT_FIELDS}
    changed = {name: change(text) for name, text in texts.items() if text is not None}
    if all(changed[name] == texts[name] for name in changed):
        return None
    return case.model_copy(update=changed)


def _reworded(text: str, rng: random.Random) -> str:
    mentions = load_recogniser().mentions(text)
    for mention in reversed(mentions):  # from the end, so that earlier places stay right
        told = text[mention.start : mention.end]
        others = [word for word in _wordings(mention.hpo_id) if word.lower() != told.lower()]
        if others:
            other = rng.choice(others)
            if told[:1].isupper():
                other = other[:1].upper() + other[1:]
            text = text[: mention.start] + other + text[mention.end :]
    for pattern, phrase in _PHRASES:
        text = re.sub(pattern, phrase, text)
    return text


@lru_cache(maxsize=4096)
def _wordings(hpo_id: str) -> tuple[str, ...]:
    """Wordings of a term that the recogniser reads as that term and nothing else."""
    term = load_ontology().terms[hpo_id]
    exact = [synonym.text for synonym in term.synonyms if synonym.scope == "EXACT"]
    everyday = [text for text, meant in load_everyday_wordings() if meant == hpo_id]
    names = {
        name if name[1:2].isupper() else name[:1].lower() + name[1:]
        for name in (term.name, *exact, *everyday)
    }
    read = load_recogniser().mentions
    return tuple(
        name for name in sorted(names) if [found.hpo_id for found in read(name)] == [hpo_id]
    )


def _findings(case: Case) -> tuple[set[str], set[str]]:
    present, excluded = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
    return set(present), set(excluded)


def _number(word: str) -> int:
    return 1 if word == "a" else int(word)


def _sample(cases: Sequence[LabelledCase], count: int, seed: int) -> list[LabelledCase]:
    chosen: list[LabelledCase] = []
    for label, wanted in (("rare", (count + 1) // 2), ("nonrare", count // 2)):
        of_label = [item for item in cases if item.label.label == label]
        of_label.sort(key=lambda item: _digest(seed, item.case.case_id))
        seen: dict[str, int] = {}
        turns = []
        for item in of_label:
            turns.append(seen.get(item.label.disease_id, 0))
            seen[item.label.disease_id] = turns[-1] + 1
        order = sorted(range(len(of_label)), key=lambda at: (turns[at], at))
        chosen += [of_label[at] for at in order[:wanted]]
    return chosen


def _digest(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8])
