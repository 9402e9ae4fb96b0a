"""Drift of visits or of screened answers between two files: ``rarealert drift REFERENCE NEW``.

Each quantity is counted in categories and compared by the population stability index. It has
drifted where the index is above a threshold and above what two samples of one population differ by
in 999 of 1,000 draws (``rarealert.quality.profile``). Files are read once and only counts are kept,
so memory does not grow with the files (docs/decisions/0019).
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from rarealert.errors import BadInputError
from rarealert.files import write_json, write_text
from rarealert.knowledge.hpo import load_ontology
from rarealert.quality.profile import band, stability_index
from rarealert.screening.answer import FLAGS
from rarealert.screening.tables import holds_answers, read_answers
from rarealert.templates import environment
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.demographics import AGE_EDGES
from rarealert.visits.reading import read_visit

MAX_PSI = 0.1
"""Population stability index, 0 and up, above which a quantity has drifted; 0.1 to 0.25 is called
moderate, and a scheduler should report it before it is more."""

_WORDS = (12, 25, 50, 100, 200, 400)  # words of a visit
_FINDINGS = (1, 2, 3, 5, 8)  # findings in the evidence, which lists eight at most
_DISTANCES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)  # distance from training in units of the threshold
_STEPS = 20  # fine steps a unit of log-odds, which are grouped into tenths of the reference
_TENTHS = 10
_CERTAIN = 12.0  # log-odds beyond which all risks are the same to a reader

Part = Literal["input", "refusal", "risk"]
Counts = dict[tuple[Part, str], Counter[str]]
"""Rows by category, for each part and quantity."""

_REFUSED: tuple[Part, str] = ("refusal", "refused")
_RISK: tuple[Part, str] = ("risk", "risk")


@dataclass(frozen=True)
class Quantity:
    """One quantity compared.

    ``reference`` and ``new`` count rows, ``psi`` is the index, ``chance`` the index that chance
    explains, and ``shares`` are the shares of each category in both files.
    """

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
    """The comparison of two files; ``kind`` is "visits" or "answers"."""

    kind: str
    threshold: float
    quantities: tuple[Quantity, ...]
    page: Path

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the quantities that drifted, the largest index first."""
        worst = sorted(self.quantities, key=lambda item: -item.psi)
        return tuple(item.name for item in worst if item.drifted)

    def sentence(self) -> str:
        """The result in one sentence."""
        count = len(self.quantities)
        if not self.drifted:
            return f"No drift in {count} quantities of {self.kind}; see {self.page}."
        named = ", ".join(self.drifted)
        return f"Drift in {len(self.drifted)} of {count} quantities ({named}); see {self.page}."


def drift(reference: Path, new: Path, page: Path, threshold: float = MAX_PSI) -> DriftReport:
    """Compare two files and write ``page`` (HTML) with a JSON file of the same name beside it.

    Raises:
        BadInputError: a file is missing, empty, damaged, or of another kind than the other, or
            ``page`` is a folder.
    """
    if page.is_dir():
        raise BadInputError(f"{page} is a folder; name a file for --out, such as drift.html.")
    kinds = {path: "answers" if holds_answers(path) else "visits" for path in (reference, new)}
    if len(set(kinds.values())) > 1:
        listed = " and ".join(f"{path.name} {kind}" for path, kind in kinds.items())
        raise BadInputError(f"One file holds answers, the other visits ({listed}); give two alike.")
    kind = kinds[reference]
    count = _count_answers if kind == "answers" else _count_visits
    before, after = count(reference), count(new)
    if kind == "answers":
        _group_risks(before, after)
    report = DriftReport(kind, threshold, tuple(_quantities(before, after, threshold)), page)
    _write(report)
    return report


def _count_visits(path: Path) -> Counts:
    from rarealert.screening.visit_files import read_rows

    counts: Counts = {}
    refusal: str | None = None
    for row in read_rows(path):
        _add(counts, _REFUSED, "no" if row.case else "yes")
        if row.case is not None:
            for name, category in _categories(row.case):
                _add(counts, ("input", name), category)
        elif refusal is None:
            refusal = f"row {row.line or row.number}: {row.reason}"
    return _checked(counts, path, refusal)


def _categories(case: Case) -> Iterator[tuple[str, str]]:
    """Name and category of each quantity of a visit; a visit has one or more organ systems."""
    from rarealert.knowledge.english import is_english

    texts = {name: text for name in TEXT_FIELDS if (text := getattr(case, name))}
    yield "sex", case.sex or "missing"
    yield "age", band(case.age_years, AGE_EDGES)
    yield "words", band(sum(len(text.split()) for text in texts.values()), _WORDS)
    yield "not english", "no" if is_english(texts.values()) else "yes"
    for name in TEXT_FIELDS:
        yield f"has {name}", "yes" if name in texts else "no"
    for system in _organ_systems(read_visit(case).present):
        yield "organ systems", system


def _count_answers(path: Path) -> Counts:
    counts: Counts = {}
    for row in read_answers(path):
        _add(counts, _REFUSED, "no")
        _add(counts, _RISK, str(_step(row.risk)))
        _add(counts, ("risk", "band"), row.band)
        _add(counts, ("input", "distance"), band(row.ood_score, _DISTANCES))
        _add(counts, ("input", "findings named"), band(len(row.evidence), _FINDINGS))
        present = (each.hpo_id for each in row.evidence if each.status == "present")
        for system in _organ_systems(present):
            _add(counts, ("input", "organ systems"), system)
        for name in FLAGS:
            part: Part = "refusal" if name == "abstain" else "input"
            category = "yes" if getattr(row, name) else "no"
            _add(counts, (part, name.replace("_", " ")), category)
    refused = path.with_name(f"{path.name}.refused.jsonl")
    if refused.is_file():
        with refused.open("rb") as stream:
            _add(counts, _REFUSED, "yes", sum(1 for _ in stream))
    return _checked(counts, path)


def _add(counts: Counts, key: tuple[Part, str], category: str, times: int = 1) -> None:
    counts.setdefault(key, Counter())[category] += times


def _checked(counts: Counts, path: Path, refusal: str | None = None) -> Counts:
    """``counts``, if more than refusals were counted."""
    if len(counts) < 2:
        why = f" ({refusal})" if refusal else ""
        raise BadInputError(f"{path} holds no visit to compare{why}; name another file.")
    return counts


def _organ_systems(hpo_ids: Iterable[str]) -> list[str]:
    """Names of the HPO branches below which the findings are, each once."""
    named = {system for hpo_id in hpo_ids if (system := _organ_system(hpo_id))}
    return sorted(named) or ["no finding"]


@cache
def _organ_system(hpo_id: str) -> str | None:
    ontology = load_ontology()
    living = ontology.resolve(hpo_id)
    branch = ontology.organ_system(living) if living else None
    return ontology.name(branch) if branch else None


def _step(risk: float) -> int:
    """The fine step of a risk 0-1 on the scale of log-odds."""
    inside = min(max(risk, 1e-12), 1 - 1e-12)
    logit = math.log(inside / (1 - inside))
    return round(min(max(logit, -_CERTAIN), _CERTAIN) * _STEPS)


def _group_risks(reference: Counts, new: Counts) -> None:
    """Group the fine steps of both files into tenths of the reference."""
    steps = sorted((int(step), count) for step, count in reference[_RISK].items())
    total, seen = sum(count for _, count in steps), 0
    edges: list[int] = []
    for step, count in steps:
        seen += count
        if seen >= total * (len(edges) + 1) / _TENTHS and len(edges) < _TENTHS - 1:
            edges.append(step + 1)
    for side in (reference, new):
        grouped: Counter[str] = Counter()
        for step_name, times in side[_RISK].items():
            grouped[_risk_band(int(step_name), edges)] += times
        side[_RISK] = grouped


def _risk_band(step: int, edges: list[int]) -> str:
    at = bisect_right(edges, step)
    bounds = [_risk_at(edge) for edge in edges]
    if at == 0:
        return f"below {bounds[0]:.2%}" if bounds else "all"
    return f"from {bounds[at - 1]:.2%}"


def _risk_at(step: int) -> float:
    return 1 / (1 + math.exp(-(step - 0.5) / _STEPS))


def _quantities(reference: Counts, new: Counts, threshold: float) -> Iterator[Quantity]:
    """Compare each quantity that both files have."""
    for part, name in sorted(reference.keys() & new.keys()):
        before, after = reference[part, name], new[part, name]
        psi, chance = stability_index(before, after)
        yield Quantity(
            part=part,
            name=name,
            reference=before.total(),
            new=after.total(),
            psi=round(psi, 6),
            chance=round(chance, 6),
            drifted=psi > max(threshold, chance),
            shares={
                category: tuple(round(side[category] / side.total(), 6) for side in (before, after))
                for category in sorted(before.keys() | after.keys(), key=_order)
            },
        )


def _order(category: str) -> tuple[bool, float, str]:
    """Bands by their number, other categories by name."""
    words = category.removesuffix("%").split()
    if len(words) == 2 and words[0] in ("below", "from"):
        return True, float(words[1]) - (words[0] == "below") * 1e-9, category
    return False, 0.0, category


def _write(report: DriftReport) -> None:
    page = environment(Path(__file__).parent).get_template("drift.html.j2").render(report=report)
    write_text(report.page, page)
    content = {
        "kind": report.kind,
        "threshold": report.threshold,
        "drifted": list(report.drifted),
        "quantities": [asdict(item) for item in report.quantities],
    }
    write_json(report.page.with_suffix(".json"), content)
