"""What an annotation says of a finding, told so that it can be looked up again.

A citation is ``<finding> is <how often> in <disease> (<ORPHA code>)``, the finding in the visit's
words and the rest from Orphanet's annotation in the HPO or from the table of common conditions.
Where a disease's own profile holds a rarer or more general term than the visit, nothing is cited.

Rationales: what the student is taught to say, and the check of what it says.

A rationale opens with its direction and then names findings of the visit. The opening is given
by the label in training and by the band at work, so that it can't contradict the risk.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from rarealert.calibration.student_calibration import Band
from rarealert.knowledge.heads import HEADS, heads_of_finding
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import (
    DiseaseProfile,
    FrequencyClass,
    load_common_profiles,
    load_rare_profiles,
)
from rarealert.knowledge.recognise import findings_of, load_recogniser
from rarealert.visits.case import TEXT_FIELDS, Case, Label, LabelledCase

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


def cite(label: Label, wordings: Mapping[str, str]) -> tuple[str, str] | None:
    """The finding of the visit that most patients with the labelled disease have, and its citation.

    ``wordings`` maps HPO ids that are present to the visit's words for them. ``None`` where the
    disease has no profile here, or none of its findings is present.
    """
    profile = _profiles().get(label.orpha_code or f"NAME:{normalise_name(label.disease_name)}")
    if profile is None:
        return None
    there = [item for item in profile.findings if not item.excluded and item.hpo_id in wordings]
    if not there:
        return None
    most = max(there, key=lambda item: item.frequency)
    code = f" ({profile.orpha_code})" if profile.orpha_code else ""
    often = _OFTEN[most.frequency_class]
    return most.hpo_id, f"{wordings[most.hpo_id]} is {often} in {profile.name}{code}"


def is_annotated(citation: str, present: frozenset[str]) -> bool:
    """Whether a citation tells of a present finding what the annotation of that disease says."""
    said = _CITATION.fullmatch(citation.strip())
    if said is None:
        return False
    profile = _profiles().get(said["code"] or f"NAME:{normalise_name(said['name'])}")
    if profile is None or profile.name.casefold() != said["name"].casefold():
        return False
    told = set(findings_of(said["finding"])[0]) & present
    return any(
        item.hpo_id in told and not item.excluded and _OFTEN[item.frequency_class] == said["often"]
        for item in profile.findings
    )


def heads_named(text: str) -> tuple[str, ...]:
    """Orphanet heads that ``text`` names, in lower case."""
    return tuple(_HEAD.findall(text.lower()))


def plausible_heads(present: Iterable[str]) -> tuple[str, ...]:
    """Heads of the organ systems of ``present`` HPO ids, in lower case, the most named first."""
    counts = Counter(head.lower() for item in present for head in heads_of_finding(item))
    return tuple(head for head, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


@lru_cache(maxsize=1)
def _profiles() -> Mapping[str, DiseaseProfile]:
    return {item.disease_id: item for item in (*load_rare_profiles(), *load_common_profiles())}


RAISED = "A rare disease is worth considering, because of"
LOWERED = "A common condition explains this visit, because of"

_FINDINGS = 4  # findings a rationale names: one sentence that a clinician reads at a glance
_GUIDED_FINDINGS = 3  # findings that guided generation may name
_CLAUSE = ", as in "
_BETWEEN = re.compile(r", and |, | and ")
_REPEATS = 2  # the same three words may come this often before a text counts as looping


@dataclass(frozen=True)
class Leaning:
    """What one teacher said of a case: its verdict, and what it leaned on with which weight."""

    rare: bool
    insights: tuple[tuple[str, float], ...]


def opening(band: Band) -> str:
    """The first words of a rationale for ``band``."""
    return LOWERED if band == "low" else RAISED


def opened(text: str) -> str:
    """The opening that a rationale begins with."""
    return RAISED if text.startswith(RAISED) else LOWERED


def compose(
    case: Case, leanings: Iterable[Leaning], rare: bool, head: str | None = None
) -> str | None:
    """The rationale to learn: a neutral merge of what the teachers on the right side leaned on.

    A rare one ends with the Orphanet ``head`` of the label, if an organ system of the named
    findings speaks for it.

    Insights go by their weight summed over teachers and count only where they name findings that
    are present in the visit; without any, the visit's own findings stand. They are told in the
    visit's own words, which a small model can find again. ``None`` where nothing was recognised:
    what can't be grounded is not taught.
    """
    present = visit_wordings(case)
    weights: dict[str, float] = {}
    for name, weight in (item for said in leanings if said.rare == rare for item in said.insights):
        for finding in findings_of(name)[0]:
            if finding in present:
                weights[finding] = weights.get(finding, 0.0) + weight
    ranked = sorted(weights, key=lambda finding: -weights[finding])[:_FINDINGS]
    rest = [finding for finding in present if finding not in ranked]
    chosen = (ranked + rest)[:_FINDINGS] if len(ranked) < 2 else ranked
    if not chosen:
        return None
    told = _listed([present[item] for item in chosen])
    if rare and head and head.lower() in plausible_heads(chosen):
        told += _head_clause(head.lower())
    return f"{RAISED if rare else LOWERED} {told}."


def compose_chain(item: LabelledCase, leanings: Iterable[Leaning]) -> str | None:
    """What a case that was judged wrongly should have said (MedThink's correction).

    It names first the finding that was missed, that is the one which most patients with the
    disease have, and ends with what the annotation of that disease says of it. ``None`` where
    the visit holds no finding that is annotated there.
    """
    case, label = item.case, item.label
    present = visit_wordings(case)
    found = cite(label, present)
    if found is None:
        return None
    missed, citation = found
    rare, said = label.label == "rare", list(leanings)
    own = Leaning(rare, ((present[missed], len(said) + 1.0),))  # above what all teachers weigh
    told = compose(case, [own, *said], rare, label.orphanet_head)
    return None if told is None else f"{told.removesuffix('.')}: {citation}."


def visit_findings(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """HPO ids present and excluded in the visit: recognised in its text, and those coded."""
    present, excluded = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
    coded = tuple(item for item in case.findings_present or () if item not in present)
    return present + coded, excluded


def visit_wordings(case: Case) -> dict[str, str]:
    """HPO id of each finding present in the visit → how the visit words it, in lower case.

    Coded findings that the text does not name stand under HPO's name.
    """
    present, _ = visit_findings(case)
    wordings: dict[str, str] = {}
    for name in TEXT_FIELDS:
        text = getattr(case, name) or ""
        for mention in load_recogniser().mentions(text, family=name == "family_history"):
            if not (mention.negated or mention.family):
                wordings.setdefault(mention.hpo_id, text[mention.start : mention.end].lower())
    terms = load_ontology().terms
    return {
        item: wordings[item] if item in wordings else terms[item].name.lower()
        for item in present
        if item in wordings or item in terms
    }


def choices(case: Case, band: Band) -> list[str]:
    """Every rationale, without its opening, that names one to three of the visit's findings.

    What guided generation may write: at most 400 texts, from the visit's first eight findings;
    unless ``band`` is low, each also with the head that most of the named findings speak for.
    """
    present = {text: item for item, text in reversed(visit_wordings(case).items())}
    wordings = list(reversed(present))[: 2 * _FINDINGS]
    told = []
    for count in range(1, min(_GUIDED_FINDINGS, len(wordings)) + 1):
        for names in permutations(wordings, count):
            told.append(f"{_listed(names)}.")
            heads = plausible_heads([present[name] for name in names])
            if band != "low" and heads:
                told.append(f"{_listed(names)}{_head_clause(heads[0])}.")
    return told


def is_sound(text: str, case: Case) -> bool:
    """Whether a text says something, does not loop, and cites, once each, only what is there.

    An Orphanet head must be one that an organ system of a present finding speaks for, and what
    follows a colon must stand in the annotation that it cites.
    """
    words = text.lower().split()
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if not words or (triples and max(triples.values()) > _REPEATS):
        return False
    present = visit_findings(case)[0]
    told, colon, citation = text.partition(": ")
    if colon and not is_annotated(citation.strip().removesuffix("."), frozenset(present)):
        return False
    heads = heads_named(told)
    if not set(heads) <= set(plausible_heads(present)):
        return False
    for head in heads:
        told = told.lower().replace(_head_clause(head), "")
    cited = [item.hpo_id for item in load_recogniser().mentions(told) if not item.negated]
    return bool(cited) and len(cited) == len(set(cited)) and set(cited) <= set(present)


def grounded_part(text: str, case: Case) -> str:
    """``text`` without the items of its list that name no finding of the visit, or no new one.

    A small model knows what to say sooner than when to stop, and what the recogniser does not know
    can't be checked. Empty where nothing is left.
    """
    told, colon, citation = text.removesuffix(".").partition(": ")
    listed, clause, head = told.partition(_CLAUSE)
    present = set(visit_findings(case)[0])
    kept: list[str] = []
    cited: set[str] = set()
    for item in _items(listed):
        found = {said.hpo_id for said in load_recogniser().mentions(item) if not said.negated}
        if found <= present and not found <= cited:
            kept.append(item)
            cited |= found
    return f"{_listed(kept)}{clause}{head}{colon}{citation}." if kept else ""


def _items(listed: str) -> list[str]:
    """The parts of a list; what stands between them may also stand within a finding's name."""
    mentions = load_recogniser().mentions(listed)
    items, start = [], 0
    for between in _BETWEEN.finditer(listed):
        if not any(said.start < between.end() and between.start() < said.end for said in mentions):
            items.append(listed[start : between.start()])
            start = between.end()
    return [*items, listed[start:]]


def evidence_list(case: Case) -> str:
    """What stands in for a rationale that failed its check twice; it says that it does."""
    wordings = list(visit_wordings(case).values())[: 2 * _FINDINGS]
    if not wordings:
        return "its wording alone: no finding could be recognised (no rationale passed its check)."
    return f"{_listed(wordings)} (findings listed from the visit; no rationale passed its check)."


def _head_clause(head: str) -> str:
    return f"{_CLAUSE}{head}"


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
