"""How well does a student on another base rank real cases?

Command: ``python benchmarks/larger_base.py profiles/qwen1.5b.yaml OUT`` in a workspace whose
``tune`` ran, such as that of ``make repro-real``. The profile changes its parameters. The states
of a large base don't depend on the split, so every case is read once (an hour on two cores for
1,400 vignettes), a chunk at a time, and kept in OUT. On it heads are fitted for the locked split,
and for five folds as in ``real_student.py``: without LoRA's passes, which move the AUROC of real
cases by less than 0.001, and without rationales, on which no risk depends. Prints, for each source,
AUROC, calibration slope and ECE with 95 % intervals over whole diseases, of the student and of
TF-IDF fitted on the same part, and their paired difference.

It reads the test part. Choose nothing by what it prints.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from real_student import FOLDS, Corpus, Risks, aligned, folds, report, tfidf_risks

from rarealert.calibration.calibrators import fit_calibrator
from rarealert.params import DistilParams, Params, load_params, use_profile
from rarealert.paths import Paths
from rarealert.stages.distil import read_settings
from rarealert.student.activations import Example, freeze_prompts
from rarealert.student.data import read_held_out, read_labelled, read_targets
from rarealert.student.examples import make_examples
from rarealert.student.finding_risk import load_finding_risk
from rarealert.student.head import HeadData, fit_head
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.trainer import TrainingBase, load_training_base
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import disease_groups, is_rare, read_cases

CHUNK = 64  # cases a file; what a kill loses at most


@dataclass(frozen=True)
class Seen:
    """Every case as it is read, and what the base says of it."""

    examples: dict[str, Example]
    words: dict[str, np.ndarray]
    pooled: dict[str, np.ndarray]


def main() -> None:
    """Read every case, fit on each split, and print the tables."""
    here, home = Paths.here(), Paths(Path(sys.argv[2]).absolute())
    params = laid_over(Path(sys.argv[1]), here, home)
    cases = sorted(
        read_cases(here.build("ingest") / "cases.parquet"), key=lambda item: item.case.case_id
    )
    desk = load_training_base(params.distil)
    desk.trunk.profile_match = ProfileMatch(packaged_library())
    seen = read(cases, desk, params.distil, home)
    locked = judged(here, seen, desk, params, here)
    show("locked test part", cases, locked)
    told: Risks = {}
    corpus = Corpus(cases, folds(cases, params), here, home.root)
    for fold in range(FOLDS):
        split = aligned(fold, corpus, params)
        for model, risks in judged(split, seen, desk, params, here).items():
            told.setdefault(model, {}).update(risks)
    show("five folds", cases, told)


def laid_over(profile: Path, here: Paths, home: Paths) -> Params:
    """The workspace's parameters under ``profile``."""
    home.root.mkdir(parents=True, exist_ok=True)
    shutil.copy(here.params, home.params)
    use_profile(profile, home.params)
    return load_params(home.params)


def read(
    cases: Sequence[LabelledCase], desk: TrainingBase, chosen: DistilParams, home: Paths
) -> Seen:
    """Run every case through the frozen trunk, or read back what an earlier run kept."""
    nothing = {item.case.case_id: 0.5 for item in cases}  # targets are not read here
    examples = make_examples(read_labelled(cases), nothing, desk.encoder).examples
    words, pooled = {}, {}
    for first in range(0, len(cases), CHUNK):
        kept = home.root / f"states-{first}.npz"
        part = examples[first : first + CHUNK]
        if not kept.is_file():
            with tempfile.TemporaryDirectory(dir=home.root) as folder:
                file = Path(folder) / "states.f16"
                frozen = freeze_prompts(desk.trunk, part, file, chosen.batch_size)
            np.savez(kept, words=frozen.words, pooled=frozen.pooled)
            print(f"{first + len(part)} of {len(cases)} cases read", flush=True)
        with np.load(kept) as held:
            for row, item in enumerate(part):
                words[item.case_id] = held["words"][row]
                pooled[item.case_id] = held["pooled"][row]
    return Seen({item.case_id: item for item in examples}, words, pooled)


def judged(split: Paths, seen: Seen, desk: TrainingBase, params: Params, here: Paths) -> Risks:
    """Risks of the test part of ``split``, by model and case id."""
    parts = {
        part: read_cases(split.build("split") / f"{part}.parquet")
        for part in ("train", "valid", "test")
    }
    targets = read_targets(split.build("align") / "risk.parquet", "train")
    barred = read_held_out(split.build("split") / "held_out.json")
    said = dict(features(parts, seen, desk, params.distil, barred))
    rows = HeadData(
        features=said["train"],
        rare=np.array(is_rare(parts["train"])),
        target=np.array([targets[item.case.case_id] for item in parts["train"]]),
        groups=disease_groups(parts["train"]),
        finding_column=desk.trunk.word_width - 1,
        match_column=desk.trunk.word_width,
    )
    asked = [item.case for item in parts["test"]]
    settings = read_settings(here.build("tune") / "best.json")
    head = fit_head(rows, settings.soft_weight, settings.finding_share)
    mean, scale = head.mean.numpy(), head.scale.numpy()
    weights, bias = head.linear.weight[0].detach().numpy(), head.linear.bias.item()
    valid, test = ((said[part] - mean) / scale @ weights + bias for part in ("valid", "test"))
    rare, groups = np.array(is_rare(parts["valid"])), disease_groups(parts["valid"])
    found = fit_calibrator(valid, rare, groups, params.distil.seed).risk(test)
    return {
        "student": {case.case_id: float(risk) for case, risk in zip(asked, found, strict=True)},
        "tfidf": tfidf_risks(parts["train"], asked, params.score.seed),
    }


def features(
    parts: Mapping[str, Sequence[LabelledCase]],
    seen: Seen,
    desk: TrainingBase,
    chosen: DistilParams,
    barred: frozenset[str],
) -> Iterator[tuple[str, np.ndarray]]:
    """What the head reads of each part: words, findings, the match of profiles, states."""
    known = load_finding_risk(desk.base.digest, desk.encoder, chosen, barred)
    for part, cases in parts.items():
        examples = [seen.examples[item.case.case_id] for item in cases]
        facts = [item.prompt.facts for item in examples]
        findings = [float(known.at([one], one.length).mean()) for one in facts]
        words = np.stack([seen.words[item.case_id] for item in examples])
        pooled = np.stack([seen.pooled[item.case_id] for item in examples])
        told = np.asarray(findings, dtype=np.float32)[:, None]
        yield part, np.hstack([words[:, :-1], told, words[:, -1:], pooled])


def show(name: str, cases: Sequence[LabelledCase], risks: Risks) -> None:
    """Print the tables of each source and of all, for the cases that were judged."""
    among = [item for item in cases if item.case.case_id in risks["student"]]
    print(f"\n## {name}")
    for source in (*sorted({item.case.source for item in among}), None):
        some = [item for item in among if source in (None, item.case.source)]
        report(source or "pooled", some, risks)


if __name__ == "__main__":
    main()
