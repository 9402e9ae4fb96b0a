"""All gates with their thresholds from ``params.yaml``, in the order of their codes."""

from collections.abc import Sequence

from rarealert.evaluation.intervals import Bootstrap
from rarealert.params import EvaluateParams, RegisterParams
from rarealert.registry.gates.gate import Gate
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


def gates(register: RegisterParams, evaluate: EvaluateParams) -> tuple[Gate, ...]:
    """Return all gates that judge a version at registration."""
    plan = Bootstrap(evaluate.resamples, evaluate.confidence, evaluate.seed)
    return (
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
    )


def limits(register: RegisterParams, among: Sequence[Gate]) -> dict[str, float | None]:
    """Return gate → its numeric setting in ``params.yaml``; ``None`` where it has none."""
    settings = {gate.code: getattr(register, gate.param) if gate.param else None for gate in among}
    return {
        code: float(value) if isinstance(value, int | float) else None
        for code, value in settings.items()
    }
