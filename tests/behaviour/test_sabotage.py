"""Ways to cheat or to err: a gate refuses each, by its code, and nothing is promoted.

``python tests/behaviour/test_sabotage.py`` prints them as the table of docs/results.md.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from small_workspace import NAME, Workspace

from rarealert.errors import RareAlertError
from rarealert.registry.commands import promote_version, show_log
from rarealert.registry.ledger import read_ledger
from rarealert.registry.promotion import Decision, promote
from rarealert.registry.versions import JUDGED_RUN, JUDGEMENT, JUDGEMENT_DIGEST, digest_of
from rarealert.splits.parts import lock_digest
from rarealert.visits.store import read_cases, write_cases

pytestmark = pytest.mark.slow  # thirty judgements of 1 to 2 s

STUDENT = "build/distil/adapter/student.json"
METRICS = "reports/evaluate/metrics.json"
PREDICTIONS = "build/score/predictions.parquet"
GUARDED = ("build", "reports", "dvc.lock", "dvc.yaml", "params.yaml", "src", "data")


@dataclass(frozen=True)
class Attempt:
    """An attempt that the gates ``codes`` must refuse; others may refuse it too."""

    what: str
    codes: tuple[str, ...]
    spoil: Callable[[Any], object]


def table(path, change):
    """Rewrite a Parquet table."""

    def spoil(workspace):
        file = workspace.root / path
        change(pd.read_parquet(file)).to_parquet(file)

    return spoil


def both(*spoils):
    return lambda workspace: [spoil(workspace) for spoil in spoils]


def hidden(*spoils):
    """The same with a matching dvc.lock: the gate must not depend on the pins."""
    return both(*spoils, lambda workspace: workspace.pin())


def student_risks(change):
    """Change the student's predictions, with a report that agrees with them."""

    def spoil(workspace):
        def edit(frame):
            own = (frame["model"] == "student") & (frame["part"] == "test")
            frame.loc[own, "risk"] = change(frame.loc[own, "risk"].to_numpy())
            return frame

        table(PREDICTIONS, edit)(workspace)
        workspace.report()

    return spoil


def add_model(name, of):
    """Replace the risks of ``name`` by those that ``of`` gives for the labels."""

    def spoil(workspace):
        def edit(frame):
            own = frame["model"] == name
            labels = pd.concat([pd.read_parquet(workspace.part(p)) for p in ("valid", "test")])
            rare = labels.set_index("case_id")["label"].eq("rare")
            frame.loc[own, "risk"] = of(rare[frame.loc[own, "case_id"]].to_numpy(dtype=float))
            return frame

        table(PREDICTIONS, edit)(workspace)

    return spoil


def shuffled_labels(workspace):
    """Predict as a student trained on shuffled labels: by chance."""
    rng = np.random.default_rng(4)
    student_risks(lambda risks: rng.permutation(risks))(workspace)


def drop(frame):
    student = (frame["model"] == "student") & (frame["part"] == "test")
    return frame[~(student & frame["case_id"].str.endswith("7"))]


def in_fold(frame):
    frame.loc[0, "fold"] = pd.NA
    return frame


def foreign(frame):
    frame.loc[0, "case_id"] = "test-30"
    return frame


def train_on_test(workspace):
    shutil.copy(workspace.part("test"), workspace.part("train"))
    workspace.pin()


def other_test_part(workspace):
    write_cases(workspace.part("test"), read_cases(workspace.part("test"))[1:])


def moved_lock(workspace):
    workspace.write("reports/split/lock.json", {"test_lock": lock_digest(["another"])})


def other_data(workspace):
    workspace.write("data/x", "another")


def newer_code(workspace):
    workspace.write("src/x.py", "1")
    workspace.git("commit", "-aqm", "newer code")


def in_card(**fields):
    return lambda workspace: workspace.edit(STUDENT, lambda card: card.update(fields))


steep = in_card(calibrator={"method": "platt", "parameters": [0.0, 2.0]})
flat = in_card(calibrator={"method": "platt", "parameters": [0.0, 0.1]})
other_base = in_card(base_model="/elsewhere/other")
other_bytes = in_card(base_digest="0" * 64)
other_bands = in_card(bands={"alert": 0.9, "watch": 0.1})


def edited_params(workspace):
    workspace.write("params.yaml", "{}")


def empty_leakage(workspace):
    workspace.write("reports/split/leakage.json", {})


def quote_a_case(workspace):
    import mlflow

    text = pd.read_parquet(workspace.part("test"))["chief_complaint"][0]
    with mlflow.start_run() as run:
        mlflow.log_text(f"<p>{text}</p>", "worst.html")
    workspace.write("build/evaluate/run.json", {"run_id": run.info.run_id})


def two_sources(workspace):
    workspace.sources = ("simulated", "craftmd")


def better_auroc(workspace):
    def change(report):
        report["models"]["student"]["auroc"]["value"] = 0.99

    workspace.edit(METRICS, change)


def nan(frame):
    return frame.assign(risk=frame["risk"].mask(frame["case_id"] == "test-30"))


def copy_label(rare):
    return 0.1 + 0.8 * rare


leaked_teacher = add_model("teacher:one", copy_label)
equal_control = add_model("control:length", copy_label)
TARGETS = "build/align/risk.parquet"
ATTEMPTS = (
    Attempt("train on shuffled labels", ("RA003",), hidden(shuffled_labels)),
    Attempt("train on the test part", ("RA017",), train_on_test),
    Attempt("train on targets of test cases", ("RA006",), hidden(table(TARGETS, foreign))),
    Attempt("leak the label to a teacher", ("RA018",), hidden(leaked_teacher)),
    Attempt("in-fold training targets", ("RA006",), hidden(table(TARGETS, in_fold))),
    Attempt("choose a threshold on the test part", ("RA016",), hidden(other_bands)),
    Attempt("edit metrics.json", ("RA010", "RA012"), better_auroc),
    Attempt("edit metrics.json and its pin in dvc.lock", ("RA012",), hidden(better_auroc)),
    Attempt("another dataset than the one pinned", ("RA019",), other_data),
    Attempt("change params.yaml without a commit", ("RA011",), edited_params),
    Attempt("swap the adapter after scoring", ("RA007", "RA010"), steep),
    Attempt("degrade the weights, keep the predictions", ("RA007",), hidden(flat)),
    Attempt("a base model nobody accepted", ("RA022",), hidden(other_base)),
    Attempt("another base model under the same name", ("RA007",), hidden(other_bytes)),
    Attempt("a prediction that is not a number", ("RA005",), hidden(table(PREDICTIONS, nan))),
    Attempt("drop hard cases from the predictions", ("RA005",), hidden(table(PREDICTIONS, drop))),
    Attempt("judge on another test part", ("RA005",), hidden(other_test_part)),
    Attempt("change the lock of the test part", ("RA005",), hidden(moved_lock)),
    Attempt("judge one source of two", ("RA015",), two_sources),
    Attempt("a student no better than a control", ("RA003",), hidden(equal_control)),
    Attempt("a report made by older code", ("RA019",), newer_code),
    Attempt("empty the leakage report", ("RA005",), hidden(empty_leakage)),
    Attempt("remove dvc.lock", ("RA010",), lambda w: (w.root / "dvc.lock").unlink()),
    Attempt("quote a case in a tracked artifact", ("RA009",), quote_a_case),
)


@pytest.fixture(scope="module")
def workspace(_mlflow_template, tmp_path_factory, template):
    """One workspace with a challenger that passes every gate; promotion is off."""
    import mlflow

    from rarealert.tracking.sink import connect

    root = tmp_path_factory.mktemp("sabotage")
    (root / "mlruns").mkdir()
    shutil.copy(_mlflow_template, root / "mlruns/mlflow.db")
    shutil.copytree(template.root, root, dirs_exist_ok=True)
    made = Workspace(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        connect(made.paths.tracking_uri)
        torch.set_num_threads(1)  # the model is tiny; threads would wait for each other
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        failed, _ = made.run(promote="never")
        assert (failed, made.alias("champion")) == ([], None)
        yield made
        mlflow.set_tracking_uri(None)


@pytest.fixture
def spoilt(workspace, tmp_path):
    """The workspace, restored afterwards."""
    start = workspace.git("rev-parse", "HEAD")
    for name in GUARDED:
        place = workspace.root / name
        if place.is_dir():
            shutil.copytree(place, tmp_path / name)
        elif place.is_file():
            shutil.copy(place, tmp_path / name)
    yield workspace
    workspace.sources = ("simulated",)
    for name in GUARDED:
        place, kept = workspace.root / name, tmp_path / name
        if place.is_dir():
            shutil.rmtree(place)
            shutil.copytree(kept, place)
        else:
            place.unlink(missing_ok=True)
            if kept.is_file():
                shutil.copy(kept, place)
    workspace.git("reset", "-q", "--hard", start)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.what)
def test_a_gate_refuses(spoilt, attempt):
    attempt.spoil(spoilt)
    failed, summary = spoilt.run()
    assert set(attempt.codes) <= set(failed)
    assert summary.endswith("challenger only")
    assert spoilt.alias("champion") is None
    assert read_ledger(NAME) == ()
    held = MlflowClient().get_model_version_by_alias(NAME, "challenger")
    assert held.tags["gates.failed"] == ",".join(failed)


@dataclass(frozen=True)
class Registry:
    """The registry as somebody with access to its database and files can change it."""

    workspace: Workspace
    client: MlflowClient

    @property
    def version(self):
        return self.client.get_model_version(NAME, "1")

    def file(self, name):
        """A file of version 1, beside its adapter or its card."""
        model = self.client.get_logged_model(self.version.source.removeprefix("models:/"))
        place = Path(model.artifact_location.removeprefix("file://"))
        return next(place.rglob(name))

    def tag(self, key, value):
        self.client.set_model_version_tag(NAME, "1", key, value)

    def rewrite_judgement(self):
        """Let every gate pass, with digests that agree."""
        run = self.client.get_run(self.version.tags[JUDGED_RUN])
        file = Path(run.info.artifact_uri.removeprefix("file://")) / JUDGEMENT
        held = json.loads(file.read_text())
        for gate in held["gates"]:
            gate["passed"] = True
        held["evidence"] = digest_of(held)
        file.write_text(json.dumps(held))
        self.tag(JUDGEMENT_DIGEST, held["evidence"])

    def promote_and_tamper(self):
        promote(Decision(NAME, "1", None, "abc", "e" * 64))
        self.client.set_model_version_tag(f"{NAME}.log", "1", "entry.who", "somebody else")


def slow(registry):
    assert registry.workspace.run(promote="never", max_latency_s=1e-9)[0] == ["RA008"]


def forged_tag(registry):
    slow(registry)
    registry.tag("gates.failed", "none")


def forged_judgement(registry):
    slow(registry)
    registry.rewrite_judgement()


def weights_in_the_registry(registry):
    file = registry.file("student.json")
    file.write_text(file.read_text().replace('"readout"', ' "readout"'))


def settings_in_the_registry(registry):
    file = registry.file("MLmodel")
    file.write_text(
        file.read_text().replace("calibration_prevalence: ", "calibration_prevalence: 1")
    )


def stricter_params(registry):
    file = registry.workspace.root / "params.yaml"
    file.write_text(file.read_text().replace("max_ece: 0.7", "max_ece: 0.15"))


def card_of_another(registry):
    file = registry.file("card.md")
    file.write_text(file.read_text().replace(registry.version.tags["adapter.sha256"], "0" * 64))


def move_by_hand(registry):
    registry.client.set_registered_model_alias(NAME, "champion", "1")


PROMOTION_ATTEMPTS = (
    Attempt("forge the approval: tag a failed version as passed", ("RA023",), forged_tag),
    Attempt("forge the judgement with its digest and tag", ("RA023",), forged_judgement),
    Attempt("swap the adapter in the registry", ("RA023",), weights_in_the_registry),
    Attempt("swap the settings in the registry", ("RA023",), settings_in_the_registry),
    Attempt("promote by a stricter params.yaml", ("RA023",), stricter_params),
    Attempt("remove the model card", ("RA024",), lambda r: r.file("card.md").unlink()),
    Attempt("attach the card of another version", ("RA024",), card_of_another),
    Attempt("tamper with the log of promotions", ("RA025",), Registry.promote_and_tamper),
    Attempt(
        "move the alias by hand",
        ("RA025",),
        lambda r: r.client.set_registered_model_alias(NAME, "champion", "1"),
    ),
)


@pytest.fixture
def registry(spoilt, monkeypatch):
    """Version 1, judged again and passed; changes to it are undone."""
    client = MlflowClient()
    assert spoilt.run(promote="never")[0] == []
    held = Registry(spoilt, client)
    files = {name: held.file(name) for name in ("student.json", "card.md", "MLmodel")}
    files["params"] = spoilt.root / "params.yaml"
    kept = {path: path.read_bytes() for path in files.values()}
    monkeypatch.chdir(spoilt.root)
    yield held
    for path, content in kept.items():
        path.write_bytes(content)
    client.delete_registered_model_alias(NAME, "champion")
    if client.search_registered_models(f"name = '{NAME}.log'"):
        client.delete_registered_model(f"{NAME}.log")


def test_an_honest_version_is_promoted(registry):
    assert "champion now" in promote_version("challenger", "a test")
    assert registry.workspace.alias("champion") == "1"
    assert "a test" in show_log()


@pytest.mark.parametrize("attempt", PROMOTION_ATTEMPTS, ids=lambda attempt: attempt.what)
def test_a_promotion_is_refused(registry, attempt):
    attempt.spoil(registry)
    with pytest.raises(RareAlertError, match=attempt.codes[0]):
        promote_version()


if __name__ == "__main__":
    print("| attempt | refused by |\n| --- | --- |")
    for each in (*ATTEMPTS, *PROMOTION_ATTEMPTS):
        print(f"| {each.what} | {', '.join(each.codes)} |")
