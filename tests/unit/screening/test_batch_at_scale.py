"""Memory stays flat whatever the file holds, and a run killed anywhere ends as if it never was."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy

from rarealert.screening.batch import screen_file
from rarealert.screening.visit_files import read_rows

MIB = 1024**2
TEXT = "Tired for weeks, with fever at night and a dry cough that does not go away."


def visits(count):
    for number in range(count):
        age = 400 if number % 50 == 49 else number % 90  # one in fifty is refused
        yield {"case_id": f"v{number}", "age_years": age, "chief_complaint": f"{TEXT} {number}"}


def patients(count):
    """A bulk export in one file: all patients, then all encounters, so that none lies together."""
    for number in range(count):
        yield {"resourceType": "Patient", "id": f"p{number}", "birthDate": "1990-05-05"}
    for number in reversed(range(count)):
        yield {
            "resourceType": "Encounter",
            "id": f"e{number}",
            "status": "finished",
            "class": {"code": "AMB"},
            "subject": {"reference": f"Patient/p{number}"},
            "period": {"start": "2024-02-01"},
            "reasonCode": [{"text": f"{TEXT} {number}"}],
        }


def write(path, count):
    """``count`` visits in the kind that ``path`` ends in, written in flat memory too."""
    if path.suffix == ".parquet":
        rows = visits(count)
        schema = pa.Table.from_pylist(list(visits(1))).schema
        with pq.ParquetWriter(path, schema) as writer:
            while held := list(itertools.islice(rows, 10_000)):
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
        return path
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            writer = csv.DictWriter(stream, next(visits(1)).keys())
            writer.writeheader()
            writer.writerows(visits(count))
        elif path.suffix == ".json":
            stream.write('{"resourceType": "Bundle", "entry": [')
            for place, each in enumerate(patients(count)):
                stream.write("," * bool(place) + json.dumps({"resource": each}))
            stream.write("]}")
        else:
            for each in patients(count) if path.suffix == ".ndjson" else visits(count):
                stream.write(json.dumps(each) + "\n")
    return path


def peaks(folder, counts, ending, out_ending):
    """What one process says after screening few visits, and again after many."""
    pairs = [
        (write(folder / f"{count}{ending}", count), folder / f"{count}.out{out_ending}")
        for count in counts
    ]
    command = [sys.executable, toy.__file__, *(str(path) for pair in pairs for path in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for count, each in zip(counts, results, strict=True):
        refused = count // 50 if ending in (".jsonl", ".csv", ".parquet") else 0
        assert (each["screened"], each["refused"]) == (count - refused, refused)
    return results, pairs[-1][1]


def test_the_peak_is_the_same_for_eight_times_as_many_rows(tmp_path):
    (few, many), out = peaks(tmp_path, (3_000, 24_000), ".jsonl", ".csv")
    assert many["peak"] < few["peak"] + 8 * MIB  # a row that were kept would take 500 bytes
    with out.open(encoding="utf-8-sig", newline="") as stream:
        assert sum(1 for _ in csv.reader(stream)) == 1 + many["screened"]


@pytest.mark.parametrize("ending", [".ndjson", ".json"])
def test_of_fhir_records_one_patient_at_a_time_is_held(tmp_path, ending):
    import gc

    from rarealert.sources.fhir_resources import PatientRecord

    source = write(tmp_path / f"in{ending}", 300)
    most = 0
    for number, row in enumerate(read_rows(source), 1):
        assert row.case.patient_id is not None
        if number % 60 == 0:
            # by type: isinstance would ask every object of the process for its class, and some warn
            most = max(most, sum(type(each) is PatientRecord for each in gc.get_objects()))
    assert number == 300
    assert most <= 2


@pytest.mark.scale
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("ending", "out_ending", "count"),
    [
        (".jsonl", ".parquet", 1_000_000),
        (".csv", ".csv", 200_000),
        (".parquet", ".jsonl", 200_000),
        (".ndjson", ".jsonl", 40_000),
        (".json", ".jsonl", 40_000),
    ],
)
def test_the_peak_is_the_same_for_a_million_rows(tmp_path, ending, out_ending, count):
    (few, many), _ = peaks(tmp_path, (count // 20, count), ending, out_ending)
    print(f"{ending} to {out_ending}: {count // 20:,} rows {few}; {count:,} rows {many}")
    assert many["peak"] < few["peak"] + 32 * MIB


def killed(run, at):
    """Run in a forked process that kills itself before its ``at``-th step on disk; whether it did.

    A step makes appended bytes durable or gives a file its name: a chunk takes three of them.
    """
    child = os.fork()
    if child == 0:
        steps = itertools.count(1)

        def dying(step):
            def wrapped(*asked):
                if next(steps) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*asked)

            return wrapped

        os.fsync, os.replace = dying(os.fsync), dying(os.replace)
        try:
            run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("ending", "out_ending"), [(".jsonl", ".csv"), (".ndjson", ".jsonl")])
def test_a_run_killed_again_and_again_ends_in_the_same_bytes(tmp_path, ending, out_ending):
    source = write(tmp_path / f"in{ending}", 100)
    out, whole = tmp_path / f"out{out_ending}", tmp_path / f"whole{out_ending}"

    def run(path=out):
        screen_file(source, path, toy.model(toy.CheapScorer()), chunk_rows=10)

    steps = itertools.cycle(range(3, 8))  # before, between and after the steps of a chunk
    kills = 0
    while killed(run, next(steps)):
        kills += 1
        assert kills < 100
    assert kills > 5
    run(whole)
    assert out.read_bytes() == whole.read_bytes()
    refused = [Path(f"{path}.refused.jsonl") for path in (out, whole)]
    if ending == ".jsonl":
        assert refused[0].read_bytes() == refused[1].read_bytes()
    held = refused if ending == ".jsonl" else []
    assert set(tmp_path.iterdir()) == {source, out, whole, *held}
