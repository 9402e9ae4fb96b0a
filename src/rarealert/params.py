"""``params.yaml`` as frozen, typed models, and profiles that change some of its values.

The file documents each key. An unknown key, a missing one or a value out of range is refused with
the key's name. A profile (``profiles/``) holds only the keys that differ, and
``rarealert params use`` writes them into ``params.yaml``. That stays the only configuration that
stages and DVC read, so a run's settings are always the ones that git shows.
"""

import io
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rarealert.errors import BadInputError

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SimulatedParams(_Section):
    """The embedded corpus."""

    seed: Seed
    rare_cases: Count
    nonrare_cases: Count


class DataParams(_Section):
    """What ``rarealert data materialise`` writes to ``data/`` when nothing was imported."""

    simulated: SimulatedParams


class IngestParams(_Section):
    """Sources of the cases."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)]


class ValidateParams(_Section):
    """Limits of data quality; a corpus beyond one stops the graph."""

    min_cases_per_label: Count
    max_missing_age_share: Share
    max_refused_share: Share
    min_class_share: Share
    min_head_share: Share
    max_repeated_share: Share
    max_psi: Annotated[float, Field(gt=0)]
    accept_profile: str | None


class SplitParams(_Section):
    """Division of the diseases into train, valid and test."""

    seed: Seed
    valid_share: Share
    test_share: Share
    near_duplicate_jaccard: Share
    minhash_permutations: Count
    assign: Path | None
    hold_out: Annotated[str, Field(pattern=r"^(source|head):.+$")] | None
    test_from: date | Literal["auto"] | None
    test_lock: str | None


class TeachParams(_Section):
    """The panel of teachers, and the limits of calling it."""

    panel: str
    engine: Literal["local", "ray"]
    replay_only: bool
    cost_cap_usd: Annotated[float, Field(ge=0)]
    trace_sample: Annotated[int, Field(ge=0)]


class RationalesParams(_Section):
    """Coverage that a teacher needs to be used."""

    min_coverage: Share


class AlignParams(_Section):
    """The search for the ensemble."""

    seed: Seed
    folds: Annotated[int, Field(ge=2)]
    repeats: Count
    search_cases: Annotated[int, Field(ge=100)]
    explained_cases: Count
    trials: Count
    timeout_s: Seconds


class TuneParams(_Section):
    """The search for the student's hyper-parameters."""

    seed: Seed
    trials: Count
    timeout_s: Seconds
    epochs: Count
    train_cases: Count
    valid_cases: Count


class DistilParams(_Section):
    """The student's training."""

    base_model: str
    dtype: Literal["float32", "bfloat16"]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps|xpu(:\d+)?)$")]
    prompt: Literal["plain", "chat"]
    readout: Literal["mean", "last"]
    gradient_checkpointing: bool
    seed: Seed
    max_prompt_tokens: Count
    max_rationale_tokens: Count
    risk_layer: Count
    lora_layers: Count
    epochs: Count
    batch_size: Count
    correction_epochs: Annotated[int, Field(ge=0)]
    correction_rationales: Annotated[int, Field(ge=0)]
    knowledge_cases: Annotated[int, Field(ge=0)]
    profile_match: bool
    rationale_cases: Count
    rationale_layers: Count
    rationale_modules: Literal["attention", "all"]
    rationale_rank: Count
    rationale_epochs: Count
    rationale_batch_size: Count
    rationale_learning_rate: Annotated[float, Field(gt=0)]


class ScoreParams(_Section):
    """Scoring of the locked test part."""

    batch_size: Count
    seed: Seed
    robustness_cases: Count
    baseline_max_tokens: Annotated[int, Field(ge=16, le=512)]
    baseline_epochs: Annotated[int, Field(ge=0)]
    baseline_learning_rate: Annotated[float, Field(gt=0)]
    baseline_rank: Count
    baseline_soft_weight: Share


class EvaluateParams(_Section):
    """Bootstrap intervals."""

    resamples: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


class RegisterParams(_Section):
    """The registry's name and the gates' thresholds."""

    model_name: str
    promote: Literal["when_gates_pass", "never"]
    max_auroc_loss: Share
    max_auroc_below_best_teacher: Share
    min_auroc_above_control: Share
    max_ece: Share
    max_reload_difference: Annotated[float, Field(ge=0)]
    max_latency_s: Seconds
    min_head_auroc: Share
    min_subgroup_auroc: Share
    min_test_cases_per_label: Count
    max_threshold_difference: Share
    max_teacher_auroc: Share
    max_memory_gib: Annotated[float, Field(gt=0)]
    accepted_base_models: dict[str, str]


class Params(_Section):
    """The whole file: ``data`` and one section per stage."""

    data: DataParams
    ingest: IngestParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    split: SplitParams
    teach: TeachParams
    rationales: RationalesParams
    align: AlignParams
    tune: TuneParams
    distil: DistilParams
    score: ScoreParams
    evaluate: EvaluateParams
    register_: Annotated[RegisterParams, Field(alias="register")]


def load_params(path: Path) -> Params:
    """Read the configuration at ``path``.

    Raises:
        BadInputError: the file is missing, is not YAML, or has an unknown, missing or
            invalid key, which the message names.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; run the command inside a checkout.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is not valid YAML: {error}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadInputError(f"{path}: {key}: {first['msg']}{more}. Correct the key.") from error


def use_profile(profile: Path, params: Path) -> str:
    """Write the values of ``profile`` into the file ``params`` and return what to do next.

    Comments are kept.

    Raises:
        BadInputError: a file is missing or is not YAML, or the result is not a valid
            configuration; ``params`` is then unchanged.
    """
    text, changed = merged(params, profile)
    partial = params.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    try:
        load_params(partial)
    except BadInputError as error:
        partial.unlink()
        raise BadInputError(f"{profile} over {params.name}: {error}") from error
    partial.replace(params)
    return (
        f"{changed} values of {profile.name} are new in {params.name}. Check `git diff`, commit "
        "(only committed runs can be promoted), then run `dvc repro`."
    )


def merged(base: Path, profile: Path) -> tuple[str, int]:
    """The text of ``base`` with the values of ``profile``, and how many values changed.

    Raises:
        BadInputError: a file is missing or is not a mapping of sections.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Plain(RoundTripRepresenter):
        """Write a missing value as ``null``, as the file does."""

    Plain.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()
    yaml.Representer = Plain
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = _read(yaml, base)
    changed = 0
    for section, values in _read(yaml, profile).items():
        known = content.get(section)
        if not isinstance(known, dict) or not isinstance(values, dict):
            raise BadInputError(
                f"{profile}: {section} is not a section of {base.name}; use its sections and keys."
            )
        for key, value in values.items():
            changed += key not in known or known[key] != value
            known[key] = value
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue(), changed


def _read(yaml: Any, file: Path) -> Any:
    from ruamel.yaml.error import YAMLError

    try:
        content = yaml.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(
            f"{file} is missing; name a file such as profiles/full.yaml."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} is not valid YAML; correct it.") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{file} has no sections; write them as in params.yaml.")
    return content
