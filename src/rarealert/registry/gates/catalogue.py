"""Every gate with its threshold from ``params.yaml``, and the verdict of all of them."""

from collections.abc import Sequence

from rarealert.evaluation.intervals import Bootstrap
from rarealert.params import EvaluateParams, RegisterParams
from rarealert.registry.gates.gate import Gate, GateResult
from rarealert.registry.gates.integrity import (
    CleanTree,
    InputsPinned,
    LockedTest,
    NoCaseText,
    NoTeacherKnows,
    ReportTrue,
    StagesCurrent,
    TargetsOutOfFold,
    ThresholdsFromValidation,
    TrainedOnTrain,
)
from rarealert.registry.gates.operational import (
    BaseLicence,
    Latency,
    Memory,
    ReloadParity,
    SchemaKept,
)
from rarealert.registry.gates.statistical import (
    AboveControls,
    Calibrated,
    EverySource,
    NearBestTeacher,
    NotBelowChampion,
    WorstHead,
    WorstSubgroup,
)
from rarealert.registry.judged import Evidence


def gates(register: RegisterParams, evaluate: EvaluateParams) -> tuple[Gate, ...]:
    """All gates in the order of their codes."""
    plan = Bootstrap(evaluate.resamples, evaluate.confidence, evaluate.seed)
    found: list[Gate] = [
        NotBelowChampion(register.max_auroc_loss, plan),
        NearBestTeacher(register.max_auroc_below_best_teacher, plan),
        AboveControls(register.min_auroc_above_control, plan),
        Calibrated(register.max_ece),
        LockedTest(),
        TargetsOutOfFold(),
        ReloadParity(register.max_reload_difference),
        Latency(register.max_latency_s),
        NoCaseText(),
        InputsPinned(),
        CleanTree(),
        ReportTrue(),
        WorstHead(register.min_head_auroc),
        WorstSubgroup(register.min_subgroup_auroc),
        EverySource(register.min_test_cases_per_label),
        ThresholdsFromValidation(register.max_threshold_difference),
        TrainedOnTrain(),
        NoTeacherKnows(register.max_teacher_auroc),
        StagesCurrent(),
        Memory(register.max_memory_gib),
        SchemaKept(),
        BaseLicence(register.accepted_base_models),
    ]
    return tuple(found)


def limits(register: RegisterParams, among: Sequence[Gate]) -> dict[str, float | None]:
    """Gate → the number in ``params.yaml`` that it judges by; ``None`` where it has none."""
    said = {gate.code: getattr(register, gate.param) if gate.param else None for gate in among}
    return {
        code: float(value) if isinstance(value, int | float) else None
        for code, value in said.items()
    }


def judge(evidence: Evidence, among: Sequence[Gate]) -> tuple[GateResult, ...]:
    """The verdict of every gate; none is left out because another failed."""
    return tuple(gate.check(evidence) for gate in among)
