import json

import pytest

from rarealert.cases.case import Case, Label, LabelledCase
from rarealert.cases.store import read_cases, write_cases
from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.stages.split import split

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
    assert report["near_duplicate_pairs_cut_if_not_tied"] > 0
    assert report["near_duplicate_pairs_on_two_sides"] == 0


def test_one_label_only_is_refused_and_writes_nothing(tmp_path, params):
    paths = workspace(tmp_path, cases(labels=("rare",)))
    with pytest.raises(BadInputError, match="Source table has no nonrare case"):
        list(split(params, paths))
    assert not paths.build("split").exists()


def test_one_permutation_is_refused(tmp_path, params):
    with pytest.raises(BadInputError, match="minhash_permutations"):
        list(split(with_split(params, minhash_permutations=1), workspace(tmp_path, cases())))
