"""How deep the risk must be read: validation AUROC and cases a second by layer, as a plot.

    python benchmarks/depth.py            # after `make repro`; for two minutes on two quiet cores

A head fitted on frozen features, before any adapter; intervals resample whole diseases of the
validation part. The test part is not read.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import table, visits
from sklearn.metrics import roc_auc_score

from rarealert.params import load_params
from rarealert.student.data import read_labelled, read_targets
from rarealert.student.examples import ExampleSet, make_examples
from rarealert.student.head import HeadData, fit_head
from rarealert.student.network import pad_right, pool
from rarealert.student.trainer import TrainingBase, load_training_base

SOFT_WEIGHT = 0.8  # the study's first trial
RESAMPLES = 500
BATCH = 16


def features(
    desk: TrainingBase, part: ExampleSet, layers: list[int]
) -> tuple[dict[int, Any], dict[int, float]]:
    """Mean embedding and mean state of every example at each of ``layers``; seconds until there."""
    found = {layer: [None] * len(part.examples) for layer in layers}
    seconds = dict.fromkeys(layers, 0.0)
    order = sorted(range(len(part.examples)), key=lambda at: len(part.examples[at].prompt.ids))
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids, lengths = pad_right([part.examples[at].prompt.ids for at in chosen])
            clock = time.perf_counter()
            states = desk.trunk.embed(ids)
            words = pool(states, lengths)
            done = 0
            for layer in layers:
                states = desk.trunk.run(states, done, layer)
                done = layer
                pooled = torch.cat([words, pool(states, lengths)], dim=1).numpy()
                seconds[layer] += time.perf_counter() - clock
                for row, at in enumerate(chosen):
                    found[layer][at] = pooled[row]
    return {layer: np.stack(rows) for layer, rows in found.items()}, seconds


def interval(part: ExampleSet, scores: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap over whole diseases."""
    random = np.random.default_rng(0)
    groups = np.array(part.groups)
    members = {name: np.flatnonzero(groups == name) for name in sorted(set(groups))}
    names = list(members)
    drawn = []
    while len(drawn) < RESAMPLES:
        rows = np.concatenate(
            [members[names[at]] for at in random.integers(0, len(names), len(names))]
        )
        if len(set(part.rare[rows])) == 2:
            drawn.append(roc_auc_score(part.rare[rows], scores[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def plot(rows: list[tuple[int, float, float, float, float]], file: Path) -> None:
    """AUROC with its interval, and cases a second, by layer."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(7, 3.6), layout="constrained")
    left = canvas.subplots()
    layers, auroc, low, high, rate = (np.array(column) for column in zip(*rows, strict=True))
    left.errorbar(layers, auroc, [auroc - low, high - auroc], fmt="o-", color="#D55E00", capsize=3)
    left.set(xlabel="layers run", ylabel="validation AUROC (95 % interval)")
    left.yaxis.label.set_color("#D55E00")
    right = left.twinx()
    right.plot(layers, rate, "s--", color="#0072B2")
    right.set(ylabel="cases a second", yscale="log")
    right.yaxis.label.set_color("#0072B2")
    left.set_title("How deep the risk is read, frozen features")
    canvas.savefig(file, dpi=110)


def main() -> None:
    """Measure, print the table, draw the plot."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=Path())
    options.add_argument("--cases", type=int, default=200)
    options.add_argument("--valid", type=int, default=100)
    options.add_argument("--layers", default="0,2,4,6,8,10,12,16,20,24,30")
    options.add_argument("--out", type=Path, default=Path("depth.png"))
    chosen = options.parse_args()
    params = load_params(chosen.workspace / "params.yaml")
    desk = load_training_base(params.distil)
    layers = sorted({min(int(layer), desk.trunk.depth) for layer in chosen.layers.split(",")})
    learn, judge = (
        make_examples(
            read_labelled(visits(chosen.workspace, part, count)),
            read_targets(chosen.workspace / "build" / "align" / "risk.parquet", part),
            desk.encoder,
        )
        for part, count in (("train", chosen.cases), ("valid", chosen.valid))
    )
    (fit, fit_seconds), (held, held_seconds) = (
        features(desk, part, layers) for part in (learn, judge)
    )
    count = len(learn.examples) + len(judge.examples)
    rows = []
    for layer in layers:
        start = HeadData(fit[layer], learn.rare, learn.target, learn.groups)
        head = fit_head(start, SOFT_WEIGHT, finding_share=0.0)
        with torch.inference_mode():
            scores = head(torch.from_numpy(held[layer])).numpy()
        low, high = interval(judge, scores)
        rate = count / (fit_seconds[layer] + held_seconds[layer])
        rows.append((layer, float(roc_auc_score(judge.rare, scores)), low, high, rate))
    print(f"{len(learn.examples)} training cases, {len(judge.examples)} of the validation part.")
    said = [[n, f"{a:.3f} ({low:.3f} to {high:.3f})", f"{r:.1f}"] for n, a, low, high, r in rows]
    print(table(["layers", "validation AUROC", "cases/s"], said))
    plot(rows, chosen.out)


if __name__ == "__main__":
    main()
