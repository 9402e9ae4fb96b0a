import json

import pytest

from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.ingest import ingest
from rarealert.tracking.items import Dataset, Summary
from rarealert.visits.refused import read_refused
from rarealert.visits.store import read_cases


def row(case_id, **case):
    return {
        "case": {"case_id": case_id, "history_of_present_illness": "The toe hurts."} | case,
        "label": {
            "label": "nonrare",
            "disease_id": "NAME:gout",
            "disease_name": "Gout",
            "reason": "made for a test",
        },
    }


def write(folder, rows):
    folder.mkdir(parents=True)
    (folder / "cases.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))


@pytest.fixture
def params(request):
    whole = load_params(request.config.rootpath / "params.yaml")
    sources = whole.ingest.model_copy(update={"sources": ("table", "simulated")})
    return whole.model_copy(update={"ingest": sources})


def test_cases_refusals_and_counts_are_written(tmp_path, params):
    paths = Paths(tmp_path)
    write(paths.data / "table", [row("a"), row("b", age_years=400), row("c", sex="male")])
    write(paths.data / "simulated", [row("c"), row("d")])
    items = list(ingest(params, paths))

    cases = read_cases(paths.build("ingest") / "cases.parquet")
    assert [(item.case.case_id, item.case.source) for item in cases] == [
        ("a", "table"),
        ("c", "table"),
        ("d", "simulated"),
    ]
    refused = read_refused(paths.build("ingest") / "refused.jsonl")
    assert [(item.source, item.row, item.field) for item in refused] == [
        ("table", 2, "case.age_years"),
        ("simulated", 1, "case_id"),
    ]
    summary = json.loads((paths.report("ingest") / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["sources"]["table"]["labels"] == {"nonrare": 2}
    assert summary["sources"]["table"]["missing_sex"] == 1
    assert summary["sources"]["simulated"]["left_out"] == {
        "invalid": {"case_id: case_id is taken by source table": 1}
    }
    assert [item for item in items if isinstance(item, Summary)] == [
        Summary("3 cases, 2 rows left out")
    ]
    datasets = {item.name: item for item in items if isinstance(item, Dataset)}
    assert (datasets["table"].rows, datasets["simulated"].rows) == (2, 1)
    assert "toe" not in str(items)


def test_the_dataset_digest_follows_the_content(tmp_path, params):
    digests = []
    for name, text in (("one", "a"), ("two", "a"), ("three", "b")):
        paths = Paths(tmp_path / name)
        write(paths.data / "table", [row(text)])
        write(paths.data / "simulated", [row("z")])
        digests.append(next(iter(ingest(params, paths))).digest)
    assert digests[0] == digests[1] != digests[2]


def test_nothing_readable_is_an_error_and_writes_nothing(tmp_path, params):
    paths = Paths(tmp_path)
    write(paths.data / "table", [row("a", age_years=-1)])
    write(paths.data / "simulated", [{}])
    with pytest.raises(BadInputError, match="No case of table, simulated could be read"):
        list(ingest(params, paths))
    assert not paths.build("ingest").exists()


def test_a_missing_source_says_how_to_get_it(tmp_path, params):
    with pytest.raises(BadInputError, match="rarealert data import table PATH"):
        list(ingest(params, Paths(tmp_path)))
