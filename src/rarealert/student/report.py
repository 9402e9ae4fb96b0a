"""How training went: figures on the validation part and the curves of each task."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarealert.student.examples import LabelledReading
from rarealert.student.rationale import (
    RAISED,
    heads_named,
    is_sound,
    opening_of,
    plausible_heads,
)
from rarealert.visits.reading import Reading

if TYPE_CHECKING:
    from rarealert.student.model import Rationale
    from rarealert.student.training import Epoch


def valid_figures(
    train: Sequence[LabelledReading],
    valid: Sequence[LabelledReading],
    logits: NDArray[np.float64],
    risk: NDArray[np.float64],
) -> dict[str, float]:
    """Metrics of ``logits`` and calibrated ``risk``, each ``(n_valid,)``, beside TF-IDF's AUROC."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    rare = _is_rare(valid)
    return {
        "auroc": float(roc_auc_score(rare, logits)),
        "brier": float(brier_score_loss(rare, risk)),
        "log_loss": float(log_loss(rare, risk)),
        "tfidf_auroc": _tfidf_auroc(train, valid),
    }


def rationale_figures(readings: Sequence[Reading], said: "Sequence[Rationale]") -> dict[str, float]:
    """Shares 0-1 of rationales, and their mean length in words.

    ``rationales_sound`` are those told in free words, of which what names no finding of the visit
    was left out, ``rationales_grounded`` all that cite only
    what is in their visit, ``rationales_head`` those that name an Orphanet head which a finding of
    the visit speaks for, of those that raise the question.
    """
    grounded, headed, raised, words = 0, 0, 0, 0
    for reading, item in zip(readings, said, strict=True):
        told = item.text.removeprefix(opening_of(item.text)).strip()
        grounded += item.origin == "listed" or is_sound(told, reading)
        words += len(item.text.split())
        if opening_of(item.text) == RAISED:
            raised += 1
            heads = set(heads_named(told))
            headed += bool(heads & set(plausible_heads(reading.present)))
    return {
        "rationales_sound": sum(item.origin == "free" for item in said) / len(said),
        "rationales_grounded": grounded / len(said),
        "rationales_head": headed / max(1, raised),
        "rationales_words": words / len(said),
    }


def training_curves(histories: "Mapping[str, Sequence[Epoch]]", tfidf_auroc: float) -> Any:
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
    ).fit([item.reading.text for item in train], _is_rare(train))
    scores = model.decision_function([item.reading.text for item in valid])
    return float(roc_auc_score(_is_rare(valid), scores))


def _is_rare(cases: Sequence[LabelledReading]) -> NDArray[np.bool_]:
    return np.array([item.label.label == "rare" for item in cases])


def _points(
    history: "Sequence[Epoch]", value: "Callable[[Epoch], float | None]"
) -> tuple[list[int], list[float | None]]:
    return [epoch.epoch for epoch in history], [value(epoch) for epoch in history]
