"""The register stage on a small workspace: an honest run is promoted, a spoilt one is refused."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from rarealert.cases.case import Case, Label, LabelledCase
from rarealert.cases.splits import lock_digest
from rarealert.cases.store import read_cases, write_cases
from rarealert.errors import BadInputError, RareAlertError
from rarealert.metrics.discrimination import auroc
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.registry.workspace import dvc_md5
from rarealert.screening.batch import screen_file
from rarealert.screening.champion import load_model
from rarealert.student.model import Student
from rarealert.tracking.items import Summary

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
SIZES = {"train": 6, "valid": 6, "test": 24}


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


@dataclass(frozen=True)
class Workspace:
    root: Path
    store: str

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
        subprocess.run(["git", *author, *words], cwd=self.root, check=True, capture_output=True)

    def pin(self):
        """What DVC does before this stage runs."""
        outs = [{"path": name, "md5": dvc_md5(self.root / name)} for name in INPUTS]
        self.write("dvc.lock", yaml.safe_dump({"stages": {"above": {"outs": outs}}}))

    def predict(self):
        """What score and evaluate do: risks of the packaged student, and its report."""
        adapter = self.root / "build/distil/adapter"
        cases = {part: pd.read_parquet(self.part(part)) for part in ("valid", "test")}
        rows = []
        rng = np.random.default_rng(1)
        for part, frame in cases.items():
            visits = [visit(key, int(seed), rare=False).case for key, seed in seeds(frame)]
            student = [answer.risk for answer in Student.load(adapter).predict(visits, 8)]
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
        scored = table[(table["part"] == "test") & (table["model"] == "student")]
        labels = (cases["test"]["label"] == "rare").astype(float)
        value = round(auroc(labels, scored["risk"]), 6)
        figure = {"value": value, "ci_low": value - 0.1, "ci_high": value, "n": len(scored)}
        report = {"models": {"student": {"auroc": figure}}, "controls": {}, "by_source": {}}
        self.write("reports/evaluate/metrics.json", report)

    def part(self, name):
        return self.root / f"build/split/{name}.parquet"

    def run(self, **register):
        """One run of the stage through the sink; the failed gates and the summary."""
        from rarealert.stages.register import register as stage
        from rarealert.tracking.sink import open_run

        params = load_params(Path(__file__).parents[2] / "params.yaml")
        # The small model's risks all lie near one half, which is nothing to measure here.
        chosen = params.register_.model_copy(update={"max_ece": 0.7, **register})
        quick = params.evaluate.model_copy(update={"resamples": 200})
        params = params.model_copy(update={"register_": chosen, "evaluate": quick})
        record = self.root / "build/register/run.json"
        said = ""
        with open_run("register", self.root, self.paths.tracking_uri, record) as sink:
            for item in stage(params, self.paths):
                if isinstance(item, Summary):
                    said = item.text
                else:
                    sink.log(item)
        gates = self.json("reports/register/gates.json")
        return [gate["code"] for gate in gates["gates"] if not gate["passed"]], said

    def alias(self, name):
        import mlflow

        held = mlflow.MlflowClient().get_registered_model(NAME).aliases.get(name)
        return None if held is None else str(held)


def seeds(frame):
    return zip(frame["case_id"], frame["disease_id"].str.split(":").str[1], strict=True)


@pytest.fixture
def workspace(tmp_path, mlflow_store, tiny_student):
    made = Workspace(tmp_path, mlflow_store)
    adapter = tmp_path / "build/distil/adapter"
    shutil.copytree(tiny_student, adapter)
    seed = 0
    for part, size in SIZES.items():
        numbers = range(seed, seed + size)
        seed += size
        plain = [visit(f"{part}-{i}", i, rare=False) for i in numbers]
        risks = [
            answer.risk for answer in Student.load(adapter).predict([c.case for c in plain], 8)
        ]
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
    (tmp_path / "build/align").mkdir(parents=True)
    pd.DataFrame(folds).astype({"fold": "Int64"}).to_parquet(tmp_path / "build/align/risk.parquet")
    made.predict()
    made.write("src/x.py", "")
    made.write("params.yaml", "register: {model_name: rarealert-student}\n")
    made.write("dvc.yaml", yaml.safe_dump({"stages": {"register": {"deps": list(INPUTS)}}}))
    made.write(".gitignore", "build\nmlruns\n")
    made.git("init", "-q")
    made.git("add", "-A")
    made.git("commit", "-qm", "start")
    made.pin()
    return made


def test_an_honest_run_is_promoted_once_and_screens(workspace):
    failed, said = workspace.run()
    assert failed == []
    assert said.endswith("now champion")
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("1", None)
    gates, card = (
        workspace.root / f"reports/register/{name}" for name in ("gates.json", "card.md")
    )
    assert workspace.json("reports/register/gates.json")["promoted"] is True
    for text in (gates.read_text(), card.read_text()):
        assert str(workspace.root) not in text
    assert "Decision support, not a diagnosis." in card.read_text()
    assert "simulated" in card.read_text()
    before = gates.read_bytes(), (workspace.root / "mlruns/promotions.jsonl").read_bytes()

    failed, said = workspace.run()
    assert failed == []
    assert "(unchanged)" in said
    assert said.endswith("still champion")
    after = gates.read_bytes(), (workspace.root / "mlruns/promotions.jsonl").read_bytes()
    kept = [json.loads(each[0]) for each in (before, after)]
    for each in kept:  # the first run had no champion to be compared with, and time passes
        each["gates"] = [g for g in each["gates"] if g["code"] not in ("RA001", "RA008")]
        del each["evidence"]
    assert kept[0] == kept[1]
    assert before[1] == after[1]

    source = workspace.root / "visits.jsonl"
    source.write_text('{"case_id": "v1", "chief_complaint": "cough and fever"}\n')
    model = load_model(NAME, "champion", workspace.store)
    report = screen_file(source, workspace.root / "risks.jsonl", model, rationale=True)
    assert (report.screened, report.version) == (1, "1")
    row = json.loads((workspace.root / "risks.jsonl").read_text())
    assert row["rationale"]
    assert row["model_digest"] == model.digest != ""


def test_a_better_student_follows_and_the_way_back_stays_open(workspace):
    import mlflow

    workspace.run()
    card = workspace.json("build/distil/adapter/student.json")
    card["calibration"]["slope"] = 9.0
    workspace.write("build/distil/adapter/student.json", card)
    workspace.predict()
    workspace.pin()
    failed, _ = workspace.run()
    assert failed == []
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("2", "1")
    gates = workspace.json("reports/register/gates.json")["gates"]
    assert "on the same 24 cases" in gates[0]["reason"]
    version = mlflow.MlflowClient().get_model_version(NAME, "2")
    assert version.tags["gates.failed"] == "none"
    assert "AUROC" in version.description
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/2"))
    assert (folder / "card.md").is_file()


def _edit_report(workspace):
    report = workspace.json("reports/evaluate/metrics.json")
    report["models"]["student"]["auroc"]["value"] = 0.5
    workspace.write("reports/evaluate/metrics.json", report)


def _drop_hard_cases(workspace):
    path = workspace.root / "build/score/predictions.parquet"
    frame = pd.read_parquet(path)
    student = (frame["model"] == "student") & (frame["part"] == "test")
    frame[~(student & (frame["case_id"].str.endswith("7")))].to_parquet(path)


def _swap_adapter(workspace):
    card = workspace.json("build/distil/adapter/student.json")
    card["calibration"]["slope"] = 2.0
    workspace.write("build/distil/adapter/student.json", card)


def _in_fold_targets(workspace):
    path = workspace.root / "build/align/risk.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "fold"] = pd.NA
    frame.to_parquet(path)


def _copy_the_label(workspace):
    path = workspace.root / "build/score/predictions.parquet"
    frame = pd.read_parquet(path)
    student = frame[frame["model"] == "student"]
    others = frame[frame["model"] != "control:length"]
    pd.concat([others, student.assign(model="control:length")]).to_parquet(path)


def _another_test_part(workspace):
    path = workspace.part("test")
    write_cases(path, read_cases(path)[1:])


def _quote_a_case(workspace):
    import mlflow

    from rarealert.tracking.sink import connect

    connect(workspace.paths.tracking_uri)
    text = pd.read_parquet(workspace.part("test"))["chief_complaint"][0]
    with mlflow.start_run() as run:
        mlflow.log_text(f"<p>{text}</p>", "worst.html")
    workspace.write("build/evaluate/run.json", {"run_id": run.info.run_id})


@pytest.mark.slow  # ten registrations of 2 to 3 s
@pytest.mark.parametrize(
    ("sabotage", "codes"),
    [
        (_edit_report, {"RA010", "RA012"}),
        (_drop_hard_cases, {"RA005", "RA010"}),
        (_swap_adapter, {"RA007", "RA010"}),
        (_in_fold_targets, {"RA006", "RA010"}),
        (_copy_the_label, {"RA003", "RA010"}),
        (_another_test_part, {"RA005", "RA010"}),
        (_quote_a_case, {"RA009"}),
        (lambda w: w.write("params.yaml", "register: {max_ece: 1}\n"), {"RA011"}),
        (lambda w: (w.root / "dvc.lock").unlink(), {"RA010"}),
        (lambda w: w.write("reports/split/leakage.json", {}), {"RA005", "RA010"}),
    ],
)
def test_a_spoilt_run_is_refused_by_its_gate(workspace, sabotage, codes):
    sabotage(workspace)
    failed, said = workspace.run()
    assert codes <= set(failed)
    assert said.endswith("challenger only")
    assert (workspace.alias("champion"), workspace.alias("challenger")) == (None, "1")
    assert not (workspace.root / "mlruns/promotions.jsonl").exists()
    with pytest.raises(RareAlertError, match=min(failed)):
        load_model(NAME, "champion", workspace.store)


def test_promotion_can_be_switched_off(workspace):
    failed, said = workspace.run(promote="never")
    assert failed == []
    assert said.endswith("promotion is off")
    assert workspace.alias("champion") is None


def test_a_stage_above_that_did_not_finish_is_named(workspace):
    (workspace.root / "reports/evaluate/metrics.json").unlink()
    with pytest.raises(BadInputError, match=r"metrics\.json is missing; run dvc repro evaluate"):
        workspace.run()
