"""What the student does not know of a visit: an interval, when to abstain, and what is strange.

Everything here is fitted on validation, where the calibrator is, and packaged beside it
(``uncertainty.json`` and ``familiar.safetensors``, no pickle):

- the interval is Venn-Abers' pair of probabilities (Vovk and Petej, UAI 2014): the risk that
  isotonic regression gives if the visit is added to validation as non-rare, and as rare;
- to abstain is to have both labels, or none, in the class-conditional split-conformal set (Vovk,
  ACML 2012; Sadinle et al., JASA 114:223, 2019), which a change of prevalence leaves as it is;
- the distance is Mahalanobis' under probabilistic principal components of the training part's
  features (Tipping and Bishop, JRSS B 61:611, 1999; Lee et al., NeurIPS 2018).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from rarealert.errors import BadInputError

if TYPE_CHECKING:
    from rarealert.student.activations import Frozen
    from rarealert.student.network import Network

Floats = NDArray[np.float64]

COVERAGE = 0.8
"""Share 0-1 of each label's visits whose set is to hold their label; at 0.9 the embedded student
would abstain on four visits in ten."""

FAMILIAR = 0.98
"""Share 0-1 of validation visits that count as in distribution: one in fifty is flagged there."""

_COMPONENTS = 64  # principal components; of more, a few hundred cases estimate noise
_MAX_STEPS = 1000  # groups of validation logits; more than that refines no interval anyone reads
_JUDGE_BATCH = 32
_FILE = "uncertainty.json"
_WEIGHTS = "familiar.safetensors"


class VennAbers(BaseModel):
    """The pair of probabilities by logit, which is constant between validation logits.

    ``logits`` ascend, shape ``(k,)``. ``at_*`` is the pair for a visit with exactly that logit,
    shape ``(k,)``, ``between_*`` for one below, between or above them, shape ``(k + 1,)``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    logits: tuple[float, ...]
    at_low: tuple[float, ...]
    at_high: tuple[float, ...]
    between_low: tuple[float, ...]
    between_high: tuple[float, ...]

    def interval(self, logits: Floats) -> tuple[Floats, Floats]:
        """Lower and upper probability 0-1 of each of ``logits``, each of shape ``(n,)``."""
        known = np.asarray(self.logits)
        left = np.searchsorted(known, logits, side="left")
        exact = np.searchsorted(known, logits, side="right") > left
        place = np.minimum(left, len(known) - 1)
        low = np.where(exact, np.asarray(self.at_low)[place], np.asarray(self.between_low)[left])
        high = np.where(exact, np.asarray(self.at_high)[place], np.asarray(self.between_high)[left])
        return low, high


class Uncertainty(BaseModel):
    """``uncertainty.json``: all but the tensors of ``Familiar``.

    The conformal set holds "rare" from ``rare_from`` on and "nonrare" up to ``nonrare_to`` (both
    uncalibrated logits; ``None`` where validation is too small to leave a label out).
    ``strange_from`` is the distance above which a visit is out of distribution, ``neutral`` the
    log-odds of a token that speaks neither way: halfway between both labels' mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float
    rare_from: float | None
    nonrare_to: float | None
    venn_abers: VennAbers
    familiar_share: float
    strange_from: float
    neutral: float

    def abstains(self, logits: Floats) -> NDArray[np.bool_]:
        """Whether the set of each of ``logits`` holds both labels or none, shape ``(n,)``."""
        everything = np.ones(logits.shape, dtype=np.bool_)
        rare = everything if self.rare_from is None else logits >= self.rare_from
        nonrare = everything if self.nonrare_to is None else logits <= self.nonrare_to
        return np.asarray(rare == nonrare)


@dataclass(frozen=True)
class Familiar:
    """What the training part's features look like, ``d`` columns in ``k`` components.

    ``mean`` and ``scale`` have shape ``(d,)``, ``axes`` ``(k, d)``, ``spread`` ``(k,)`` is the
    variance along each axis and ``rest`` the mean variance outside them.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    spread: Floats
    rest: float

    def distance(self, features: Floats) -> Floats:
        """Mahalanobis distance of each row of ``features``, shape ``(n,)``."""
        scaled = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale
        inside = scaled @ self.axes.T
        outside = np.maximum((scaled**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
        squared = (inside**2 / self.spread).sum(axis=1) + outside / self.rest
        return np.asarray(np.sqrt(squared))


@dataclass(frozen=True)
class Doubts:
    """The fitted parts together; what is packaged."""

    uncertainty: Uncertainty
    familiar: Familiar

    def strangeness(self, features: Floats) -> Floats:
        """Distance over the threshold, shape ``(n,)``: above 1 is out of distribution."""
        return np.asarray(self.familiar.distance(features) / self.uncertainty.strange_from)

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        from safetensors.numpy import save_file

        text = self.uncertainty.model_dump_json(indent=1)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")
        held = self.familiar
        rest = np.array([held.rest])
        arrays = {"mean": held.mean, "scale": held.scale, "axes": held.axes}
        arrays |= {"spread": held.spread, "rest": rest}
        single = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
        save_file(single, folder / _WEIGHTS)


def load_doubts(folder: Path) -> Doubts:
    """The fitted parts that stand beside a student.

    Raises:
        BadInputError: the student was packaged without them, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        text = (folder / _FILE).read_text(encoding="utf-8")
        held = {name: value.astype(float) for name, value in load_file(folder / _WEIGHTS).items()}
        rest = float(held.pop("rest")[0])
        return Doubts(Uncertainty.model_validate_json(text), Familiar(**held, rest=rest))
    except FileNotFoundError as error:
        raise BadInputError(
            f"{folder} holds no {Path(error.filename or _FILE).name}: this version was made before "
            "answers had an interval; run dvc repro register and screen with the new version."
        ) from error
    except (ValidationError, UnicodeDecodeError, SafetensorError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{folder}: {_FILE} or {_WEIGHTS} is damaged ({type(error).__name__}); run dvc repro "
            "distil or fetch the model again."
        ) from error


def fit_doubts(
    network: "Network",
    train: "Frozen",
    valid: "Frozen",
    logits: Floats,
    frame: tuple[int, int],
) -> Doubts:
    """Fit on validation, whose uncalibrated ``logits`` have shape ``(n,)``.

    What features usually look like comes from the training part, how far is far from validation.
    ``frame`` counts the tokens of a prompt before and after the visit.
    """
    rare = np.array([item.rare for item in valid.examples])
    familiar = fit_familiar(read_part(network, train, frame)[0])
    features, spoken = read_part(network, valid, frame)
    distances = familiar.distance(features)
    uncertainty = Uncertainty(
        coverage=COVERAGE,
        rare_from=_negated(_conformal_quantile(-logits[rare], COVERAGE)),
        nonrare_to=_conformal_quantile(logits[~rare], COVERAGE),
        venn_abers=fit_venn_abers(logits, rare),
        familiar_share=FAMILIAR,
        strange_from=float(np.quantile(distances, FAMILIAR, method="higher")),
        neutral=float(spoken[rare].mean() + spoken[~rare].mean()) / 2,
    )
    return Doubts(uncertainty, familiar)


def read_part(network: "Network", part: "Frozen", frame: tuple[int, int]) -> tuple[Floats, Floats]:
    """What the head reads of each example, shape ``(n, columns)``, and says of its words alone.

    The latter is the mean log-odds of the visit's tokens, shape ``(n,)``.
    """
    import torch

    from rarealert.student.network import pad_right, pool

    trunk = network.trunk
    pooled, spoken = np.zeros(part.pooled.shape), np.zeros(len(part.examples))
    with torch.no_grad():
        for chosen in part.batches(_JUDGE_BATCH):
            rows = list(chosen)
            denied = part.denied(chosen)
            states = trunk.run(part.batch(chosen), trunk.block_start, trunk.risk_layer)
            ids, lengths = pad_right([part.examples[index].prompt for index in chosen], 0)
            states = trunk.read_out(states, denied, lengths)
            pooled[rows] = pool(states, lengths).double().numpy()
            facts = [part.examples[index].facts for index in chosen]
            words = trunk.words(ids, denied, facts).float().cpu()
            spread = torch.cat([words, states.float().cpu()], dim=2)
            alone = network.head(spread).double().numpy()
            for row, index in enumerate(chosen):
                last = int(lengths[row]) - frame[1]
                spoken[index] = alone[row, frame[0] : last].mean()
    return np.hstack([part.words.astype(np.float64), pooled]), spoken


def fit_familiar(features: Floats) -> Familiar:
    """Probabilistic principal components of ``features``, shape ``(n, d)``, ``n`` at least 3."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - mean) / scale
    count, width = scaled.shape
    _, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
    variance = lengths**2 / max(count - 1, 1)
    kept = min(_COMPONENTS, (count - 1) // 2, width - 1)
    rest = max(float(variance[kept:].sum() / (width - kept)), 1e-6)
    return Familiar(mean, scale, axes[:kept], np.maximum(variance[:kept], rest), rest)


def fit_venn_abers(logits: Floats, rare: NDArray[np.bool_]) -> VennAbers:
    """Every pair that validation's ``logits`` and labels, shape ``(n,)``, can give.

    A pair depends only on where a new logit lies among the known ones, so all are worked out once:
    inductive Venn-Abers without any approximation up to 1,000 distinct logits, beyond which
    neighbours share one.
    """
    known, inverse = np.unique(logits, return_inverse=True)
    groups = np.minimum(np.arange(len(known)), _MAX_STEPS - 1)
    if len(known) > _MAX_STEPS:
        groups = np.arange(len(known)) * _MAX_STEPS // len(known)
    weights = np.bincount(groups[inverse]).astype(float)
    means = np.bincount(groups[inverse], weights=rare.astype(float)) / weights
    known = known[np.searchsorted(groups, np.arange(len(weights)))]
    places = range(len(known))
    gaps = range(len(known) + 1)
    return VennAbers(
        logits=tuple(known.tolist()),
        at_low=tuple(_with_visit(means, weights, place, 0.0, exact=True) for place in places),
        at_high=tuple(_with_visit(means, weights, place, 1.0, exact=True) for place in places),
        between_low=tuple(_with_visit(means, weights, gap, 0.0, exact=False) for gap in gaps),
        between_high=tuple(_with_visit(means, weights, gap, 1.0, exact=False) for gap in gaps),
    )


def _with_visit(means: Floats, weights: Floats, place: int, label: float, *, exact: bool) -> float:
    """Isotonic probability of one more visit of ``label`` at, or just below, ``place``."""
    from scipy.optimize import isotonic_regression

    if exact:
        weights, means = weights.copy(), means.copy()
        weights[place] += 1
        means[place] += (label - means[place]) / weights[place]
    else:
        weights, means = np.insert(weights, place, 1.0), np.insert(means, place, label)
    return round(float(isotonic_regression(means, weights=weights).x[place]), 6)


def _conformal_quantile(scores: Floats, level: float) -> float | None:
    """The ``ceil((n + 1) level)``-th smallest score; ``None`` where n is too small for it."""
    rank = math.ceil((scores.size + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= scores.size else None


def _negated(value: float | None) -> float | None:
    return None if value is None else -value
