"""The split stage: its files, the lock of the test part, and registered and held-out splits."""

import hashlib
import json
from pathlib import Path

import pytest

from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.split import split
from rarealert.tracking.items import Tags
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.store import read_cases, write_cases

PARTS = ("train", "valid", "test")


def cases(diseases=30, labels=("rare", "nonrare"), source="table"):
    made = []
    for label in labels:
        for disease in range(diseases):
            code = f"ORPHA:{disease}" if label == "rare" else None
            name = f"{label} illness {disease}"
            for number in range(1 + disease % 3):
                visit = Case(
                    case_id=f"{source}-{label}-{disease}-{number}",
                    source=source,
                    chief_complaint=f"{label} {disease} {number} came in with a cough today",
                )
                truth = Label(
                    label=label,
                    disease_id=code or f"NAME:{name}",
                    disease_name=name,
                    orpha_code=code,
                    reason="made for a test",
                )
                made.append(LabelledCase(case=visit, label=truth))
    return made


@pytest.fixture
def params(request):
    return load_params(request.config.rootpath / "params.yaml")


def with_split(params, **changes):
    return params.model_copy(update={"split": params.split.model_copy(update=changes)})


def workspace(folder, items):
    paths = Paths(folder)
    write_cases(paths.build("ingest") / "cases.parquet", items)
    return paths


def run(params, paths, **changes):
    return list(split(with_split(params, **changes), paths))


def parts_of(paths):
    return {part: read_cases(paths.build("split") / f"{part}.parquet") for part in PARTS}


def report_of(paths, name="leakage"):
    return json.loads((paths.report("split") / f"{name}.json").read_text())


def page_of(paths):
    return (paths.report("split") / "index.html").read_text()


def registered(paths, rows):
    paths.data.mkdir(exist_ok=True)
    file = paths.data / "split.csv"
    file.write_text("case_id,part\n" + "".join(f"{name},{part}\n" for name, part in rows))
    return Path("data/split.csv")


def test_parts_report_and_page_agree_and_hold_no_case_text(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    reported = run(params, paths)
    parts = parts_of(paths)
    assert sorted(item.case.case_id for part in parts.values() for item in part) == sorted(
        item.case.case_id for item in items
    )
    diseases = {name: {item.label.disease_id for item in part} for name, part in parts.items()}
    assert sum(map(len, diseases.values())) == len(set.union(*diseases.values()))
    held_out = json.loads((paths.build("split") / "held_out.json").read_text())
    assert diseases["valid"] <= set(held_out["valid"])
    assert diseases["test"] <= set(held_out["test"])
    report = report_of(paths)
    assert not any(count for key, count in report.items() if key.endswith("_on_two_sides"))
    assert report["cases"]["test"]["table"]["rare"] == sum(
        item.label.label == "rare" for item in parts["test"]
    )
    lock = report_of(paths, "lock")
    assert lock["cases"] == len(parts["test"])
    page = page_of(paths)
    assert lock["test_lock"] in page
    assert "cough" not in page + str(reported)
    assert str(tmp_path) not in page


def test_near_duplicates_of_two_diseases_stay_together(tmp_path, params):
    items = cases()
    text = "the very same long story of a cough that never went away " * 3
    for place in range(0, len(items), 9):
        visit = items[place].case.model_copy(update={"chief_complaint": text})
        items[place] = items[place].model_copy(update={"case": visit})
    paths = workspace(tmp_path, items)
    run(params, paths)
    report = report_of(paths)
    assert report["near_duplicate_pairs"] == len(range(0, len(items), 9)) - 1
    assert report["near_duplicate_pairs_of_two_diseases"] > 0
    assert report["if_split_by_disease_alone"]["near_duplicate_pairs_cut"] > 0
    assert report["if_split_by_disease_alone"]["cases_to_move"] > 0
    assert report["near_duplicate_pairs_on_two_sides"] == 0


@pytest.mark.parametrize(
    ("labels", "changes", "named"),
    [
        (("rare",), {}, "Source table has no nonrare case"),
        (("rare", "nonrare"), {"minhash_permutations": 1}, "minhash_permutations"),
        (("rare", "nonrare"), {"assign": Path("split.csv")}, "not below data/"),
        (("rare", "nonrare"), {"assign": Path("data/x.csv"), "hold_out": "source:table"}, "both"),
    ],
)
def test_a_refused_split_writes_nothing(tmp_path, params, labels, changes, named):
    paths = workspace(tmp_path, cases(labels=labels))
    with pytest.raises(BadInputError, match=named):
        run(params, paths, **changes)
    assert not paths.build("split").exists()


def test_a_changed_test_part_must_be_accepted_by_its_digest(tmp_path, params):
    paths = workspace(tmp_path, cases())
    run(params, paths)
    first = report_of(paths, "lock")["test_lock"]
    kept = parts_of(paths)
    with pytest.raises(BadInputError, match=first) as caught:
        run(params, paths, seed=99)
    assert parts_of(paths) == kept
    named = str(caught.value).split("split.test_lock to ")[1][:64]
    run(params, paths, seed=99, test_lock=named)
    assert report_of(paths, "lock")["test_lock"] == named
    run(params, paths, seed=99)  # and holds from then on
    with pytest.raises(BadInputError, match=named):
        run(params, paths)


def test_each_corpus_has_its_own_lock(tmp_path, params):
    paths = workspace(tmp_path, cases())
    run(params, paths)
    workspace(tmp_path, cases(source="clinic"))
    run(params, paths, seed=5)
    assert set(report_of(paths, "lock")["locks"]) == {"table", "clinic"}
    workspace(tmp_path, cases())
    with pytest.raises(BadInputError, match="test part has changed"):
        run(params, paths, seed=5)


def test_a_damaged_lock_is_refused(tmp_path, params):
    paths = workspace(tmp_path, cases())
    paths.report("split").mkdir(parents=True)
    (paths.report("split") / "lock.json").write_text('{"locks": ')
    with pytest.raises(BadInputError, match="is damaged"):
        run(params, paths)


def test_a_registered_split_is_used_unchanged_and_its_leaks_are_reported(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    rows = [(item.case.case_id, PARTS[place % 3]) for place, item in enumerate(items)]
    reported = run(params, paths, assign=registered(paths, rows))
    placed = {item.case.case_id: part for part, kept in parts_of(paths).items() for item in kept}
    assert placed == dict(rows)
    report = report_of(paths)
    assert report["diseases_on_two_sides"] > 0
    digest = hashlib.sha256((paths.data / "split.csv").read_bytes()).hexdigest()
    assert report["made_by"] == {
        "kind": "registered", "sha256": digest, "rows_without_a_case": 0}  # fmt: skip
    lock = report_of(paths, "lock")["test_lock"]
    assert Tags({"split.test_lock": lock, "split.assign_sha256": digest}) in reported
    assert "LEAKS" in reported[-1].text
    assert 'class="failed"' in page_of(paths)


def test_our_own_split_registered_has_no_leak(tmp_path, params):
    paths = workspace(tmp_path, cases())
    run(params, paths)
    kept = parts_of(paths)
    rows = [(item.case.case_id, part) for part, members in kept.items() for item in members]
    run(params, paths, assign=registered(paths, rows))
    assert parts_of(paths) == kept
    assert report_of(paths)["diseases_on_two_sides"] == 0


def test_a_held_out_source_reaches_the_report(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items[:40] + items[60:] + cases(diseases=40, source="clinic"))
    run(params, paths, hold_out="source:table")
    report = report_of(paths)
    assert set(report["cases"]["test"]) == {"table"}
    assert report["made_by"] == {"kind": "held_out_source", "name": "table"}
    assert report["set_aside"] > 0
    assert report["diseases_on_two_sides"] == 0


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("hold_out: null", "hold_out: craftmd", r"split\.hold_out"),
        ("test_from: auto", "test_from: soon", r"split\.test_from"),
    ],
)
def test_settings_of_no_known_form_are_refused_by_params(tmp_path, request, old, new, field):
    text = (request.config.rootpath / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInputError, match=field):
        load_params(path)
    path.write_text(text.replace("test_from: auto", 'test_from: "2024-02-01"'))
    assert load_params(path).split.test_from
