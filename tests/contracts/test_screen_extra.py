"""A clinic installs the extra ``screen``: screening must run with that alone."""

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

SCRIPT = """
import importlib, json, pkgutil, sys, warnings
warnings.simplefilter("ignore")
blocked, adapter = set(json.loads(sys.argv[1])), sys.argv[2]

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in blocked
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
for room in ("screening", "student", "language", "knowledge", "cli"):
    package = importlib.import_module(f"rarealert.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import mlflow.pyfunc
from pathlib import Path
from rarealert.visits.case import Case
from rarealert.sources.fhir import read_bundle
from rarealert.student.model import Student
from rarealert.visits.reading import read_visit
assert list(read_bundle({"entry": [{"resource": {"resourceType": "Patient", "id": "p"}}]}))
case = Case(case_id="a", source="s", chief_complaint="falls often and has seizures")
student = Student.load(Path(adapter))
visit = read_visit(case)
print(student.predict([visit], 2)[0].risk, student.rationales([visit], ["low"])[0].origin)
"""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements):
    """Names of all distributions that ``requirements`` bring with them."""
    found, open_ends = set(), [(Requirement(text), "") for text in requirements]
    while open_ends:
        wanted, extra = open_ends.pop()
        if wanted.marker and not any(
            wanted.marker.evaluate({"extra": each}) for each in ("", extra)
        ):
            continue
        name = canonical(wanted.name)
        if (name, *sorted(wanted.extras)) in found:
            continue
        found.add((name, *sorted(wanted.extras)))
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for each in ("", *wanted.extras):
            open_ends += [(Requirement(text), each) for text in needed]
    return {name for name, *_ in found}


@pytest.mark.slow
def test_screening_imports_nothing_that_its_extra_lacks(tiny_student):
    allowed = closure([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["screen"]])
    allowed |= {"rarealert", "setuptools"}
    blocked = sorted(
        module
        for module, brought_by in metadata.packages_distributions().items()
        if not allowed & {canonical(name) for name in brought_by}
    )
    assert {"sklearn", "dvc", "great_expectations", "sqlalchemy", "optuna"} <= set(blocked)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(blocked), str(tiny_student)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
