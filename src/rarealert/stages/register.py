"""Register the student, judge it, and promote it if every gate passes: ``rarealert register``.

The version becomes ``challenger`` whatever the gates say; ``champion`` moves only when all pass
and ``register.promote`` allows it. Failing gates are an honest result, not an error.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rarealert
from rarealert.cases.case import TEXT_FIELDS, LabelledCase
from rarealert.cases.splits import lock_digest
from rarealert.cases.store import read_cases, write_json
from rarealert.errors import BadInputError
from rarealert.metrics.predictions import STUDENT, read_predictions
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.registry.card import CardFacts, render_card
from rarealert.registry.digests import file_sha256
from rarealert.registry.evidence import Evidence, TextScan
from rarealert.registry.gates.catalogue import gates, judge
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.promotion import Decision, promote
from rarealert.registry.scan import scan, shingles
from rarealert.registry.tracked import attach, log_judgement, read_champion, tracked_folders
from rarealert.registry.versions import (
    FAILED_GATES,
    ModelPackage,
    Registered,
    register_version,
    tag_version,
)
from rarealert.registry.workspace import changed_sources, check_inputs
from rarealert.screening.parity import ask_again
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Item, Metric, Summary, Tags
from rarealert.tracking.lineage import git_commit


@dataclass(frozen=True)
class _Study:
    """What the stages above left: cases by part, risks on test, the report, the student."""

    cases: Mapping[str, Sequence[LabelledCase]]
    risks: Mapping[str, Mapping[str, float]]
    report: Mapping[str, Any]
    student: Mapping[str, Any]
    adapter: Path

    @property
    def calibration_prevalence(self) -> float:
        """Share of rare cases in the validation part, which the calibrator is fitted on."""
        valid = self.cases["valid"]
        return sum(item.label.label == "rare" for item in valid) / len(valid)

    @property
    def test_digest(self) -> str:
        """Digest of the test part's case ids, as the split locks it."""
        return lock_digest(item.case.case_id for item in self.cases["test"])


def register(params: Params, paths: Paths) -> Iterator[Item]:
    """Register, reload, judge and perhaps promote; write ``gates.json`` and ``card.md``."""
    study = _read_study(paths)
    yield from _datasets(study, paths)
    commit = git_commit(paths.root)
    name = params.register_.model_name
    version = register_version(name, _package(study), _tags(study, paths, commit))
    evidence = _collect(study, version, paths)
    results = judge(evidence, gates(params.register_, params.evaluate))
    failed = [result.code for result in results if not result.passed]
    tag_version(version, {FAILED_GATES: ",".join(failed) or "none"})
    log_judgement(version, evidence.risks[STUDENT], evidence.test_lock, _figures(study.report))

    verdict = _verdict(version, results)
    wanted = not failed and params.register_.promote == "when_gates_pass"
    moved = wanted and _promote(version, evidence, commit, str(verdict["evidence"]), paths)
    champion = wanted or (evidence.champion is not None and evidence.champion.same_as_challenger)
    card = render_card(_facts(study, version, commit), study.report, results)
    folder = paths.report("register")
    write_json(folder / "gates.json", verdict | {"promoted": champion})
    attach(version, _description(study.report, failed), _write(folder / "card.md", card))
    yield Artifact(folder / "card.md")
    yield Artifact(folder / "gates.json")
    yield Tags({"model.name": version.name, "model.version": version.version})
    yield Metric("gates.passed", len(results) - len(failed))
    yield Metric("gates.failed", len(failed))
    yield Summary(_summary(version, results, champion, moved))


def _read_study(paths: Paths) -> _Study:
    split = paths.build("split")
    cases = {part: read_cases(split / f"{part}.parquet") for part in ("train", "valid", "test")}
    predictions = read_predictions(paths.build("score") / "predictions.parquet")
    risks: dict[str, dict[str, float]] = {}
    for row in predictions[predictions["part"] == "test"].to_dict("records"):
        risks.setdefault(str(row["model"]), {})[str(row["case_id"])] = float(row["risk"])
    if STUDENT not in risks:
        raise BadInputError("The predictions hold no student; run dvc repro score.")
    adapter = paths.build("distil") / "adapter"
    return _Study(
        cases=cases,
        risks=risks,
        report=_read_json(paths.report("evaluate") / "metrics.json", "evaluate"),
        student=_read_json(adapter / "student.json", "distil"),
        adapter=adapter,
    )


def _datasets(study: _Study, paths: Paths) -> Iterator[Item]:
    for part, cases in study.cases.items():
        file = paths.build("split") / f"{part}.parquet"
        yield Dataset(f"split.{part}", file, file_sha256(file), len(cases), part)


def _package(study: _Study) -> ModelPackage:
    from rarealert.screening import pyfunc

    return ModelPackage(
        adapter=study.adapter,
        base_digest=str(study.student["base_digest"]),
        source=Path(rarealert.__file__).parent,
        entry="screening/pyfunc.py",
        config={pyfunc.CALIBRATION_PREVALENCE: study.calibration_prevalence},
        signature=pyfunc.signature(),
        input_example=pyfunc.input_example(),
    )


def _tags(study: _Study, paths: Paths, commit: str) -> dict[str, str]:
    lock = paths.root / "dvc.lock"
    tags = {
        "base.model": str(study.student["base_model"]),
        "renderer.version": str(study.student["renderer_version"]),
        "git.commit": commit,
        "test.sha256": study.test_digest,
    }
    return tags | ({"dvc.lock.sha256": file_sha256(lock)} if lock.is_file() else {})


def _collect(study: _Study, version: Registered, paths: Paths) -> Evidence:
    """Everything the gates ask for, measured on the registered version itself."""
    import mlflow

    lock = str(_read_json(paths.report("split") / "lock.json", "split").get("test_lock"))
    test = study.cases["test"]
    asked = ask_again(mlflow.pyfunc.load_model(version.uri), [item.case for item in test])
    return Evidence(
        challenger=STUDENT,
        rare={item.case.case_id: item.label.label == "rare" for item in test},
        disease={item.case.case_id: item.label.disease_id for item in test},
        risks=study.risks,
        champion=read_champion(version, lock),
        reported=study.report,
        test_lock=lock,
        test_digest=study.test_digest,
        leaks=_leaks(_read_json(paths.report("split") / "leakage.json", "split")),
        train_cases=frozenset(item.case.case_id for item in study.cases["train"]),
        target_folds=_folds(paths.build("align") / "risk.parquet"),
        reloaded=asked.risks,
        latency_s=asked.latency_s,
        scan=_scan(study, version, paths),
        inputs=check_inputs(paths.root, "register"),
        dirty=changed_sources(paths.root),
    )


def _scan(study: _Study, version: Registered, paths: Paths) -> TextScan:
    cases = [item.case for part in ("train", "test") for item in study.cases[part]]
    texts = (getattr(case, name) or "" for case in cases for name in TEXT_FIELDS)
    with tracked_folders(paths.root / "build", version) as folders:
        return scan(folders, shingles(texts), known=[Path(rarealert.__file__).parent])


def _leaks(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What the leakage report counts on two sides; a report without such counts is no proof."""
    counts = dict(_two_sided(report))
    if not counts:
        return ("it counts nothing",)
    return tuple(f"{count} {name}" for name, count in sorted(counts.items()) if count)


def _two_sided(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in report.items():
        if isinstance(value, dict):
            yield from _two_sided(value)
        elif key.endswith("_on_two_sides"):
            yield key.replace("_", " "), int(value)


def _folds(file: Path) -> dict[str, int | None]:
    import pandas as pd

    if not file.is_file():
        raise BadInputError(f"{file} is missing; run dvc repro align.")
    targets = pd.read_parquet(file, columns=["case_id", "part", "fold"])
    train = targets[targets["part"] == "train"]
    return {
        str(row["case_id"]): None if pd.isna(row["fold"]) else int(row["fold"])
        for row in train.to_dict("records")
    }


def _promote(
    version: Registered, evidence: Evidence, commit: str, digest: str, paths: Paths
) -> bool:
    expected = evidence.champion.version if evidence.champion else None
    decision = Decision(version.name, version.version, expected, commit, digest)
    return promote(decision, paths.mlruns / "promotions.jsonl")


def _verdict(version: Registered, results: Sequence[GateResult]) -> dict[str, Any]:
    """The gates' results with a digest that the log of promotions refers to."""
    verdict = {
        "model_name": version.name,
        "version": version.version,
        "identity": dict(version.identity),
        "gates": [asdict(result) for result in results],
    }
    canonical = json.dumps(verdict, sort_keys=True).encode()
    return verdict | {"evidence": hashlib.sha256(canonical).hexdigest()}


def _facts(study: _Study, version: Registered, commit: str) -> CardFacts:
    return CardFacts(
        name=version.name,
        version=version.version,
        base_model=_shown(str(study.student["base_model"])),
        identity=version.identity,
        renderer_version=str(study.student["renderer_version"]),
        commit=commit,
        sources=sorted({item.case.source for item in study.cases["test"]}),
        cases={part: len(cases) for part, cases in study.cases.items()},
        calibration_prevalence=study.calibration_prevalence,
    )


def _shown(base_model: str) -> str:
    """A name for readers elsewhere: a folder of this machine tells them nothing."""
    return Path(base_model).name if Path(base_model).is_absolute() else base_model


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    held = report["models"][STUDENT]
    return {name: float(figure["value"]) for name, figure in sorted(held.items())}


def _description(report: Mapping[str, Any], failed: Sequence[str]) -> str:
    figure = report["models"][STUDENT]["auroc"]
    verdict = f"Failed {', '.join(failed)}" if failed else "All gates passed"
    return (
        f"AUROC {figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f}, "
        f"n = {figure['n']}) on the locked test part. {verdict}; see card.md among the model's "
        "files. Decision support, not a diagnosis."
    )


def _summary(
    version: Registered, results: Sequence[GateResult], champion: bool, moved: bool
) -> str:
    failed = [result.code for result in results if not result.passed]
    said = f"version {version.version}" + ("" if version.created else " (unchanged)")
    said += f", {len(results) - len(failed)} of {len(results)} gates passed"
    if failed:
        standing = "champion from before" if champion else "challenger only"
        return f"{said}, {', '.join(failed)} failed: {standing}"
    if champion:
        return f"{said}: {'now' if moved else 'still'} champion"
    return f"{said}: challenger, promotion is off"


def _read_json(file: Path, stage: str) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro {stage}.") from error
    except ValueError as error:
        raise BadInputError(f"{file} is not valid JSON; run dvc repro -f {stage}.") from error
    if not isinstance(held, dict):
        raise BadInputError(f"{file} is not a JSON object; run dvc repro -f {stage}.")
    return held


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    return file


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("register", register)
