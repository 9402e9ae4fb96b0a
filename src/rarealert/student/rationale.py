"""Rationales: what the student learns to write, and the check of what it writes.

A rationale opens with its direction, then names findings of the visit, and may end with an Orphanet
head or a citation. The opening follows from the label in training and from the band at work, so it
can't contradict the risk. A citation is ``<finding> is <how often> in <disease> (<ORPHA code>)``,
the finding in the visit's words, the rest from Orphanet's annotation in the HPO or from the table
of common conditions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from rarealert.calibration.bands import Band
from rarealert.knowledge.heads import HEADS, heads_of_finding
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import (
    DiseaseProfile,
    FrequencyClass,
    load_common_profiles,
    load_rare_profiles,
)
from rarealert.knowledge.recognise import load_recogniser
from rarealert.visits.case import Label
from rarealert.visits.reading import Reading

RAISED = "A rare disease is worth considering, because of"
LOWERED = "More in keeping with a common condition, because of"

_FINDINGS = 4  # findings a rationale names: one sentence that a clinician reads at a glance
_GUIDED_FINDINGS = 3  # findings that guided generation may name
_REPEATS = 2  # the same three words may come this often before a text counts as looping
_HEAD_CLAUSE = ", as in "
_SEPARATOR = re.compile(r", and |, | and ")
_OFTEN: Mapping[FrequencyClass, str] = {
    "obligate": "always there",
    "very_frequent": "very frequent",
    "frequent": "frequent",
    "occasional": "occasional",
    "very_rare": "very rare",
}
_CITATION = re.compile(
    rf"(?P<finding>.+) is (?P<often>{'|'.join(_OFTEN.values())}) in "
    r"(?P<name>.+?)(?: \((?P<code>ORPHA:\d+)\))?"
)
_HEAD = re.compile(rf"\b(?:{'|'.join(name.lower() for name in HEADS.values())})\b")


@dataclass(frozen=True)
class TeacherReasons:
    """One teacher's verdict on a case, and the insights behind it with their weights."""

    rare: bool
    insights: tuple[tuple[str, float], ...]


def opening(band: Band) -> str:
    """The first words of a rationale for ``band``."""
    return LOWERED if band == "low" else RAISED


def opening_of(text: str) -> str:
    """The opening that the rationale ``text`` begins with."""
    return RAISED if text.startswith(RAISED) else LOWERED


def compose(
    reading: Reading, reasons: Iterable[TeacherReasons], rare: bool, head: str | None = None
) -> str | None:
    """The rationale to learn: a merge of the reasons of all teachers on the right side.

    Insights are ordered by their weight summed over teachers and count only where they name a
    finding that is present in the visit; without any, the visit's own findings are named. They are
    given in the visit's words, which a small model can find again. The rationale of a rare case
    ends with the Orphanet ``head`` of its label, if an organ system of the named findings supports
    it. ``None`` where no finding was recognised: a reason without a finding is not learnt.
    """
    present = present_wordings(reading)
    insights = (item for each in reasons if each.rare == rare for item in each.insights)
    weights: dict[str, float] = {}
    for name, weight in insights:
        for finding in load_recogniser().affirmed(name):
            if finding in present:
                weights[finding] = weights.get(finding, 0.0) + weight
    ranked = sorted(weights, key=lambda finding: -weights[finding])[:_FINDINGS]
    rest = [finding for finding in present if finding not in ranked]
    chosen = (ranked + rest)[:_FINDINGS] if len(ranked) < 2 else ranked
    if not chosen:
        return None
    names = _listed([present[item] for item in chosen])
    if rare and head and head.lower() in plausible_heads(chosen):
        names += f"{_HEAD_CLAUSE}{head.lower()}"
    return f"{RAISED if rare else LOWERED} {names}."


def compose_correction(
    reading: Reading, label: Label, reasons: Iterable[TeacherReasons]
) -> str | None:
    """The rationale to learn for a case that was judged wrongly (MedThink's correction).

    It names first the finding that most patients with the disease have, and ends with the citation
    of the disease's annotation of it. ``None`` where no finding of the visit is annotated there.
    """
    cited = _cite(label, present_wordings(reading))
    if cited is None:
        return None
    wording, citation = cited
    rare, teachers = label.label == "rare", list(reasons)
    first = TeacherReasons(rare, ((wording, len(teachers) + 1.0),))  # above all teachers together
    text = compose(reading, [first, *teachers], rare, label.orphanet_head)
    return None if text is None else f"{text.removesuffix('.')}: {citation}."


def present_wordings(reading: Reading) -> dict[str, str]:
    """HPO id of each present finding of the patient → the visit's words for it, in lower case.

    Coded findings that the text does not name have HPO's name.
    """
    wordings: dict[str, str] = {}
    for finding in reading.findings:
        if (finding.state, finding.holder) == ("present", "patient"):
            wordings.setdefault(finding.hpo_id, reading.words(finding).lower())
    terms = load_ontology().terms
    for item in reading.present:
        if item in terms:
            wordings.setdefault(item, terms[item].name.lower())
    return wordings


def plausible_heads(present: Iterable[str]) -> tuple[str, ...]:
    """Orphanet heads of the organ systems of ``present`` HPO ids, lower case, most named first."""
    counts = Counter(head.lower() for item in present for head in heads_of_finding(item))
    return tuple(head for head, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def heads_named(text: str) -> tuple[str, ...]:
    """Orphanet heads that ``text`` names, in lower case."""
    return tuple(_HEAD.findall(text.lower()))


def choices(reading: Reading, band: Band) -> list[str]:
    """The rationales, without opening, that guided generation chooses from; at most 400.

    Each names one to three of the visit's first eight findings; unless ``band`` is low, it also
    comes with the head that most of them support.
    """
    present = {text: item for item, text in reversed(present_wordings(reading).items())}
    wordings = list(reversed(present))[: 2 * _FINDINGS]
    texts = []
    for count in range(1, min(_GUIDED_FINDINGS, len(wordings)) + 1):
        for names in permutations(wordings, count):
            texts.append(f"{_listed(names)}.")
            heads = plausible_heads([present[name] for name in names])
            if band != "low" and heads:
                texts.append(f"{_listed(names)}{_HEAD_CLAUSE}{heads[0]}.")
    return texts


def is_sound(text: str, reading: Reading) -> bool:
    """Whether ``text`` is not empty, does not loop, and cites present findings only, each once.

    An Orphanet head must be supported by an organ system of a present finding, and the text after
    a colon must agree with the annotation that it cites.
    """
    words = text.lower().split()
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if not words or (triples and max(triples.values()) > _REPEATS):
        return False
    present = reading.present
    listed, colon, citation = text.partition(": ")
    if colon and not _is_annotated(citation.strip().removesuffix("."), frozenset(present)):
        return False
    heads = heads_named(listed)
    if not set(heads) <= set(plausible_heads(present)):
        return False
    for head in heads:
        listed = listed.lower().replace(f"{_HEAD_CLAUSE}{head}", "")
    cited = _affirmed_in(listed)
    return bool(cited) and len(cited) == len(set(cited)) and set(cited) <= set(present)


def grounded_part(text: str, reading: Reading) -> str:
    """``text`` without the list items that name no finding of the visit, or no new one.

    A small model learns what to name sooner than when to stop, and an item that is not recognised
    can't be checked. Empty where nothing is left.
    """
    before, colon, citation = text.removesuffix(".").partition(": ")
    listed, clause, head = before.partition(_HEAD_CLAUSE)
    present = set(reading.present)
    kept: list[str] = []
    cited: set[str] = set()
    for item in _items(listed):
        found = set(_affirmed_in(item))
        if found <= present and not found <= cited:
            kept.append(item)
            cited |= found
    return f"{_listed(kept)}{clause}{head}{colon}{citation}." if kept else ""


def evidence_list(reading: Reading, band: Band) -> str:
    """The plain list that replaces a rationale that failed its check twice, marked as such.

    Without a finding there is no reason in either direction, and the sentence states that alone.
    """
    wordings = list(present_wordings(reading).values())[: 2 * _FINDINGS]
    if not wordings:
        return "No finding was recognised in this visit."
    listed = _listed(wordings)
    return (
        f"{opening(band)} {listed} (findings listed from the visit; no rationale passed its check)."
    )


def _cite(label: Label, wordings: Mapping[str, str]) -> tuple[str, str] | None:
    """The wording of the finding that most patients with the labelled disease have, and a citation.

    ``wordings`` are those of the visit by HPO id. ``None`` where the disease has no profile, or
    none of its findings is present.
    """
    profile = _profiles().get(label.orpha_code or f"NAME:{normalise_name(label.disease_name)}")
    if profile is None:
        return None
    shared = [item for item in profile.findings if not item.excluded and item.hpo_id in wordings]
    if not shared:
        return None
    most = max(shared, key=lambda item: item.frequency)
    wording, often = wordings[most.hpo_id], _OFTEN[most.frequency_class]
    code = f" ({profile.orpha_code})" if profile.orpha_code else ""
    return wording, f"{wording} is {often} in {profile.name}{code}"


def _is_annotated(citation: str, present: frozenset[str]) -> bool:
    """Whether ``citation`` is of a present finding and agrees with the disease's annotation."""
    cited = _CITATION.fullmatch(citation.strip())
    if cited is None:
        return False
    profile = _profiles().get(cited["code"] or f"NAME:{normalise_name(cited['name'])}")
    if profile is None or profile.name.casefold() != cited["name"].casefold():
        return False
    found = present.intersection(load_recogniser().affirmed(cited["finding"]))
    return any(
        item.hpo_id in found
        and not item.excluded
        and _OFTEN[item.frequency_class] == cited["often"]
        for item in profile.findings
    )


@lru_cache(maxsize=1)
def _profiles() -> Mapping[str, DiseaseProfile]:
    return {item.disease_id: item for item in (*load_rare_profiles(), *load_common_profiles())}


def _affirmed_in(text: str) -> list[str]:
    return [item.hpo_id for item in load_recogniser().mentions(text) if item.state == "present"]


def _items(listed: str) -> Iterator[str]:
    """The items of a list; a separator inside a finding's name separates nothing."""
    mentions = load_recogniser().mentions(listed)
    start = 0
    for found in _SEPARATOR.finditer(listed):
        inside = (item.start < found.end() and found.start() < item.end for item in mentions)
        if not any(inside):
            yield listed[start : found.start()]
            start = found.end()
    yield listed[start:]


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
