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


def cases(diseases=30, labels=("rare", "nonrare")):
    made = []
    for label in labels:
        for disease in range(diseases):
            code = f"ORPHA:{disease}" if label == "rare" else None
            name = f"{label} illness {disease}"
            for number in range(1 + disease % 3):
                visit = Case(
                    case_id=f"{label}-{disease}-{number}",
                    source="table",
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


def parts_of(paths):
    return {part: read_cases(paths.build("split") / f"{part}.parquet") for part in PARTS}


def test_parts_reports_and_lock(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    reported = list(split(params, paths))
    parts = parts_of(paths)
    assert sorted(item.case.case_id for part in parts.values() for item in part) == sorted(
        item.case.case_id for item in items
    )
    diseases = [{item.label.disease_id for item in part} for part in parts.values()]
    assert sum(map(len, diseases)) == len(set.union(*diseases))
    report = json.loads((paths.report("split") / "leakage.json").read_text())
    assert report["diseases_on_two_sides"] == 0
    assert report["near_duplicate_pairs_on_two_sides"] == 0
    assert report["cases"]["test"]["table"]["rare"] == sum(
        item.label.label == "rare" for item in parts["test"]
    )
    lock = json.loads((paths.report("split") / "lock.json").read_text())
    assert lock["cases"] == len(parts["test"])
    assert "cough" not in str(reported)

    pinned = with_split(params, test_lock=lock["test_lock"])
    list(split(pinned, paths))
    with pytest.raises(BadInputError, match=r"set split\.test_lock to [0-9a-f]{64}"):
        list(split(with_split(pinned, seed=99), paths))


def test_row_order_does_not_matter(tmp_path, params):
    one = workspace(tmp_path / "one", cases())
    two = workspace(tmp_path / "two", cases()[::-1])
    list(split(params, one))
    list(split(params, two))
    assert parts_of(one) == parts_of(two)


def test_near_duplicates_of_two_diseases_stay_together(tmp_path, params):
    items = cases()
    text = "the very same long story of a cough that never went away " * 3
    for place in range(0, len(items), 9):
        visit = items[place].case.model_copy(update={"chief_complaint": text})
        items[place] = items[place].model_copy(update={"case": visit})
    paths = workspace(tmp_path, items)
    list(split(params, paths))
    report = json.loads((paths.report("split") / "leakage.json").read_text())
    assert report["near_duplicate_pairs"] == len(range(0, len(items), 9)) - 1
    assert report["near_duplicate_pairs_of_two_diseases"] > 0
    assert report["if_split_by_disease_alone"]["near_duplicate_pairs_cut"] > 0
    assert report["if_split_by_disease_alone"]["cases_to_move"] > 0
    assert report["near_duplicate_pairs_on_two_sides"] == 0


def test_one_label_only_is_refused_and_writes_nothing(tmp_path, params):
    paths = workspace(tmp_path, cases(labels=("rare",)))
    with pytest.raises(BadInputError, match="Source table has no nonrare case"):
        list(split(params, paths))
    assert not paths.build("split").exists()


def test_one_permutation_is_refused(tmp_path, params):
    with pytest.raises(BadInputError, match="minhash_permutations"):
        list(split(with_split(params, minhash_permutations=1), workspace(tmp_path, cases())))


def report_of(paths, name="leakage"):
    return json.loads((paths.report("split") / f"{name}.json").read_text())


def test_the_page_says_what_was_checked_and_holds_no_case_text(tmp_path, params):
    paths = workspace(tmp_path, cases())
    list(split(params, paths))
    page = (paths.report("split") / "index.html").read_text()
    assert "No disease, no patient and no near-duplicate text stands on two sides." in page
    assert "No source names Orphanet heads" in page
    assert report_of(paths, "lock")["test_lock"] in page
    assert "cough" not in page
    assert str(tmp_path) not in page


def test_a_changed_test_part_must_be_asked_for_by_name(tmp_path, params):
    paths = workspace(tmp_path, cases())
    list(split(params, paths))
    first = report_of(paths, "lock")["test_lock"]
    kept = parts_of(paths)
    with pytest.raises(BadInputError, match=r"lock\.json is " + first) as caught:
        list(split(with_split(params, seed=99), paths))
    assert parts_of(paths) == kept
    named = str(caught.value).split("split.test_lock to ")[1][:64]
    list(split(with_split(params, seed=99, test_lock=named), paths))
    assert report_of(paths, "lock")["test_lock"] == named
    list(split(with_split(params, seed=99), paths))  # and holds from then on
    with pytest.raises(BadInputError, match=r"lock\.json is " + named):
        list(split(params, paths))


def test_each_corpus_has_a_lock_of_its_own(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    list(split(params, paths))
    other = [
        item.model_copy(update={"case": item.case.model_copy(update={"source": "clinic"})})
        for item in items[:-1]
    ]
    workspace(tmp_path, other)
    list(split(with_split(params, seed=5), paths))
    assert set(report_of(paths, "lock")["locks"]) == {"table", "clinic"}
    workspace(tmp_path, items)
    with pytest.raises(BadInputError, match="The test part has changed"):
        list(split(with_split(params, seed=5), paths))


def test_a_damaged_lock_is_not_taken_for_none(tmp_path, params):
    paths = workspace(tmp_path, cases())
    paths.report("split").mkdir(parents=True)
    (paths.report("split") / "lock.json").write_text('{"locks": ')
    with pytest.raises(BadInputError, match="is damaged"):
        list(split(params, paths))


def registered(paths, rows):
    paths.data.mkdir(exist_ok=True)
    file = paths.data / "split.csv"
    file.write_text("case_id,part\n" + "".join(f"{name},{part}\n" for name, part in rows))
    return Path("data/split.csv")


def test_a_registered_split_is_honoured_and_its_leaks_are_told(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    rows = [(item.case.case_id, PARTS[place % 3]) for place, item in enumerate(items)]
    setting = with_split(params, assign=registered(paths, rows))
    reported = list(split(setting, paths))
    placed = {item.case.case_id: part for part, kept in parts_of(paths).items() for item in kept}
    assert placed == dict(rows)
    report = report_of(paths)
    assert report["diseases_on_two_sides"] > 0
    assert report["made_by"]["kind"] == "registered"
    digest = hashlib.sha256((paths.data / "split.csv").read_bytes()).hexdigest()
    assert report["made_by"]["sha256"] == digest
    assert Tags({"split.test_lock": report_of(paths, "lock")["test_lock"],
                 "split.assign_sha256": digest}) in reported  # fmt: skip
    assert "LEAKS" in reported[-1].text
    page = (paths.report("split") / "index.html").read_text()
    assert "Something stands on two sides" in page


def test_our_own_split_registered_has_no_leak(tmp_path, params):
    items = cases()
    paths = workspace(tmp_path, items)
    list(split(params, paths))
    kept = parts_of(paths)
    rows = [(item.case.case_id, part) for part, members in kept.items() for item in members]
    list(split(with_split(params, assign=registered(paths, rows)), paths))
    assert parts_of(paths) == kept
    assert report_of(paths)["diseases_on_two_sides"] == 0


def test_a_registered_split_outside_data_or_beside_a_held_out_source_is_refused(tmp_path, params):
    paths = workspace(tmp_path, cases())
    with pytest.raises(BadInputError, match="not below data/"):
        list(split(with_split(params, assign=Path("split.csv")), paths))
    both = with_split(params, assign=Path("data/x.csv"), hold_out="source:table")
    with pytest.raises(BadInputError, match="both set"):
        list(split(both, paths))


def test_a_held_out_source_reaches_the_report(tmp_path, params):
    items = cases()
    other = [
        item.model_copy(
            update={
                "case": item.case.model_copy(
                    update={"source": "clinic", "case_id": f"clinic-{item.case.case_id}"}
                )
            }
        )
        for item in cases(diseases=40)
    ]
    paths = workspace(tmp_path, items[:40] + items[60:] + other)
    list(split(with_split(params, hold_out="source:table"), paths))
    report = report_of(paths)
    assert set(report["cases"]["test"]) == {"table"}
    assert report["set_aside"] > 0
    assert report["diseases_on_two_sides"] == 0
    assert "is held out" in (paths.report("split") / "index.html").read_text()


def test_shares_that_no_source_can_meet_are_refused_by_params(request):
    text = (request.config.rootpath / "params.yaml").read_text()
    with pytest.raises(BadInputError, match=r"split\.hold_out"):
        _loaded(request, text.replace("hold_out: null", "hold_out: craftmd"))
    assert _loaded(
        request, text.replace("test_from: auto", 'test_from: "2024-02-01"')
    ).split.test_from
    with pytest.raises(BadInputError, match=r"split\.test_from"):
        _loaded(request, text.replace("test_from: auto", "test_from: soon"))


def _loaded(request, text):
    path = request.getfixturevalue("tmp_path") / "params.yaml"
    path.write_text(text)
    return load_params(path)
