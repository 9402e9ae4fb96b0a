"""What words learnt from simulated cases are worth on real ones.

`python benchmarks/sim_to_real.py CORPORA --counts 1000,6000` simulates that many cases, half of
them rare, fits the TF-IDF control on them, and tests it on all cases of CRAFT-MD and MedR-Bench.
It prints AUROC with 95 % intervals over 1,000 resamples of whole diseases. No real case is
learnt from. `--half` reports on the diseases of one half alone, told by a hash of the disease, so
that a change of the simulation can be tried on `first` and read once on `second`.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import numpy as np

from rarealert.evaluation.controls import WORDS, control_frame, fit_controls
from rarealert.evaluation.intervals import Bootstrap
from rarealert.evaluation.study import Study, evaluate
from rarealert.params import SimulatedParams, load_params
from rarealert.simulation.corpus import simulate
from rarealert.sources.importing import import_source, read_source
from rarealert.visits.case import LabelledCase
from rarealert.visits.refused import Refused

_SOURCES = ("craftmd", "medrbench")
_PLAN = Bootstrap(resamples=1000, confidence=0.95, seed=1)


def main() -> None:
    """Print one row for each number of simulated cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--counts", default="1000,6000")
    parser.add_argument("--half", choices=("first", "second"))
    asked = parser.parse_args()
    real = [item for item in _real(asked.corpora) if asked.half in (None, _half(item))]
    seed = load_params(Path("params.yaml")).data.simulated.seed
    counts = [int(count) for count in asked.counts.split(",")]
    most = max(counts) // 2
    drawn = list(simulate(SimulatedParams(seed=seed, rare_cases=most, nonrare_cases=most)))
    print("| simulated | both | " + " | ".join(_SOURCES) + " |")
    for count in counts:
        cells = [
            f"{value:.3f} ({low:.3f} to {high:.3f}), {n}"
            for value, low, high, n in _judged(drawn[:count], real)
        ]
        print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


def _real(corpora: Path) -> list[LabelledCase]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for kind in ("orphanet", *_SOURCES):
            import_source(kind, corpora / kind, data)
        found = [item for kind in _SOURCES for item in read_source(kind, data / kind)]
    return [item for item in found if not isinstance(item, Refused)]


def _half(item: LabelledCase) -> str:
    even = hashlib.sha256(item.label.disease_id.encode()).digest()[-1] % 2 == 0
    return "first" if even else "second"


def _judged(
    drawn: list[LabelledCase], real: list[LabelledCase]
) -> list[tuple[float, float, float, int]]:
    control = fit_controls(control_frame([item.case for item in drawn]), _rare(drawn), seed=1)[
        WORDS
    ]
    found = []
    for source in (None, *_SOURCES):
        chosen = [item for item in real if source in (None, item.case.source)]
        risks = control.predict(control_frame([item.case for item in chosen]))
        groups = [item.label.disease_id for item in chosen]
        study = Study(_rare(chosen).astype(float), np.array(groups), {"control": risks}, {})
        cells = {"all": study.everyone}
        auroc = evaluate(study, cells, ["auroc"], _PLAN)["all"]["control"].estimates["auroc"]
        found.append((auroc.value, auroc.ci_low, auroc.ci_high, auroc.n))
    return found


def _rare(cases: list[LabelledCase]) -> np.ndarray:
    return np.array([item.label.label == "rare" for item in cases], dtype=int)


if __name__ == "__main__":
    main()
