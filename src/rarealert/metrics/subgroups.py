"""Subgroups by source, Orphanet head, age band and sex; small ones pooled and named so."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarealert.metrics.counts import IntArray
from rarealert.metrics.panel import Study

MIN_CELL = 10  # cases of a label; a smaller group says more about chance than about the model
AGE_BANDS = ((0, 2), (2, 18), (18, 40), (40, 65), (65, 121))  # years, from and below

Cells = dict[str, IntArray]


@dataclass(frozen=True)
class Traits:
    """What subgroups are made of, each of shape ``(n,)``; ``None`` in a list where unknown."""

    source: NDArray[np.str_]
    head: list[str | None]
    age_years: list[float | None]
    sex: list[str | None]


def blocks_of(study: Study, traits: Traits) -> dict[str, Cells]:
    """The indices of every subgroup's cases: ``{block: {cell: indices}}``.

    Sources are never pooled: a claim about one must stand on its own. A head holds its rare
    cases and all non-rare ones, which have no head. Age bands and sexes are pooled where fewer
    than ``MIN_CELL`` cases of a label are left.
    """
    return {
        "by_source": _by(traits.source.tolist()),
        "by_category": head_cells(study, traits),
        "by_age_band": _pooled(study, _by(_age_bands(traits)), "ages"),
        "by_sex": _pooled(study, _by(traits.sex), "sexes"),
    }


def head_cells(study: Study, traits: Traits) -> Cells:
    """Orphanet heads, each with all non-rare cases; heads of few rare cases pooled as one."""
    rare, nonrare = study.labels == 1, np.flatnonzero(study.labels == 0)
    cells: Cells = {}
    small: list[IntArray] = []
    for name, index in _by([head or "no head known" for head in traits.head]).items():
        of_head = index[rare[index]]
        if of_head.size >= MIN_CELL:
            cells[name] = np.concatenate([of_head, nonrare])
        elif of_head.size:
            small.append(of_head)
    if small:
        name = f"other heads (each fewer than {MIN_CELL} rare cases)"
        cells[name] = np.concatenate([*small, nonrare])
    return {name: np.sort(index) for name, index in cells.items()}


def sizes(study: Study, index: IntArray) -> dict[str, int]:
    """Cases and diseases of a subgroup, rare ones beside all."""
    rare = index[study.labels[index] == 1]
    return {
        "n": int(index.size),
        "n_rare": int(rare.size),
        "n_nonrare": int(index.size - rare.size),
        "diseases": int(np.unique(study.diseases[index]).size),
        "rare_diseases": int(np.unique(study.diseases[rare]).size),
    }


def _by(values: Iterable[str | None]) -> Cells:
    named = np.array([value or "unknown" for value in values], dtype=np.str_)
    return {name: np.flatnonzero(named == name) for name in sorted(set(named.tolist()))}


def _pooled(study: Study, cells: Cells, what: str) -> Cells:
    kept: Cells = {}
    small: list[IntArray] = []
    for name, index in cells.items():
        n_rare = int(study.labels[index].sum())
        if min(n_rare, index.size - n_rare) >= MIN_CELL:
            kept[name] = index
        else:
            small.append(index)
    if small:
        name = f"other {what} (each fewer than {MIN_CELL} rare or non-rare cases)"
        kept[name] = np.sort(np.concatenate(small))
    return kept


def _age_bands(traits: Traits) -> list[str | None]:
    def band(age: float | None) -> str | None:
        if age is None:
            return None
        low, high = next(edges for edges in AGE_BANDS if age < edges[1])
        return f"{low:02d}-{high - 1:02d} years" if high < 121 else f"{low} years and older"

    return [band(age) for age in traits.age_years]
