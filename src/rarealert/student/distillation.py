"""Distillation: train both rounds, calibrate on validation, package, and judge the outcome.

Validation chooses the epoch, the calibration and the bands, so its figures are slightly optimistic.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarealert.calibration.bands import fit_bands
from rarealert.calibration.calibrators import Calibrator, fit_calibrator
from rarealert.params import DistilParams
from rarealert.student.data import LabelledReading, TrainingData
from rarealert.student.examples import (
    ExampleSet,
    Reasons,
    choose_rationales,
    digest_of,
    digest_of_examples,
    make_examples,
)
from rarealert.student.model import Student
from rarealert.student.network import Settings
from rarealert.student.package import Card, save_package
from rarealert.student.rounds import Rounds, RoundTraining
from rarealert.student.tasks import logits_of
from rarealert.student.trainer import Trainer, TrainingBase, add_knowledge, load_training_base
from rarealert.student.training_report import rationale_figures, valid_figures
from rarealert.student.uncertainty import fit_uncertainty

JUDGED_RATIONALES = 12
"""Validation cases whose rationale is judged; generation is slow."""

_LIBRARIES = ("numpy", "peft", "safetensors", "torch", "transformers")


@dataclass(frozen=True)
class Distillation:
    """The outcome of training: both rounds, the examples, and ``figures`` of validation."""

    rounds: Rounds
    train: ExampleSet
    valid: ExampleSet
    figures: dict[str, float]


def distil_student(
    data: TrainingData,
    reasons: Reasons,
    settings: Settings,
    chosen: DistilParams,
    work: Path,
    adapter: Path,
) -> Distillation:
    """Train a student and package it in the folder ``adapter``.

    Activations and checkpoints are kept in ``work``, from where a killed run continues.

    Raises:
        BadInputError: the base model can't be loaded, or no disease is left to learn from.
        DivergedError: the loss became NaN; the checkpoint of the epoch before stays.
    """
    loaded = load_training_base(chosen)
    train = _examples(data.train, data, reasons, chosen.rationale_cases, loaded, chosen)
    valid = _examples(data.valid, data, reasons, JUDGED_RATIONALES, loaded, chosen)
    add_knowledge(loaded, chosen, data.held_out)
    trainer = Trainer(loaded, train, valid, work, chosen.batch_size)
    shaping = asdict(settings), chosen.model_dump(mode="json")
    examples = digest_of_examples(train, valid)
    digest = digest_of(data.digests, examples, shaping, loaded.base.digest)
    with trainer.network(settings, chosen.seed) as network:
        encoder = loaded.encoder
        rounds = RoundTraining(
            chosen, settings, trainer, network, data.train, reasons, encoder, work, digest
        ).run()
        logits = logits_of(network, trainer.valid)
        calibrator = fit_calibrator(logits, valid.rare, valid.groups, chosen.seed)
        risk = calibrator.risk(logits)
        card = _card(loaded, chosen, settings, calibrator, risk, valid.rare, data.digests)
        save_package(adapter, card, network, loaded.base.tokenizer)
        uncertainty = fit_uncertainty(network, trainer.train, trainer.valid, logits, encoder.frame)
        uncertainty.save(adapter)
        student = Student(card, loaded.base, network.head, network.trunk.profile_match)
        judged = [item.reading for item in data.valid[:JUDGED_RATIONALES]]
        bands = [card.bands.band(each) for each in risk[: len(judged)].tolist()]
        rationales = student.rationales(judged, bands)
    figures = valid_figures(data.train, data.valid, logits, risk)
    return Distillation(rounds, train, valid, figures | rationale_figures(judged, rationales))


def _examples(
    cases: Sequence[LabelledReading],
    data: TrainingData,
    reasons: Reasons,
    rationales: int,
    loaded: TrainingBase,
    chosen: DistilParams,
) -> ExampleSet:
    texts = choose_rationales(cases, data.targets, reasons, rationales, chosen.seed)
    limit = chosen.max_rationale_tokens
    return make_examples(cases, data.targets, loaded.encoder, texts, limit)


def _card(
    loaded: TrainingBase,
    chosen: DistilParams,
    settings: Settings,
    calibrator: Calibrator,
    risk: NDArray[np.float64],
    rare: NDArray[np.bool_],
    digests: dict[str, str],
) -> Card:
    return Card(
        base_model=chosen.base_model,
        base_digest=loaded.base.digest,
        dtype=chosen.dtype,
        prompt=chosen.prompt,
        readout=chosen.readout,
        risk_layer=chosen.risk_layer,
        lora_layers=chosen.lora_layers,
        rationale_layers=chosen.rationale_layers,
        max_prompt_tokens=chosen.max_prompt_tokens,
        max_rationale_tokens=chosen.max_rationale_tokens,
        calibrator=calibrator,
        bands=fit_bands(risk, rare),
        settings={**asdict(settings), "seed": chosen.seed, "epochs": chosen.epochs},
        training_data=digests,
        libraries={name: version(name) for name in _LIBRARIES},
    )
