"""The facts that gates judge a version by: collected once by ``register``, then only read."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.evaluation.metrics import UndefinedMetricError, auroc
from rarealert.evaluation.predictions import STUDENT
from rarealert.evaluation.subgroups import MIN_CELL

SMALL_HEADS = "small heads together"
"""Name of the group of rare cases whose Orphanet head has too few of them."""


@dataclass(frozen=True)
class Champion:
    """The version in use and its risks on the test part it was judged on.

    ``risks`` is empty where its run kept none for this test part; only ``auroc`` can then be
    compared.
    """

    version: str
    same_as_challenger: bool
    risks: Mapping[str, float]
    auroc: float | None


@dataclass(frozen=True)
class TextScan:
    """Number of files searched for case text, and the files with matches (path → shingles)."""

    files: int
    hits: Mapping[str, int]


@dataclass(frozen=True)
class WorkspaceState:
    """The workspace compared with ``dvc.lock``.

    ``fault`` is the reason why DVC could not compare; the rest is then empty. ``inputs`` are the
    data dependencies of the stage; ``changed`` ones differ from their pin and ``unpinned`` ones
    have none. ``stale`` lists what changed since the stages above ran, as ``<stage>: <path or
    key>``.
    """

    fault: str | None = None
    inputs: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class GateInput:
    """Everything known of a challenger when it is judged. Risks are 0-1, keys are case ids."""

    rare: Mapping[str, bool]
    """Label of every case of the test part."""
    disease: Mapping[str, str]
    """Disease of every case of the test part; resampling draws whole diseases."""
    risks: Mapping[str, Mapping[str, float]]
    """Model → case → risk on the test part; a missing answer has no entry."""
    champion: Champion | None
    report: Mapping[str, Any]
    """``reports/evaluate/metrics.json``."""
    test_lock: str
    """Digest of the test part as the split locked it."""
    test_digest: str
    """Digest of the test part on disk."""
    leaks: tuple[str, ...]
    """Findings of the leakage report, one phrase each; empty where it is clean."""
    train_cases: frozenset[str]
    target_folds: Mapping[str, int | None]
    """Fold that each training target was predicted from; ``None`` where it is in-fold."""
    reloaded: Mapping[str, float]
    """Risks of the registered version, freshly loaded, on some cases of the test part."""
    latency_s: float | None
    """Median seconds for one visit with the model already loaded; ``None`` if it can't load."""
    load_error: str | None
    """Why the registered version can't be loaded; ``reloaded`` is then empty."""
    memory_gib: float
    """Peak resident memory of the process that loaded and ran it."""
    schema_faults: tuple[str, ...]
    """Differences of its columns from what screening expects, one phrase each."""
    base_model: str
    """Name of the base model; a local folder by its last part."""
    cells: Mapping[str, Mapping[str, str]]
    """Kind of subgroup → case → cell. Kinds are ``head`` (rare cases alone), ``source``, ``age``
    and ``sex``; a case of unknown age or sex has no cell there."""
    sources: tuple[str, ...]
    """``ingest.sources`` of ``params.yaml``."""
    thresholds: Mapping[str, tuple[float, float]]
    """Name of a threshold → the packaged one and the one from the validation part, both 0-1."""
    trained_on: Mapping[str, tuple[str | None, str]]
    """Part → digest recorded by the student at training, and digest of the part on disk."""
    scan: TextScan
    workspace: WorkspaceState
    dirty: tuple[str, ...] | None
    """Changed source files; ``None`` outside a git repository."""

    def answered(self, model: str = STUDENT) -> dict[str, float]:
        """Return the usable risks of ``model``: of a test case, finite, and within 0-1."""
        return {
            key: risk
            for key, risk in self.risks.get(model, {}).items()
            if key in self.rare and math.isfinite(risk) and 0 <= risk <= 1
        }

    def scored(
        self, model: str = STUDENT, among: Iterable[str] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return labels (1 rare) and risks 0-1 of the answered cases, each of shape ``(n,)``."""
        risks = self.answered(model)
        ids = sorted(risks if among is None else risks.keys() & set(among))
        return (
            np.array([float(self.rare[key]) for key in ids]),
            np.array([risks[key] for key in ids], dtype=np.float64),
        )

    def auroc(self, model: str = STUDENT, among: Iterable[str] | None = None) -> float | None:
        """Return the AUROC on the answered cases, ``None`` where they do not define it."""
        labels, risks = self.scored(model, among)
        try:
            return float(auroc(labels, risks)) if labels.size else None
        except UndefinedMetricError:
            return None

    def teacher_aurocs(self, min_answered: float = 0) -> dict[str, float]:
        """Return the AUROC of each teacher that answered the share ``min_answered`` of cases."""
        enough = min_answered * len(self.rare)
        names = [name for name in self.risks if name.startswith("teacher:")]
        return {
            name: value
            for name in names
            if len(self.answered(name)) >= enough and (value := self.auroc(name)) is not None
        }


def rare_by_head(rare: Mapping[str, bool], heads: Mapping[str, str]) -> dict[str, list[str]]:
    """Group the rare cases by Orphanet head.

    Cases without a head and heads with fewer than ``MIN_CELL`` cases form ``SMALL_HEADS``: a
    figure on a few cases is mostly chance.
    """
    groups: dict[str, list[str]] = {}
    for key, is_rare in rare.items():
        if is_rare:
            groups.setdefault(heads.get(key, ""), []).append(key)
    large = {head: keys for head, keys in groups.items() if head and len(keys) >= MIN_CELL}
    small = [key for head, keys in groups.items() if head not in large for key in keys]
    return large | ({SMALL_HEADS: small} if small else {})


def group_by_cell(cell_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn case → cell into cell → cases."""
    groups: dict[str, list[str]] = {}
    for key, cell in cell_of.items():
        groups.setdefault(cell, []).append(key)
    return groups


def is_judged_alone(rare: Mapping[str, bool], keys: Iterable[str]) -> bool:
    """Return whether these cases hold at least ``MIN_CELL`` of each label."""
    labels = [rare[key] for key in keys]
    return min(sum(labels), len(labels) - sum(labels)) >= MIN_CELL
