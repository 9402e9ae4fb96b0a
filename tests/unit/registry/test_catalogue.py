"""All gates together."""

import re

from rarealert.params import load_params
from rarealert.registry.gates.catalogue import gates, judge


def test_codes_are_unique_ordered_and_thresholds_come_from_the_file(repo):
    params = load_params(repo / "params.yaml")
    found = gates(params.register_, params.evaluate)
    codes = [gate.code for gate in found]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"RA\d{3}", code) for code in codes)
    loose = params.register_.model_copy(update={"max_ece": 0.9})
    assert gates(loose, params.evaluate) != found


def test_sound_evidence_passes_and_one_failure_hides_no_other(repo, sound):
    params = load_params(repo / "params.yaml")
    quick = params.evaluate.model_copy(update={"resamples": 200})
    among = gates(params.register_, quick)
    assert {result.code for result in judge(sound(), among) if not result.passed} == set()
    results = judge(sound(dirty=("src/x.py",), leaks=("1 leak",), latency_s=60.0), among)
    assert {result.code for result in results if not result.passed} == {"RA005", "RA008", "RA011"}
