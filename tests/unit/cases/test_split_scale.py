"""The split is linear: small here, and 160,000 cases in three minutes where there is time."""

import json
import time

import numpy as np
import pytest

from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.splits.leakage import count_leaks, near_duplicates, rendered, tied_groups
from rarealert.splits.parts import Shares, assign
from rarealert.stages.split import split
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import write_cases

WORDS, DISEASES = 120, {True: 4000, False: 400}


def corpus(count, seed=1):
    """Visits of 120 words by Zipf's law; 2 % copy an earlier visit of their disease but a word."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"w{number}" for number in range(8000)])
    last = {}
    for number in range(count):
        rare = number % 2 == 0
        disease = int(rng.integers(0, DISEASES[rare]))
        words = vocabulary[(rng.zipf(1.3, WORDS) - 1) % vocabulary.size]
        copied = last.get((rare, disease))
        if copied is not None and rng.random() < 0.02:
            words = copied.copy()
            words[rng.integers(0, WORDS)] = "changed"
        last[rare, disease] = words
        code = f"ORPHA:{disease}" if rare else None
        yield LabelledCase(
            case=Case(
                case_id=f"c{number:07d}",
                source=("a", "b")[number % 3 == 0],
                history_of_present_illness=" ".join(words.tolist()),
            ),
            label=Label(
                label="rare" if rare else "nonrare",
                disease_id=code or f"NAME:n{disease}",
                disease_name=f"{'r' if rare else 'n'}{disease}",
                orpha_code=code,
                reason="made for a test",
            ),
        )


def seconds(cases):
    started = time.process_time()
    pairs = near_duplicates(rendered(cases), 0.7, 128, 7)
    parts = assign(cases, tied_groups(cases, pairs), Shares(0.2, 0.25), 7)
    assert not any(count_leaks(cases, parts, pairs).values())
    return time.process_time() - started


def test_four_times_the_cases_take_about_four_times_as_long():
    cases = list(corpus(2400))
    seconds(cases[:200])  # imports and caches
    few, all_of_them = (min(seconds(part) for _ in range(3)) for part in (cases[:600], cases))
    assert all_of_them < 9 * few


@pytest.mark.scale
def test_160_000_cases_take_less_than_three_minutes(tmp_path, request):
    paths = Paths(tmp_path)
    write_cases(paths.build("ingest") / "cases.parquet", corpus(160_000))
    params = load_params(request.config.rootpath / "params.yaml")
    started = time.process_time()
    list(split(params, paths))
    assert time.process_time() - started < 180
    report = json.loads((paths.report("split") / "leakage.json").read_text())
    assert report["near_duplicate_pairs"] > 1000
    assert report["near_duplicate_pairs_on_two_sides"] == report["diseases_on_two_sides"] == 0
