"""A small workspace in which every stage above ``register`` has just run."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from rarealert.calibration.bands import fit_bands
from rarealert.evaluation.metrics import auroc
from rarealert.files import sha256_of_file
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.splits.parts import lock_digest
from rarealert.student.model import Student
from rarealert.tracking.items import Summary
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import read_cases, write_cases

ROOT = Path(__file__).parents[2]

NAME = "rarealert-student"
INPUTS = (
    "build/score/predictions.parquet",
    "build/split/train.parquet",
    "build/split/valid.parquet",
    "build/split/test.parquet",
    "build/align/risk.parquet",
    "build/distil/adapter",
    "reports/evaluate/metrics.json",
    "reports/split/leakage.json",
    "reports/split/lock.json",
)
WORDS = ["cough", "fever", "rash", "pain", "weak", "tired", "dizzy", "numb", "pale", "stiff"]
SIZES = {"train": 6, "valid": 16, "test": 24}
LAX = {"max_ece": 0.7, "max_memory_gib": 24.0}
"""Thresholds of its params.yaml: the small model's risks are all near one half, and this process
has run other tests before."""

PIPELINE = {
    "above": {
        "cmd": "true",
        "deps": ["src/x.py", "data"],
        "outs": [name for name in INPUTS if name.startswith("build")]
        + [{name: {"cache": False}} for name in INPUTS if name.startswith("reports")],
    },
    "register": {"cmd": "true", "deps": ["src/x.py", *INPUTS]},
}


def visit(case_id, seed, rare):
    words = np.random.default_rng(seed).choice(WORDS, 14)
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=f"ORPHA:{seed}" if rare else f"NAME:{seed}",
        disease_name=f"disease {seed}",
        orpha_code=f"ORPHA:{seed}" if rare else None,
        reason="test",
    )
    case = Case(case_id=case_id, source="simulated", age_years=30, chief_complaint=" ".join(words))
    return LabelledCase(case=case, label=label)


def risks_of(student, cases):
    readings = [read_visit(item.case) for item in cases]
    return [item.risk for item in student.predict(readings, 8)]


@dataclass
class Workspace:
    root: Path
    sources: tuple[str, ...] = ("simulated",)

    @property
    def paths(self):
        return Paths(self.root)

    def json(self, name):
        return json.loads((self.root / name).read_text())

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    def git(self, *words):
        author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", *author, *words]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def dvc(self, *words):
        command = [sys.executable, "-m", "dvc", *words]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)

    def pin(self):
        """Record the workspace as the outcome of the stage above."""
        self.dvc("commit", "--force", "--quiet", "above")

    def predict(self):
        """Do as score and evaluate: risks of the packaged student, and its report."""
        adapter = self.root / "build/distil/adapter"
        cases = {part: pd.read_parquet(self.part(part)) for part in ("valid", "test")}
        rows = []
        rng = np.random.default_rng(1)
        for part, frame in cases.items():
            visits = [visit(key, int(seed), rare=False) for key, seed in seeds(frame)]
            student = risks_of(Student.load(adapter), visits)
            models = {
                "student": student,
                "teacher:one": rng.random(len(frame)),
                "control:length": rng.random(len(frame)),
            }
            for model, risks in models.items():
                found = pd.DataFrame({"case_id": frame["case_id"], "risk": risks})
                rows.append(found.assign(part=part, model=model))
        table = pd.concat(rows)
        (self.root / "build/score").mkdir(parents=True, exist_ok=True)
        table.to_parquet(self.root / "build/score/predictions.parquet")
        self.report()

    def report(self):
        """Do as evaluate: report the student's predictions."""
        table = pd.read_parquet(self.root / "build/score/predictions.parquet")
        scored = table[(table["part"] == "test") & (table["model"] == "student")]
        truth = pd.read_parquet(self.part("test")).set_index("case_id")["label"] == "rare"
        value = round(auroc(truth[scored["case_id"]].astype(float), scored["risk"]), 6)
        figure = {"value": value, "ci_low": value - 0.1, "ci_high": value, "n": len(scored)}
        report = {"models": {"student": {"auroc": figure}}, "controls": {}, "by_source": {}}
        self.write("reports/evaluate/metrics.json", report)

    def edit(self, name, change):
        """Apply ``change`` to the JSON file ``name``."""
        held = self.json(name)
        change(held)
        self.write(name, held)

    def note(self):
        """Do as distil: record its training data, and thresholds from validation."""
        student = Student.load(self.root / "build/distil/adapter")
        valid = read_cases(self.part("valid"))
        risks = risks_of(student, valid)
        bands = fit_bands(np.array(risks), np.array([c.label.label == "rare" for c in valid]))
        digests = {part: sha256_of_file(self.part(part)) for part in ("train", "valid")}

        def change(card):
            card["bands"] = {"alert": bands.alert, "watch": bands.watch}
            card["training_data"] = digests

        self.edit("build/distil/adapter/student.json", change)

    def part(self, name):
        return self.root / f"build/split/{name}.parquet"

    def run(self, **register):
        """Run the stage through the sink; return the failed gates and the summary."""
        from rarealert.stages.register import register as stage
        from rarealert.tracking.sink import open_run

        params = load_params(ROOT / "params.yaml")
        small = {**LAX, "accepted_base_models": {"base": "mit"}}  # its base is a folder
        chosen = params.register_.model_copy(update={**small, **register})
        quick = params.evaluate.model_copy(update={"resamples": 200})
        asked = params.ingest.model_copy(update={"sources": self.sources})
        sections = {"register_": chosen, "evaluate": quick, "ingest": asked}
        params = params.model_copy(update=sections)
        record = self.root / "build/register/run.json"
        summary = ""
        with open_run("register", self.root, self.paths.tracking_uri, record) as sink:
            for item in stage(params, self.paths):
                if isinstance(item, Summary):
                    summary = item.text
                else:
                    sink.log(item)
        gates = self.json("reports/register/gates.json")
        return [gate["code"] for gate in gates["gates"] if not gate["passed"]], summary

    def next_version(self):
        """Run the stage on a student whose risks are better separated."""
        card = "build/distil/adapter/student.json"
        self.edit(card, lambda held: held["calibrator"].update(parameters=[0.0, 9.0]))
        self.note()
        self.predict()
        self.pin()
        return self.run()

    def alias(self, name):
        import mlflow

        held = mlflow.MlflowClient().get_registered_model(NAME).aliases.get(name)
        return None if held is None else str(held)


def seeds(frame):
    return zip(frame["case_id"], frame["disease_id"].str.split(":").str[1], strict=True)


def build(root, tiny_student):
    """Make the workspace of an honest run at ``root``."""
    made = Workspace(root)
    adapter = root / "build/distil/adapter"
    shutil.copytree(tiny_student, adapter)
    seed = 0
    for part, size in SIZES.items():
        numbers = range(seed, seed + size)
        seed += size
        plain = [visit(f"{part}-{i}", i, rare=False) for i in numbers]
        risks = risks_of(Student.load(adapter), plain)
        middle = float(np.median(risks))
        cases = [
            visit(f"{part}-{i}", i, rare=risk > middle)
            for i, risk in zip(numbers, risks, strict=True)
        ]
        write_cases(made.part(part), cases)
    digest = lock_digest(pd.read_parquet(made.part("test"))["case_id"])
    made.write("reports/split/lock.json", {"test_lock": digest})
    made.write("reports/split/leakage.json", {"diseases_on_two_sides": 0})
    folds = [{"case_id": f"train-{i}", "part": "train", "fold": i % 2, "risk": 0.5} for i in (0, 1)]
    (root / "build/align").mkdir(parents=True)
    pd.DataFrame(folds).astype({"fold": "Int64"}).to_parquet(root / "build/align/risk.parquet")
    made.note()
    made.predict()
    made.write("src/x.py", "")
    made.write("data/x", "")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["register"] |= LAX
    made.write("params.yaml", yaml.safe_dump(params))
    made.write("dvc.yaml", yaml.safe_dump({"stages": PIPELINE}))
    made.write(".gitignore", "build\nmlruns\ndata\n")
    made.git("init", "-q")
    made.dvc("init", "--quiet", "--no-scm")
    made.dvc("add", "--quiet", "data")
    made.git("add", "-A")
    made.git("commit", "-qm", "start")
    made.pin()
    return made
