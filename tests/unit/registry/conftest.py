"""Evidence of a challenger that passes every gate, and ways to spoil it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.metrics import auroc
from rarealert.registry.gates.approval import Approval
from rarealert.registry.judged import Evidence, InputCheck, TextScan

CASES = 120
Spoil = Callable[..., Evidence]


def _risks(separation: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=CASES) + separation * (2 * (np.arange(CASES) % 2) - 1)
    return {f"case-{i}": float(1 / (1 + np.exp(-value))) for i, value in enumerate(logits)}


@pytest.fixture(scope="session")
def plan() -> Bootstrap:
    return Bootstrap(resamples=300, confidence=0.95, seed=3)


@pytest.fixture
def sound() -> Spoil:
    """The evidence with fields replaced; ``student=…`` and others by name of the model."""
    rare = {f"case-{i}": i % 2 == 1 for i in range(CASES)}
    risks = {
        "student": _risks(1.0, 1),
        "teacher:good": _risks(1.0, 2),
        "teacher:poor": _risks(0.3, 3),
        "control:length": _risks(0.0, 4),
    }
    labels, scored = [float(rare[key]) for key in sorted(rare)], risks["student"]
    figure = {
        "value": round(auroc(labels, [scored[key] for key in sorted(rare)]), 6),
        "ci_low": 0.8,
        "ci_high": 0.97,
        "n": CASES,
    }
    evidence = Evidence(
        challenger="student",
        rare=rare,
        disease={key: f"D{i // 2}" for i, key in enumerate(rare)},
        risks=risks,
        champion=None,
        reported={"models": {"student": {"auroc": figure}}},
        test_lock="a",
        test_digest="a",
        leaks=(),
        train_cases=frozenset({"t1", "t2", "t3"}),
        target_folds={"t1": 0, "t2": 1},
        reloaded={key: scored[key] for key in list(scored)[:10]},
        latency_s=0.2,
        load_error=None,
        memory_gib=1.2,
        schema_faults=(),
        base_model="smollm2-135m-instruct",
        cells={
            "head": {key: "neurologic" for key, is_rare in rare.items() if is_rare},
            "source": dict.fromkeys(rare, "simulated"),
            "sex": {key: ("female", "male")[i // 2 % 2] for i, key in enumerate(rare)},
        },
        sources=("simulated",),
        thresholds={"alert": (0.7, 0.7001), "watch": (0.3, 0.3)},
        trained_on={"train": ("a", "a"), "valid": ("b", "b")},
        stale=(),
        scan=TextScan(4, {}),
        inputs=InputCheck(True, 7, (), ()),
        dirty=(),
    )

    def spoil(models: dict[str, Any] | None = None, **fields: Any) -> Evidence:
        return replace(evidence, risks={**risks, **(models or {})}, **fields)

    return spoil


@pytest.fixture(scope="session")
def risks_of() -> Callable[[float, int], dict[str, float]]:
    return _risks


@pytest.fixture(scope="session")
def repo() -> Path:
    return Path(__file__).parents[3]


@pytest.fixture
def approval() -> Callable[..., Approval]:
    """What the registry holds of a version that may pass, with fields replaced."""
    identity = {
        "adapter.sha256": "f00d",
        "base.sha256": "ba5e",
        "code.sha256": "c0de",
        "config.sha256": "5e77",
    }
    held = Approval(
        name="toy",
        version="3",
        judgement={
            "model_name": "toy",
            "version": "3",
            "identity": identity,
            "gates": [
                {"code": "RA001", "passed": True, "threshold": 0.78},
                {"code": "RA002", "passed": True, "threshold": -0.05},
            ],
            "evidence": "beef",
        },
        judgement_digest="beef",
        noted_digest="beef",
        failed_in_run=0.0,
        limits={"RA001": 0.02, "RA002": 0.05},
        identity=dict(identity),
        card="Adapter `f00d`.",
        card_of_adapter="Adapter `f00d`.",
        log_fault=None,
    )

    def change(**fields: Any) -> Approval:
        return replace(held, **fields)

    return change
