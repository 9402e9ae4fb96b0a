"""How training went: figures on the validation part, and the curves of each task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarealert.student.data import LabelledReading
from rarealert.student.model import Rationale
from rarealert.student.rationale import (
    RAISED,
    heads_named,
    is_sound,
    opening_of,
    plausible_heads,
)
from rarealert.student.rounds import CORRECTION, Rounds
from rarealert.student.training import Epoch
from rarealert.tracking.items import Child, Metric
from rarealert.visits.reading import Reading


def valid_figures(
    train: Sequence[LabelledReading],
    valid: Sequence[LabelledReading],
    logits: NDArray[np.float64],
    risk: NDArray[np.float64],
) -> dict[str, float]:
    """Metrics of ``logits`` and calibrated ``risk``, each ``(n_valid,)``, beside TF-IDF's AUROC."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    rare = [item.is_rare for item in valid]
    return {
        "auroc": float(roc_auc_score(rare, logits)),
        "brier": float(brier_score_loss(rare, risk)),
        "log_loss": float(log_loss(rare, risk)),
        "tfidf_auroc": _tfidf_auroc(train, valid),
    }


def rationale_figures(
    readings: Sequence[Reading], rationales: Sequence[Rationale]
) -> dict[str, float]:
    """Shares 0-1 of rationales, and their mean length in words.

    ``rationales_sound`` are those in free words that passed their check, ``rationales_grounded``
    all that cite only what is in their visit. ``rationales_head`` are those that name an Orphanet
    head which a finding of the visit supports, of those that raise the question.
    """
    grounded, with_head, raised, words = 0, 0, 0, 0
    for reading, item in zip(readings, rationales, strict=True):
        body = item.text.removeprefix(opening_of(item.text)).strip()
        grounded += item.origin == "listed" or is_sound(body, reading)
        words += len(item.text.split())
        if opening_of(item.text) == RAISED:
            raised += 1
            with_head += bool(set(heads_named(body)) & set(plausible_heads(reading.present)))
    return {
        "rationales_sound": sum(item.origin == "free" for item in rationales) / len(rationales),
        "rationales_grounded": grounded / len(rationales),
        "rationales_head": with_head / max(1, raised),
        "rationales_words": words / len(rationales),
    }


def curves(task: str, epochs: Sequence[Epoch]) -> Iterator[Metric]:
    """A training as metrics by epoch: ``<task>_loss``, ``<task>_valid_loss``, and its figures."""
    for epoch in epochs:
        if epoch.loss is not None:
            yield Metric(f"{task}_loss", epoch.loss, epoch.epoch)
        yield Metric(f"{task}_valid_loss", epoch.valid_loss, epoch.epoch)
        for name, value in epoch.figures.items():
            yield Metric(name, value, epoch.epoch)


def round_runs(rounds: Rounds) -> Iterator[Child]:
    """One nested run a round, with its curves and its gain on validation."""
    for name, gains in rounds.gains().items():
        metrics = [Metric(key, value) for key, value in gains.items()]
        if name == CORRECTION:
            metrics += [Metric(key, value) for key, value in rounds.counts.items()]
        for task, history in rounds.histories[name].items():
            metrics += curves(task, history)
        yield Child(name, tuple(metrics))


def training_curves(histories: Mapping[str, Sequence[Epoch]], tfidf_auroc: float) -> Any:
    """A matplotlib figure: losses of each task by epoch, and the risk's AUROC beside TF-IDF's."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3.2), layout="constrained")
    losses, aurocs = canvas.subplots(1, 2)
    for task, history in histories.items():
        passes = [epoch for epoch in history if epoch.loss is not None]
        losses.plot(*_points(passes, lambda epoch: epoch.loss), "o-", label=f"{task}, training")
        losses.plot(
            *_points(history, lambda epoch: epoch.valid_loss), "s--", label=f"{task}, validation"
        )
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    losses.legend()
    for task in ("risk", "risk_correction"):
        points = _points(histories.get(task, ()), lambda epoch: epoch.figures["valid_auroc"])
        aurocs.plot(*points, "o-", label=task.replace("_", ", "))
    aurocs.axhline(tfidf_auroc, linestyle="--", color="grey", label="TF-IDF")
    aurocs.set(xlabel="epoch (0: head alone)", ylabel="validation AUROC")
    aurocs.legend()
    for axes in (losses, aurocs):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return canvas


def _tfidf_auroc(train: Sequence[LabelledReading], valid: Sequence[LabelledReading]) -> float:
    """AUROC on ``valid`` of TF-IDF with logistic regression: what word counts alone reach."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2),
        LogisticRegression(max_iter=1000),
    ).fit([item.reading.text for item in train], [item.is_rare for item in train])
    scores = model.decision_function([item.reading.text for item in valid])
    return float(roc_auc_score([item.is_rare for item in valid], scores))


def _points(
    history: Sequence[Epoch], value: Callable[[Epoch], float | None]
) -> tuple[list[int], list[float | None]]:
    return [epoch.epoch for epoch in history], [value(epoch) for epoch in history]
