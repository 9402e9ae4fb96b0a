"""Register the student, judge it, and promote it if every gate passes: ``rarealert register``.

The version becomes ``challenger`` in any case; ``champion`` moves only if all gates pass and
``register.promote`` allows it. A failed gate is a result, not an error of the stage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rarealert
from rarealert.evaluation.predictions import STUDENT
from rarealert.evaluation.report import why_absent
from rarealert.files import sha256_of_file, write_json, write_text
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.registry.card import CardFacts, render_card
from rarealert.registry.gates.approval import approve
from rarealert.registry.gates.catalogue import gates, limits
from rarealert.registry.gates.gate import GateResult
from rarealert.registry.judged import GateInput
from rarealert.registry.judgement import StageOutputs, collect, read_outputs
from rarealert.registry.promotion import Decision, promote
from rarealert.registry.versions import (
    FAILED_GATES,
    ModelPackage,
    Registered,
    attach_card,
    digest_of,
    log_judgement,
    model_id,
    register_version,
    tag_version,
)
from rarealert.stages.harness import run_stage
from rarealert.tracking.items import Artifact, Dataset, Item, Metric, Summary, Tags
from rarealert.tracking.lineage import git_commit


def register(params: Params, paths: Paths) -> Iterator[Item]:
    """Register, reload, judge and, if allowed, promote; write ``gates.json`` and ``card.md``."""
    outputs = read_outputs(paths)
    yield from _datasets(outputs, paths)
    commit = git_commit(paths.root)
    name = params.register_.model_name
    version = register_version(name, _package(outputs), _tags(outputs, paths, commit))
    given = collect(outputs, version, params, paths)
    required = gates(params.register_, params.evaluate)
    results = tuple(gate.check(given) for gate in required)
    judgement = _judgement(version, given, results)
    figures = _figures(outputs.report)
    log_judgement(version, judgement, _scored(outputs, given), figures)
    logged = model_id(version)
    for key, value in figures.items():
        yield Metric(key, value, dataset="split.test", model=logged)
    folder = paths.report("register")
    card = folder / "card.md"
    write_text(card, render_card(_facts(outputs, version, commit), outputs.report, results))
    attach_card(version, _description(outputs.report, _failed(results)), card)

    if not _failed(results):
        results += approve(name, version.version, limits(params.register_, required))
    tag_version(version, {FAILED_GATES: ",".join(_failed(results)) or "none"})
    wanted = not _failed(results) and params.register_.promote == "when_gates_pass"
    moved = wanted and promote(_decision(version, given, commit, str(judgement["evidence"])))
    champion = wanted or (given.champion is not None and given.champion.same_as_challenger)
    verdict = {**judgement, "gates": [asdict(result) for result in results], "promoted": champion}
    write_json(folder / "gates.json", verdict)
    yield Artifact(card)
    yield Artifact(folder / "gates.json")
    yield Tags({"model.name": version.name, "model.version": version.version})
    yield Summary(_summary(version, results, champion, moved))


def _datasets(outputs: StageOutputs, paths: Paths) -> Iterator[Item]:
    for part, cases in outputs.cases.items():
        file = paths.build("split") / f"{part}.parquet"
        yield Dataset(f"split.{part}", file, sha256_of_file(file), len(cases), part)


def _package(outputs: StageOutputs) -> ModelPackage:
    from rarealert.screening import pyfunc

    return ModelPackage(
        adapter=outputs.adapter,
        base_digest=str(outputs.student["base_digest"]),
        source=Path(rarealert.__file__).parent,
        entry="screening/pyfunc.py",
        config={pyfunc.CALIBRATION_PREVALENCE: outputs.calibration_prevalence},
        signature=pyfunc.signature(),
        input_example=pyfunc.input_example(),
    )


def _tags(outputs: StageOutputs, paths: Paths, commit: str) -> dict[str, str]:
    lock = paths.root / "dvc.lock"
    tags = {
        "base.model": outputs.base_model,
        "renderer.version": str(outputs.student["renderer_version"]),
        "git.commit": commit,
        "test.sha256": outputs.test_digest,
    }
    return tags | ({"dvc.lock.sha256": sha256_of_file(lock)} if lock.is_file() else {})


def _judgement(
    version: Registered, given: GateInput, results: Sequence[GateResult]
) -> dict[str, Any]:
    """Return the gates' results with a digest that the log of promotions refers to."""
    held = {
        "champion": given.champion.version if given.champion else None,
        "model_name": version.name,
        "version": version.version,
        "identity": dict(version.identity),
        "gates": [asdict(result) for result in results],
    }
    return held | {"evidence": digest_of(held)}


def _scored(outputs: StageOutputs, given: GateInput) -> dict[str, Any]:
    """Return what a comparison needs: the cases' lock, the risk of each, the alert threshold."""
    return {
        "alert": outputs.student["bands"]["alert"],
        "risks": dict(sorted(outputs.risks[STUDENT].items())),
        "test_lock": given.test_lock,
    }


def _decision(version: Registered, given: GateInput, commit: str, digest: str) -> Decision:
    expected = given.champion.version if given.champion else None
    reason = "every gate passed in dvc repro"
    return Decision(version.name, version.version, expected, commit, digest, reason)


def _failed(results: Sequence[GateResult]) -> list[str]:
    return [result.code for result in results if not result.passed]


def _facts(outputs: StageOutputs, version: Registered, commit: str) -> CardFacts:
    return CardFacts(
        name=version.name,
        version=version.version,
        base_model=outputs.base_model,
        identity=version.identity,
        renderer_version=str(outputs.student["renderer_version"]),
        commit=commit,
        sources=sorted({item.case.source for item in outputs.cases["test"]}),
        cases={part: len(cases) for part, cases in outputs.cases.items()},
        calibration_prevalence=outputs.calibration_prevalence,
    )


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the student's figures as ``x``, ``x.ci_low`` and ``x.ci_high``."""
    return {
        name if part == "value" else f"{name}.{part}": float(figure[part])
        for name, figure in sorted(report["models"].get(STUDENT, {}).items())
        for part in ("value", "ci_low", "ci_high")
    }


def _description(report: Mapping[str, Any], failed: Sequence[str]) -> str:
    figure = report["models"].get(STUDENT, {}).get("auroc")
    verdict = f"Failed {', '.join(failed)}" if failed else "All gates passed"
    if figure is None:
        figures = f"AUROC is not defined on the test part ({why_absent(report, STUDENT, 'auroc')})"
    else:
        figures = (
            f"AUROC {figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f}, "
            f"n = {figure['n']}) on the locked test part"
        )
    return (
        f"{figures}. {verdict}; see card.md among the model's files. "
        "Decision support, not a diagnosis."
    )


def _summary(
    version: Registered, results: Sequence[GateResult], champion: bool, moved: bool
) -> str:
    failed = _failed(results)
    unchanged = "" if version.created else " (unchanged)"
    passed = f"{len(results) - len(failed)} of {len(results)} gates passed"
    line = f"version {version.version}{unchanged}, {passed}"
    if failed:
        status = "champion from before" if champion else "challenger only"
        return f"{line}, {', '.join(failed)} failed: {status}"
    if champion:
        return f"{line}: {'now' if moved else 'still'} champion"
    return f"{line}: challenger, promotion is off"


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("register", register)
