"""The organ systems that a visit's findings belong to, by HPO's branches.

Do the visits of now look like those of then? Commands: ``rarealert drift REF NEW``.

Both files hold visits, or both hold screened answers. Each quantity is counted in categories and
compared by the population stability index, which counts as drift above a threshold and above what
two samples of one population differ by in 999 of 1,000 draws (``rarealert.quality.profile``).
A single pass with counts alone: memory does not grow with the files (docs/decisions/0019). Where
the extra ``drift`` is installed, evidently draws its own page of the same counts (0250).
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rarealert.errors import BadInputError
from rarealert.files import write_json, write_text
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.recognise import findings_of
from rarealert.quality.profile import band, stability_index
from rarealert.screening.tables import holds_answers, read_answers
from rarealert.templates import environment
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.demographics import AGE_EDGES

NONE = "no finding"


def systems_of_case(case: Case) -> Sequence[str]:
    """Names of the systems of what ``case`` is coded or told to have, each once."""
    told, _ = findings_of({name: getattr(case, name) for name in TEXT_FIELDS})
    return _systems((*told, *(case.findings_present or ())))


def systems_of_evidence(evidence: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """Names of the systems of the findings that an answer lists as present, each once."""
    return _systems(each["hpo_id"] for each in evidence if each["status"] == "present")


def _systems(hpo_ids: Iterable[str]) -> Sequence[str]:
    named = {system for hpo_id in hpo_ids if (system := _system(hpo_id))}
    return sorted(named) or (NONE,)


@cache
def _system(hpo_id: str) -> str | None:
    ontology = load_ontology()
    living = ontology.resolve(hpo_id)
    branch = ontology.organ_system(living) if living else None
    return ontology.name(branch) if branch else None


MAX_PSI = 0.1
"""Population stability index 0 and up above which a quantity has drifted; 0.1 to 0.25 is called
moderate, and a scheduler should hear of it before it is more."""

_WORDS = (12, 25, 50, 100, 200, 400)  # words of a visit
_FINDINGS = (1, 2, 3, 5, 8)  # findings that the student names; it names eight at most
_STRANGE = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # distance in units of the threshold
_STEPS = 20  # fine steps a unit of log-odds, of which tenths of the reference are made
_TENTHS = 10
_CERTAIN = 12.0  # log-odds beyond which all risks are the same to a reader

Part = Literal["input", "risk", "refusal"]
Counts = dict[str, Counter[str]]


@dataclass(frozen=True)
class Quantity:
    """One quantity compared: rows counted on either side, its index, and what chance explains."""

    part: Part
    name: str
    reference: int
    new: int
    psi: float
    chance: float
    drifted: bool
    shares: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class DriftReport:
    """What was compared; ``kind`` is "visits" or "answers", ``evidently`` its page if installed."""

    kind: str
    threshold: float
    quantities: tuple[Quantity, ...]
    page: Path
    evidently: Path | None = None

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the quantities that drifted, the worst first."""
        worst = sorted(self.quantities, key=lambda item: -item.psi)
        return tuple(item.name for item in worst if item.drifted)

    def sentence(self) -> str:
        """What a user wants to know at the end."""
        count = len(self.quantities)
        see = f"see {self.page}" + (f" and {self.evidently}" if self.evidently else "")
        if not self.drifted:
            return f"No drift in {count} quantities of {self.kind}; {see}."
        named = ", ".join(self.drifted)
        return f"Drift in {len(self.drifted)} of {count} quantities ({named}); {see}."


def drift(reference: Path, new: Path, page: Path, threshold: float = MAX_PSI) -> DriftReport:
    """Compare two files and write ``page`` (HTML) with a JSON file of the same name beside it.

    Raises:
        BadInputError: a file is missing, empty, damaged, or of another kind than the other, or
            ``page`` is a folder.
        EvidentlyError: evidently is installed but fails; ``page`` is written all the same.
    """
    from rarealert.screening.evidently_page import write_evidently

    if page.is_dir():
        raise BadInputError(f"{page} is a folder; name a file for --out, such as drift.html.")
    kinds = {path: "answers" if holds_answers(path) else "visits" for path in (reference, new)}
    if len(set(kinds.values())) > 1:
        told = " and ".join(f"{path.name} {kind}" for path, kind in kinds.items())
        raise BadInputError(f"One file holds answers, the other visits ({told}); give two alike.")
    kind = kinds[reference]
    sides = [_answers(path) if kind == "answers" else _visits(path) for path in (reference, new)]
    if kind == "answers":
        _cut_risk(sides[0], sides[1])
    quantities = tuple(_compared(sides[0], sides[1], threshold))
    report = DriftReport(kind, threshold, quantities, page)
    _write(report)
    return replace(report, evidently=write_evidently(report))


def _visits(path: Path) -> Counts:
    from rarealert.screening.visit_files import read_rows

    counts: Counts = {}
    amiss: str | None = None
    for row in read_rows(path):
        _count(counts, "refusal: refused", "no" if row.case else "yes")
        if row.case is not None:
            for name, category in _of_case(row.case):
                _count(counts, f"input: {name}", category)
        elif amiss is None:
            amiss = f"row {row.line or row.number}: {row.reason}"
    return _known(counts, path, amiss)


def _of_case(case: Case) -> Iterator[tuple[str, str]]:
    from rarealert.knowledge.english import is_english

    texts = {name: text for name in TEXT_FIELDS if (text := getattr(case, name))}
    yield "sex", case.sex or "missing"
    yield "age", band(case.age_years, AGE_EDGES)
    yield "words", band(sum(len(text.split()) for text in texts.values()), _WORDS)
    yield "not english", "no" if is_english(texts.values()) else "yes"
    for name in TEXT_FIELDS:
        yield f"has {name}", "yes" if name in texts else "no"
    for system in systems_of_case(case):
        yield "organ systems", system


def _answers(path: Path) -> Counts:

    counts: Counts = {}
    for row in read_answers(path):
        _count(counts, "refusal: refused", "no")
        _count(counts, "risk: risk", str(_step(row.risk)))
        _count(counts, "risk: band", row.band)
        _count(counts, "input: distance", band(row.distance, _STRANGE))
        _count(counts, "input: findings named", band(len(row.evidence), _FINDINGS))
        for system in systems_of_evidence(row.evidence):
            _count(counts, "input: organ systems", system)
        for name, said in row.flags.items():
            part = "refusal" if name == "abstain" else "input"
            _count(counts, f"{part}: {name.replace('_', ' ')}", "yes" if said else "no")
    refused = path.with_name(f"{path.name}.refused.jsonl")
    if refused.is_file():
        with refused.open("rb") as stream:
            _count(counts, "refusal: refused", "yes", sum(1 for _ in stream))
    return _known(counts, path)


def _known(counts: Counts, path: Path, amiss: str | None = None) -> Counts:
    if len(counts) < 2:
        why = f" ({amiss})" if amiss else ""
        raise BadInputError(f"{path} holds no visit to compare{why}; name another file.")
    return counts


def _count(counts: Counts, name: str, category: str, times: int = 1) -> None:
    counts.setdefault(name, Counter())[category] += times


def _step(risk: float) -> int:
    """The fine step of a risk 0-1 on the scale of log-odds."""
    inside = min(max(risk, 1e-12), 1 - 1e-12)
    logit = math.log(inside / (1 - inside))
    return round(min(max(logit, -_CERTAIN), _CERTAIN) * _STEPS)


def _cut_risk(reference: Counts, new: Counts) -> None:
    """Put the fine steps of both sides into tenths of the reference."""
    fine = sorted((int(step), count) for step, count in reference["risk: risk"].items())
    total, seen = sum(count for _, count in fine), 0
    edges: list[int] = []
    for step, count in fine:
        seen += count
        if seen >= total * (len(edges) + 1) / _TENTHS and len(edges) < _TENTHS - 1:
            edges.append(step + 1)
    for side in (reference, new):
        cut: Counter[str] = Counter()
        for label, times in side["risk: risk"].items():
            cut[_risk_band(int(label), edges)] += times
        side["risk: risk"] = cut


def _risk_band(step: int, edges: list[int]) -> str:
    at = bisect_right(edges, step)
    bounds = [_risk_at(edge) for edge in edges]
    if at == 0:
        return f"below {bounds[0]:.2%}" if bounds else "all"
    return f"from {bounds[at - 1]:.2%}"


def _risk_at(step: int) -> float:
    return 1 / (1 + math.exp(-(step - 0.5) / _STEPS))


def _compared(reference: Counts, new: Counts, threshold: float) -> Iterator[Quantity]:
    for key in sorted(reference.keys() & new.keys()):
        part, _, name = key.partition(": ")
        before, after = reference[key], new[key]
        psi, chance = stability_index(before, after)
        sizes = before.total(), after.total()
        yield Quantity(
            part=part,  # type: ignore[arg-type]  # the keys are written in this module
            name=name,
            reference=sizes[0],
            new=sizes[1],
            psi=round(psi, 6),
            chance=round(chance, 6),
            drifted=psi > max(threshold, chance),
            shares={
                category: tuple(round(side[category] / side.total(), 6) for side in (before, after))
                for category in sorted(before.keys() | after.keys(), key=_order)
            },
        )


def _order(category: str) -> tuple[bool, float, str]:
    """Bands by their number, the rest by name."""
    words = category.removesuffix("%").split()
    if len(words) == 2 and words[0] in ("below", "from"):
        value = float(words[1])
        return True, value - (words[0] == "below") * 1e-9, category
    return False, 0.0, category


def _write(report: DriftReport) -> None:
    page = environment(Path(__file__).parent).get_template("drift.html.j2").render(report=report)
    write_text(report.page, page)
    said = {
        "kind": report.kind,
        "threshold": report.threshold,
        "drifted": list(report.drifted),
        "quantities": [asdict(item) for item in report.quantities],
    }
    write_json(report.page.with_suffix(".json"), said)
