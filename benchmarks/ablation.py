"""What helps the student and what does not, on the validation part of a workspace.

`python benchmarks/ablation.py` in a workspace whose `split` and `align` have run. It trains one
variant after the other with the settings that `tune` starts from, and prints AUROC on validation
with 95 % intervals over whole diseases, and the paired difference from the default. The test
part is not read. On other cases: run it in their workspace.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rarealert.cases.store import read_cases
from rarealert.params import DistilParams, load_params
from rarealert.paths import Paths
from rarealert.stages.tune import DEFAULTS, correct, input_files, read_knowledge
from rarealert.student.adapter import Settings
from rarealert.student.classroom import Classroom, open_desk
from rarealert.student.lessons import Lessons, make_lessons, read_targets, subset
from rarealert.student.tasks import logits_of
from rarealert.student.training import Schedule, train

_RESAMPLES = 1000
_VARIANTS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("default", {}, {}),
    ("head alone, no training", {"epochs": 0}, {}),
    ("without the second round", {"correction_epochs": 0}, {}),
    ("without knowledge of words", {"knowledge_cases": 0}, {}),
    ("labels alone (soft weight 0)", {}, {"soft_weight": 0.0}),
    ("aligned risks alone (soft weight 1)", {}, {"soft_weight": 1.0}),
    ("rank 4", {}, {"rank": 4}),
    ("rank 16", {}, {"rank": 16}),
    ("risk at layer 8", {"risk_layer": 8}, {}),
    ("risk at layer 16", {"risk_layer": 16}, {}),
)
"""Name, what differs in ``distil``, what differs in the settings."""

Floats = np.ndarray


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10**9, help="cases of each part, at most")
    parser.add_argument("--only", nargs="*", help="words; variants that hold one, and the default")
    asked = parser.parse_args()
    params, paths = load_params(Path("params.yaml")), Paths.here()
    chosen = [
        item
        for item in _VARIANTS
        if item[0] == "default" or not asked.only or any(word in item[0] for word in asked.only)
    ]
    rare, groups, found = np.zeros(0), [], {}
    for name, changes, settings in chosen:
        distil = params.distil.model_copy(update=changes)
        judged, logits = _logits(
            distil, replace(Settings(**DEFAULTS), **settings), paths, asked.cases
        )
        rare, groups = judged.rare, list(judged.groups)
        found[name] = logits
    print(f"validation part, n = {len(rare)}, {len(set(groups))} diseases\n")
    print("| variant | AUROC (95 % interval) | difference from the default |\n| --- | --- | --- |")
    for name, logits in found.items():
        alone = _interval(rare, groups, logits)
        paired = "" if name == "default" else _interval(rare, groups, logits, found["default"])
        print(f"| {name} | {alone} | {paired} |")


def _logits(
    chosen: DistilParams, settings: Settings, paths: Paths, most: int
) -> tuple[Lessons, Floats]:
    files = input_files(paths)
    desk = open_desk(chosen)
    parts = []
    for part in ("train", "valid"):
        cases = subset(read_cases(files[part]), most, chosen.seed)
        parts.append(make_lessons(cases, read_targets(files["risk"], part), desk.encoder))
    read_knowledge(desk, chosen, files["held_out"])
    schedule = Schedule(chosen.epochs, chosen.batch_size, chosen.seed)
    again = Schedule(chosen.correction_epochs, chosen.batch_size, chosen.seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        room = Classroom(desk, *parts, Path(folder), chosen.batch_size)
        with room.network(settings, chosen.seed) as network:
            if chosen.epochs:
                train(room.risk_task(network, settings), settings.learning_rate, schedule)
                correct(room, network, settings, again)
            return parts[1], logits_of(network, room.valid)


def _interval(
    rare: Floats, groups: Sequence[str], logits: Floats, other: Floats | None = None
) -> str:
    """AUROC, or its difference from ``other``'s, with a percentile bootstrap over diseases."""
    from sklearn.metrics import roc_auc_score

    def value(rows: Floats) -> float:
        mine = float(roc_auc_score(rare[rows], logits[rows]))
        return mine if other is None else mine - float(roc_auc_score(rare[rows], other[rows]))

    random, names = np.random.default_rng(0), np.array(groups)
    members = [np.flatnonzero(names == group) for group in sorted(set(groups))]
    drawn = []
    for _ in range(_RESAMPLES):
        picked = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[index] for index in picked])
        if len(set(rare[rows])) > 1:
            drawn.append(value(rows))
    low, high = np.percentile(drawn, [2.5, 97.5])
    sign = "" if other is None else "+"
    shown = f"{value(np.arange(len(rare))):{sign}.3f}"
    return f"{shown} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    main()
