"""The student as MLflow serves it: requests, prevalence, and a version that stands alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from rarealert.errors import BadInputError
from rarealert.registry.versions import find_version, register_version, versions
from rarealert.screening import pyfunc
from rarealert.screening.answer import COLUMNS
from rarealert.screening.pyfunc import VISIT_COLUMNS, request_frame, to_cases
from rarealert.student.model import Student
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit


@pytest.fixture
def registered(mlflow_store, package, tiny_student):
    with mlflow.start_run():
        return register_version("toy", package(tiny_student), {"git.commit": "abc"})


def cases():
    return [
        Case(case_id="a", source="s", age_years=3, sex="male", chief_complaint="falls often"),
        Case(case_id="b", source="s", vitals="pulse 70"),
        Case(case_id="c", source="s", sex="female", history_of_present_illness="tired " * 90),
    ]


def test_a_table_and_its_cases_are_the_same():
    def bare(case):
        return case.model_copy(update={"source": "x"})

    back = to_cases(request_frame(cases()))
    assert [bare(case) for case in back] == [bare(case) for case in cases()]
    assert "past_medical_history" not in request_frame(cases()).columns


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"age_years": 400.0}, "Row 1: age_years"),
        ({"sex": "both"}, "Row 1: sex"),
        ({"chief_complaint": " "}, "text in at least one of"),
        ({"diagnosis": "x"}, "unknown column 'diagnosis'"),
    ],
)
def test_a_bad_request_names_row_and_field_and_quotes_nothing(change, named):
    row = {"case_id": "a", "age_years": 4.0, "sex": "male", "chief_complaint": "secret words"}
    with pytest.raises(BadInputError) as error:
        to_cases(pd.DataFrame([row | change]))
    assert named in str(error.value)
    assert "secret" not in str(error.value)


def test_the_signature_covers_the_columns():
    held = pyfunc.signature()
    assert tuple(held.inputs.input_names()) == VISIT_COLUMNS
    assert set(pyfunc.input_example().columns) <= set(VISIT_COLUMNS)
    to_cases(pyfunc.input_example())


def test_a_loaded_version_gives_the_students_own_risks(registered, tiny_student):
    loaded = mlflow.pyfunc.load_model(registered.uri)
    answers = loaded.predict(request_frame(cases()))
    own = Student.load(tiny_student).predict([read_visit(case) for case in cases()], 2)
    np.testing.assert_allclose(answers["risk"], [each.risk for each in own], atol=1e-6)
    assert list(answers["case_id"]) == ["a", "b", "c"]
    assert list(answers["truncated"]) == [False, False, True]
    assert "rationale" not in answers.columns

    assert list(answers.columns) == list(COLUMNS)
    shifted = loaded.predict(request_frame(cases()), params={"prevalence": 0.01})
    assert (shifted["risk"] < answers["risk"]).all()
    with pytest.raises(BadInputError, match="prevalence"):
        loaded.predict(request_frame(cases()), params={"prevalence": 2.0})
    for column, value in (("case_id", None), ("age_years", "old")):
        wrong = pyfunc.input_example().assign(**{column: value}).dropna(axis="columns")
        with pytest.raises(mlflow.exceptions.MlflowException, match=column):
            loaded.predict(wrong)


def without_uncertainty(adapter):
    (adapter / "uncertainty.json").unlink()


def on_another_base(adapter):
    card = json.loads((adapter / "student.json").read_text())
    (adapter / "student.json").write_text(json.dumps({**card, "base_digest": "f" * 64}))


@pytest.mark.parametrize(
    ("change", "remedy"),
    [(without_uncertainty, "dvc repro register"), (on_another_base, "install the same base model")],
)
def test_a_version_that_can_not_be_used_names_the_remedy(
    tiny_student, mlflow_store, tmp_path, package, change, remedy
):
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_student, adapter)
    change(adapter)
    with mlflow.start_run():
        version = register_version("toy", package(adapter), {})
    with pytest.raises(BadInputError, match=remedy):
        mlflow.pyfunc.load_model(version.uri)


def test_equal_digests_are_one_version_and_any_other_is_a_new_one(
    registered, tiny_student, package
):
    with mlflow.start_run():
        again = register_version("toy", package(tiny_student), {"git.commit": "def"})
    assert (again.version, again.created) == (registered.version, False)
    assert versions("toy")[0].tags["git.commit"] == "def"
    with mlflow.start_run():
        other = register_version("toy", package(tiny_student, calibration_prevalence=0.4), {})
    assert other.created
    assert [version.version for version in versions("toy")] == [2, 1]
    assert find_version("toy", other.identity) == other.version
    client = mlflow.MlflowClient()
    assert str(client.get_model_version_by_alias("toy", "challenger").version) == other.version


def test_a_version_runs_without_the_checkout_and_carries_no_teacher(registered, mlflow_store):
    script = (
        "import sys, mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import pandas as pd, rarealert\n"
        "frame = pd.DataFrame({'case_id': ['a'], 'vitals': ['pulse 70']})\n"
        "print(rarealert.__file__)\n"
        "print(model.predict(frame, params={'rationale': True})['rationale'][0] != '')\n"
    )
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, registered.uri],
        env={**kept, "MLFLOW_TRACKING_URI": mlflow_store},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    where, answered = done.stdout.splitlines()[-2:]
    assert "/code/rarealert/" in where
    assert answered == "True"
    folder = mlflow.artifacts.download_artifacts(registered.uri)
    rooms = {path.name for path in (Path(folder) / "code" / "rarealert").iterdir()}
    assert "teachers" not in rooms
    requirements = (Path(folder) / "requirements.txt").read_text()
    assert f"mlflow=={mlflow.__version__}" in requirements
    assert "+" not in requirements
