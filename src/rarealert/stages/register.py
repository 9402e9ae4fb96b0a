"""Register the student, judge it, and promote it if every gate passes: ``rarealert register``.

The version becomes ``challenger`` whatever the gates say; ``champion`` moves only when all pass
and ``register.promote`` allows it. Failing gates are an honest result, not an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rarealert
from rarealert.evaluation.predictions import STUDENT
from rarealert.evaluation.report import why_absent
from rarealert.files import write_json, write_text
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.registry.card import CardFacts, render_card
from rarealert.registry.gates.approval import approve, digest_of
from rarealert.registry.gates.catalogue import gates, judge, limits
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.judged import Evidence
from rarealert.registry.judgement import Study, collect, read_study
from rarealert.registry.promotion import Decision, promote
from rarealert.registry.tracked import attach, log_judgement, model_id
from rarealert.registry.versions import (
    FAILED_GATES,
    ModelPackage,
    Registered,
    file_sha256,
    register_version,
    tag_version,
)
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Item, Metric, Summary, Tags
from rarealert.tracking.lineage import git_commit


def register(params: Params, paths: Paths) -> Iterator[Item]:
    """Register, reload, judge and perhaps promote; write ``gates.json`` and ``card.md``."""
    study = read_study(paths)
    yield from _datasets(study, paths)
    commit = git_commit(paths.root)
    name = params.register_.model_name
    version = register_version(name, _package(study), _tags(study, paths, commit))
    evidence = collect(study, version, params, paths)
    asked = gates(params.register_, params.evaluate)
    results = judge(evidence, asked)
    judgement = _judgement(version, evidence, results)
    figures = _figures(study.report)
    log_judgement(version, judgement, _scored(study, evidence), figures)
    logged = model_id(version)
    for key, value in figures.items():
        yield Metric(key, value, dataset="split.test", model=logged)
    card = render_card(_facts(study, version, commit), study.report, results)
    folder = paths.report("register")
    card_file = folder / "card.md"
    write_text(card_file, card)
    attach(version, _description(study.report, _failed(results)), card_file)

    if not _failed(results):
        results += approve(name, version.version, limits(params.register_, asked))
    tag_version(version, {FAILED_GATES: ",".join(_failed(results)) or "none"})
    wanted = not _failed(results) and params.register_.promote == "when_gates_pass"
    moved = wanted and promote(_decision(version, evidence, commit, str(judgement["evidence"])))
    champion = wanted or (evidence.champion is not None and evidence.champion.same_as_challenger)
    verdict = {**judgement, "gates": [asdict(result) for result in results], "promoted": champion}
    write_json(folder / "gates.json", verdict)
    yield Artifact(card_file)
    yield Artifact(folder / "gates.json")
    yield Tags({"model.name": version.name, "model.version": version.version})
    yield Summary(_summary(version, results, champion, moved))


def _scored(study: Study, evidence: Evidence) -> dict[str, Any]:
    """What a comparison needs: which cases, the risk of each, and where the version alerts."""
    return {
        "alert": study.student["bands"]["alert"],
        "risks": dict(sorted(study.risks[STUDENT].items())),
        "test_lock": evidence.test_lock,
    }


def _datasets(study: Study, paths: Paths) -> Iterator[Item]:
    for part, cases in study.cases.items():
        file = paths.build("split") / f"{part}.parquet"
        yield Dataset(f"split.{part}", file, file_sha256(file), len(cases), part)


def _package(study: Study) -> ModelPackage:
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


def _tags(study: Study, paths: Paths, commit: str) -> dict[str, str]:
    lock = paths.root / "dvc.lock"
    tags = {
        "base.model": study.base_model,
        "renderer.version": str(study.student["renderer_version"]),
        "git.commit": commit,
        "test.sha256": study.test_digest,
    }
    return tags | ({"dvc.lock.sha256": file_sha256(lock)} if lock.is_file() else {})


def _decision(version: Registered, evidence: Evidence, commit: str, digest: str) -> Decision:
    expected = evidence.champion.version if evidence.champion else None
    reason = "every gate passed in dvc repro"
    return Decision(version.name, version.version, expected, commit, digest, reason)


def _failed(results: Sequence[GateResult]) -> list[str]:
    return [result.code for result in results if not result.passed]


def _judgement(
    version: Registered, evidence: Evidence, results: Sequence[GateResult]
) -> dict[str, Any]:
    """The gates' results with a digest that the log of promotions refers to."""
    held = {
        "champion": evidence.champion.version if evidence.champion else None,
        "model_name": version.name,
        "version": version.version,
        "identity": dict(version.identity),
        "gates": [asdict(result) for result in results],
    }
    return held | {"evidence": digest_of(held)}


def _facts(study: Study, version: Registered, commit: str) -> CardFacts:
    return CardFacts(
        name=version.name,
        version=version.version,
        base_model=study.base_model,
        identity=version.identity,
        renderer_version=str(study.student["renderer_version"]),
        commit=commit,
        sources=sorted({item.case.source for item in study.cases["test"]}),
        cases={part: len(cases) for part, cases in study.cases.items()},
        calibration_prevalence=study.calibration_prevalence,
    )


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    """The student's figures as ``x``, ``x.ci_low`` and ``x.ci_high``, as `evaluate` logs them."""
    return {
        name if part == "value" else f"{name}.{part}": float(figure[part])
        for name, figure in sorted(report["models"].get(STUDENT, {}).items())
        for part in ("value", "ci_low", "ci_high")
    }


def _description(report: Mapping[str, Any], failed: Sequence[str]) -> str:
    figure = report["models"].get(STUDENT, {}).get("auroc")
    verdict = f"Failed {', '.join(failed)}" if failed else "All gates passed"
    if figure is None:
        said = f"AUROC is not defined on the test part ({why_absent(report, STUDENT, 'auroc')})"
    else:
        said = (
            f"AUROC {figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f}, "
            f"n = {figure['n']}) on the locked test part"
        )
    return (
        f"{said}. {verdict}; see card.md among the model's files. "
        "Decision support, not a diagnosis."
    )


def _summary(
    version: Registered, results: Sequence[GateResult], champion: bool, moved: bool
) -> str:
    failed = _failed(results)
    said = f"version {version.version}" + ("" if version.created else " (unchanged)")
    said += f", {len(results) - len(failed)} of {len(results)} gates passed"
    if failed:
        standing = "champion from before" if champion else "challenger only"
        return f"{said}, {', '.join(failed)} failed: {standing}"
    if champion:
        return f"{said}: {'now' if moved else 'still'} champion"
    return f"{said}: challenger, promotion is off"


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("register", register)
