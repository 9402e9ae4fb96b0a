"""Rationales: what the student is taught to say, and the check of what it says.

A rationale opens with its direction and then names findings of the visit. The opening is given
by the label in training and by the band at work, so that it can't contradict the risk.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rarealert.cases.case import TEXT_FIELDS, Case
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import findings_of
from rarealert.student.calibration import Band

RAISED = "A rare disease is worth considering, because of"
LOWERED = "A common condition explains this visit, because of"

_FINDINGS = 4  # findings a rationale names: one sentence that a clinician reads at a glance
_REPEATS = 2  # the same three words may come this often before a text counts as looping


@dataclass(frozen=True)
class Leaning:
    """What one teacher said of a case: its verdict, and what it leaned on with which weight."""

    rare: bool
    insights: tuple[tuple[str, float], ...]


def opening(band: Band) -> str:
    """The first words of a rationale for ``band``."""
    return LOWERED if band == "low" else RAISED


def compose(case: Case, leanings: Iterable[Leaning], rare: bool) -> str | None:
    """The rationale to learn: a neutral merge of what the teachers on the right side leaned on.

    Insights go by their weight summed over teachers and count only where they name findings that
    are present in the visit; without any, the visit's own findings stand. ``None`` where nothing
    was recognised: what can't be grounded is not taught.
    """
    present, _ = visit_findings(case)
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
    return f"{RAISED if rare else LOWERED} {_listed(_names(chosen))}."


def visit_findings(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """HPO ids present and excluded in the visit: recognised in its text, and those coded."""
    present, excluded = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
    coded = tuple(item for item in case.findings_present or () if item not in present)
    return present + coded, excluded


def is_sound(text: str, case: Case) -> bool:
    """Whether a generated text says something, does not loop, and cites only what is there."""
    words = text.lower().split()
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if not words or (triples and max(triples.values()) > _REPEATS):
        return False
    cited, _ = findings_of(text)
    present, _ = visit_findings(case)
    return bool(cited) and set(cited) <= set(present)


def evidence_list(case: Case) -> str:
    """What stands in for a rationale that failed its check twice; it says that it does."""
    present, _ = visit_findings(case)
    if not present:
        return "no finding that could be recognised (no rationale passed its check)."
    names = _listed(_names(present[: 2 * _FINDINGS]))
    return f"{names} (findings listed from the visit; no rationale passed its check)."


def _names(findings: Sequence[str]) -> list[str]:
    terms = load_ontology().terms
    return [terms[item].name.lower() for item in findings if item in terms]


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
