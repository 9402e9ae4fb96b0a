"""How uncertain a risk is: its interval, abstention, and visits unlike the training part.

Fitted on the validation part and packaged beside the weights as ``uncertainty.json`` and
``familiar.safetensors``; both hold aggregates alone, no visit's features.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, InstanceOf
from pydantic_core import from_json

from rarealert.calibration.conformal import Cuts, fit_cuts
from rarealert.calibration.familiarity import Familiarity, fit_familiarity
from rarealert.calibration.venn_abers import VennAbers, fit_venn_abers
from rarealert.errors import BadInputError

if TYPE_CHECKING:
    from rarealert.student.activations import Activations
    from rarealert.student.network import Network

Floats = NDArray[np.float64]

COVERAGE = 0.8
"""Share 0-1 of each label's visits whose set is to hold their label; at 0.9 the embedded student
would abstain on four visits in ten."""

FAMILIAR = 0.98
"""Share 0-1 of validation visits that count as in distribution: one in fifty is flagged there."""

MARGIN = 1.4
"""Factor on the distance of these validation visits, because simulated visits vary less than real
ones. It was chosen where real English visits end (99 % within 1.36) and strange texts begin (1.86),
so no figure on those visits and texts can judge it (docs/results.md)."""

_FILE = "uncertainty.json"
_WEIGHTS = "familiar.safetensors"


class Uncertainty(BaseModel):
    """The packaged uncertainty; ``uncertainty.json`` holds all fields but ``familiarity``.

    ``cuts`` are on uncalibrated log odds and have the stated ``coverage``. A visit farther than
    ``distance_threshold`` from the training part is out of distribution. ``neutral`` is the log
    odds of a token that favours neither label: halfway between the means of both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float
    cuts: Cuts
    venn_abers: VennAbers
    familiar_share: float
    distance_threshold: float
    neutral: float
    familiarity: InstanceOf[Familiarity] = Field(exclude=True)

    def abstains(self, log_odds: Floats) -> NDArray[np.bool_]:
        """Whether the set of each of ``log_odds`` holds both labels or none, shape ``(n,)``."""
        return ~self.cuts.decides(log_odds)

    def ood_score(self, features: Floats) -> Floats:
        """Return distance over threshold, shape ``(n,)``; above 1 is out of distribution."""
        return np.asarray(self.familiarity.distance(features) / self.distance_threshold)

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        from safetensors.numpy import save_file

        text = self.model_dump_json(indent=1)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")
        arrays = vars(self.familiarity) | {"rest": np.array([self.familiarity.rest])}
        single = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
        save_file(single, folder / _WEIGHTS)


def load_uncertainty(folder: Path) -> Uncertainty:
    """Load what ``Uncertainty.save`` wrote beside a student.

    Raises:
        BadInputError: the student was packaged without it, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    for name in (_FILE, _WEIGHTS):
        if not (folder / name).is_file():
            raise BadInputError(
                f"{folder} has no {name}: this version was packaged before answers had an "
                "interval. Run dvc repro register and screen with the new version."
            )
    try:
        fields = from_json((folder / _FILE).read_bytes())
        arrays = {name: value.astype(float) for name, value in load_file(folder / _WEIGHTS).items()}
        rest = float(arrays.pop("rest")[0])
        familiarity = Familiarity(**arrays, rest=rest)
        return Uncertainty(**fields, familiarity=familiarity)
    except (OSError, ValueError, SafetensorError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{folder}: {_FILE} or {_WEIGHTS} is damaged ({type(error).__name__}). Run dvc repro "
            "distil or fetch the model again."
        ) from error


def fit_uncertainty(
    network: "Network",
    train: "Activations",
    valid: "Activations",
    log_odds: Floats,
    frame: tuple[int, int],
) -> Uncertainty:
    """Fit familiarity on the training part and everything else on validation.

    Args:
        network: the trained student.
        train: the training part's examples.
        valid: the validation part's examples.
        log_odds: uncalibrated log odds of the validation part, shape ``(n,)``.
        frame: tokens of a prompt before and after the visit.
    """
    from rarealert.student.tasks import readout_of

    rare = np.array([item.rare for item in valid.examples])
    familiarity = fit_familiarity(readout_of(network, train, frame)[0])
    features, by_token = readout_of(network, valid, frame)
    distances = familiarity.distance(features)
    return Uncertainty(
        coverage=COVERAGE,
        cuts=fit_cuts(rare, log_odds, COVERAGE),
        venn_abers=fit_venn_abers(log_odds, rare),
        familiar_share=FAMILIAR,
        distance_threshold=MARGIN * float(np.quantile(distances, FAMILIAR, method="higher")),
        neutral=float(by_token[rare].mean() + by_token[~rare].mean()) / 2,
        familiarity=familiarity,
    )
