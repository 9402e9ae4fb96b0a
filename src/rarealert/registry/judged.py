"""What the gates judge: collected once by the stage, then only read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Champion:
    """The version now in use and its risks on the test part it was judged on.

    ``risks`` is empty where its run kept none; ``auroc`` is then all that is left to compare.
    """

    version: str
    same_as_challenger: bool
    risks: Mapping[str, float]
    auroc: float | None


@dataclass(frozen=True)
class TextScan:
    """How many files were searched for case text, and which held some (path → shingles)."""

    files: int
    hits: Mapping[str, int]


@dataclass(frozen=True)
class InputCheck:
    """DVC's pins against the bytes of the stage's inputs; ``locked`` is false without a lock."""

    locked: bool
    checked: int
    changed: tuple[str, ...]
    unpinned: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """Everything known of a challenger when it is judged. Risks are 0-1, keys are case ids."""

    challenger: str
    """Name of the challenger among ``risks``, such as ``student``."""
    rare: Mapping[str, bool]
    """Label of every case of the test part."""
    disease: Mapping[str, str]
    """Disease of every case of the test part; resampling draws whole diseases."""
    risks: Mapping[str, Mapping[str, float]]
    """Model → case → risk on the test part; a missing answer has no entry."""
    champion: Champion | None
    reported: Mapping[str, Any]
    """``reports/evaluate/metrics.json``."""
    test_lock: str
    """Digest of the test part as the split locked it."""
    test_digest: str
    """Digest of the test part as it lies on disk."""
    leaks: tuple[str, ...]
    """What the leakage report found, one phrase each; empty where it is clean."""
    train_cases: frozenset[str]
    target_folds: Mapping[str, int | None]
    """Fold that each training target was predicted from; ``None`` where it is in-fold."""
    reloaded: Mapping[str, float]
    """Risks of the registered version, loaded anew, on some cases of the test part."""
    latency_s: float | None
    """Median seconds for one visit with the model already loaded; ``None`` if it can't be."""
    load_error: str | None
    """Why the registered version can't be loaded, if it can't; ``reloaded`` is then empty."""
    memory_gib: float
    """Peak resident memory of the process that loaded and asked it."""
    schema_faults: tuple[str, ...]
    """How its columns differ from what screening expects, one phrase each."""
    base_model: str
    """Name of the base model; a folder of this machine by its last part."""
    cells: Mapping[str, Mapping[str, str]]
    """Kind of subgroup → case → cell. Kinds are ``head`` (rare cases alone), ``source``, ``age``
    and ``sex``; a case of unknown age or sex has no cell there."""
    sources: tuple[str, ...]
    """Sources that ``params.yaml`` asks for."""
    thresholds: Mapping[str, tuple[float, float]]
    """Name of a threshold → the one packaged and the one the validation part gives, both 0-1."""
    trained_on: Mapping[str, tuple[str | None, str]]
    """Part → digest the student noted when it was trained, and digest of the part on disk."""
    stale: tuple[str, ...]
    """What changed since the stages above ran: ``<stage>: <path or key>``."""
    scan: TextScan
    inputs: InputCheck
    dirty: tuple[str, ...] | None
    """Changed source files; ``None`` outside a git repository."""

    def answered(self, model: str) -> dict[str, float]:
        """The usable risks of ``model``: of a test case, finite, and within 0-1."""
        return {
            key: risk
            for key, risk in self.risks.get(model, {}).items()
            if key in self.rare and math.isfinite(risk) and 0 <= risk <= 1
        }
