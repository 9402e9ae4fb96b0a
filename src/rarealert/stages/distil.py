"""distil: train the student on aligned risk, label and rationale (``rarealert distil``).

Training targets are out-of-fold. Validation chooses the epoch, the calibration and the bands, so
its figures are a little hopeful; the test part is not read here.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarealert.errors import BadInputError
from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.harness import run_stage
from rarealert.stages.tune import input_files, teacher_leanings
from rarealert.tracking.items import Dataset, Figure, Item, Metric, Parameters, Summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rarealert.cases.case import LabelledCase
    from rarealert.student.classroom import Desk
    from rarealert.student.lessons import Lessons
    from rarealert.student.training import Epoch, Settings

_LIBRARIES = ("numpy", "peft", "safetensors", "torch", "transformers")


@dataclass(frozen=True)
class _Inputs:
    train: "list[LabelledCase]"
    valid: "list[LabelledCase]"
    desk: "Desk"
    taught: "Lessons"
    judged: "Lessons"
    digests: dict[str, str]


@dataclass(frozen=True)
class _Judgement:
    """The validation part after training: its logits and calibrated risks, each ``(n_valid,)``."""

    logits: "NDArray[np.float64]"
    risk: "NDArray[np.float64]"
    figures: dict[str, float]


def distil(params: Params, paths: Paths) -> Iterator[Item]:
    """Train, calibrate and package the student in ``build/distil/adapter``.

    A run that was killed goes on from its last epoch.

    Raises:
        BadInputError: an input is missing or damaged, or the base model can't be loaded.
        DivergedError: the loss became NaN; the checkpoint of the epoch before stays.
    """
    settings = read_settings(paths.build("tune") / "best.json")
    inputs = _read(params, paths)
    for name, file in input_files(paths).items():
        rows = {"train": len(inputs.train), "valid": len(inputs.valid)}.get(name, 0)
        if rows:
            yield Dataset(name, file, inputs.digests[name], rows, f"distil {name}")
    yield Parameters({f"tuned.{key}": value for key, value in asdict(settings).items()})
    work = paths.build("distil") / "work"
    history, judgement = _teach(params, settings, inputs, work, paths.build("distil") / "adapter")
    yield from _report(paths.report("distil"), history, judgement, inputs)
    shutil.rmtree(work)
    figures = judgement.figures
    yield Summary(
        f"validation AUROC {figures['auroc']:.3f} (TF-IDF {figures['tfidf_auroc']:.3f}), "
        f"{len(inputs.train):,} cases, {inputs.taught.told} rationales"
    )


def read_settings(file: Path) -> "Settings":
    """The tuned settings.

    Raises:
        BadInputError: the file is missing or is not what tune writes.
    """
    from rarealert.student.training import Settings

    try:
        return Settings(**json.loads(file.read_text(encoding="utf-8"))["settings"])
    except FileNotFoundError as error:
        raise BadInputError(f"{file} is missing; run dvc repro tune.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file} holds no tuned settings; run dvc repro tune.") from error


def _read(params: Params, paths: Paths) -> _Inputs:
    from rarealert.cases.store import read_cases
    from rarealert.student.classroom import open_desk
    from rarealert.student.lessons import (
        choose_rationales,
        digest_of_file,
        make_lessons,
        read_targets,
    )

    files, chosen = input_files(paths), params.distil
    train, valid = read_cases(files["train"]), read_cases(files["valid"])
    targets = read_targets(files["risk"], "train")
    leanings = teacher_leanings(files["answers"])
    told = choose_rationales(train, targets, leanings, chosen.rationale_share, chosen.seed)
    desk = open_desk(
        chosen.base_model, chosen.risk_layer, chosen.lora_layers, chosen.max_prompt_tokens
    )
    limit = chosen.max_rationale_tokens
    taught = make_lessons(train, targets, desk.encoder, told, limit)
    judged = make_lessons(valid, read_targets(files["risk"], "valid"), desk.encoder, {}, limit)
    digests = {name: digest_of_file(file) for name, file in files.items()}
    return _Inputs(train, valid, desk, taught, judged, digests)


def _teach(
    params: Params, settings: "Settings", inputs: _Inputs, work: Path, adapter: Path
) -> "tuple[list[Epoch], _Judgement]":
    from rarealert.student.calibration import fit_bands, fit_calibration
    from rarealert.student.classroom import Classroom
    from rarealert.student.lessons import digest_of
    from rarealert.student.package import save_package
    from rarealert.student.training import Schedule, logits_of, train

    chosen, desk = params.distil, inputs.desk
    room: Classroom = Classroom(desk, inputs.taught, inputs.judged, work, chosen.batch_size)
    digest = digest_of(
        inputs.digests, asdict(settings), chosen.model_dump(mode="json"), desk.base.digest
    )
    schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
    with room.network(settings, chosen.seed) as network:
        history = train(
            network,
            room.train,
            room.valid,
            settings,
            schedule,
            checkpoint=work / "checkpoint.safetensors",
            digest=digest,
        )
        logits = logits_of(network, room.valid)
        rare = inputs.judged.rare
        calibration = fit_calibration(logits, rare, inputs.judged.groups, chosen.seed)
        risk = calibration.risk(logits)
        card = _card(params, settings, inputs, calibration, fit_bands(risk, rare))
        save_package(adapter, card, network.peft_model, network.head)
    return history, _judge(logits, risk, inputs)


def _card(
    params: Params, settings: "Settings", inputs: _Inputs, calibration: Any, bands: Any
) -> Any:
    from importlib.metadata import version

    from rarealert.student.package import Card

    chosen, desk = params.distil, inputs.desk
    return Card(
        base_model=chosen.base_model,
        base_digest=desk.base.digest,
        risk_layer=desk.trunk.risk_layer,
        lora_layers=chosen.lora_layers,
        max_prompt_tokens=chosen.max_prompt_tokens,
        max_rationale_tokens=chosen.max_rationale_tokens,
        calibration=calibration,
        bands=bands,
        settings={**asdict(settings), "seed": chosen.seed, "epochs": chosen.epochs},
        training_data=inputs.digests,
        libraries={name: version(name) for name in _LIBRARIES},
    )


def _judge(
    logits: "NDArray[np.float64]", risk: "NDArray[np.float64]", inputs: _Inputs
) -> _Judgement:
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    rare = inputs.judged.rare
    figures = {
        "auroc": float(roc_auc_score(rare, logits)),
        "brier": float(brier_score_loss(rare, risk)),
        "log_loss": float(log_loss(rare, risk)),
        "tfidf_auroc": tfidf_auroc(inputs.train, inputs.valid),
    }
    return _Judgement(logits, risk, figures)


def tfidf_auroc(train: "Sequence[LabelledCase]", valid: "Sequence[LabelledCase]") -> float:
    """AUROC on ``valid`` of TF-IDF with logistic regression: what word counts alone reach."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    from rarealert.cases.render import render
    from rarealert.cases.store import is_rare

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2),
        LogisticRegression(max_iter=1000),
    ).fit([render(item.case) for item in train], is_rare(train))
    scores = model.decision_function([render(item.case) for item in valid])
    return float(roc_auc_score(is_rare(valid), scores))


def _report(
    folder: Path, history: "list[Epoch]", judgement: _Judgement, inputs: _Inputs
) -> Iterator[Item]:
    said = {
        "valid": {**judgement.figures, "n": len(inputs.valid)},
        "train": {
            "n": len(inputs.train),
            "rationales": inputs.taught.told,
            "truncated": inputs.taught.truncated,
        },
        "history": [asdict(epoch) for epoch in history],
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "metrics.partial"
    partial.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / "metrics.json")
    for name, value in judgement.figures.items():
        yield Metric(f"valid_{name}", value)
    for epoch in history:
        for name, value in asdict(epoch).items():
            if name != "epoch" and value is not None:
                yield Metric(name, float(value), epoch.epoch)
    yield Figure("training.png", _curves(history, judgement.figures["tfidf_auroc"]))


def _curves(history: "list[Epoch]", tfidf: float) -> Any:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3.2), layout="constrained")
    losses, aurocs = canvas.subplots(1, 2)
    for name in ("risk_loss", "rationale_loss", "valid_log_loss"):
        points = [
            (epoch.epoch, getattr(epoch, name))
            for epoch in history
            if getattr(epoch, name) is not None
        ]
        losses.plot(*zip(*points, strict=True), marker="o", label=name) if points else None
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    losses.legend()
    steps = [epoch.epoch for epoch in history]
    aurocs.plot(steps, [epoch.valid_auroc for epoch in history], marker="o", label="student")
    aurocs.axhline(tfidf, linestyle="--", color="grey", label="TF-IDF")
    aurocs.set(xlabel="epoch (0: head alone)", ylabel="validation AUROC")
    aurocs.legend()
    return canvas


def main() -> None:
    """Run the stage in the current workspace."""
    run_stage("distil", distil)
