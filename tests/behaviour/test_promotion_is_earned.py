"""The register stage on a small workspace: an honest run is promoted and can be taken back."""

import json
from pathlib import Path

import pytest
from small_workspace import NAME, ROOT

from rarealert.errors import BadInputError
from rarealert.registry.commands import roll_back, show_log
from rarealert.registry.comparison import compare_versions
from rarealert.registry.identity import adapter_sha256
from rarealert.registry.ledger import read_ledger
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.champion import load_model


def run_notebook(name):
    """Run a notebook's cells in this workspace; return its variables."""
    held = json.loads((ROOT / "notebooks" / name).read_text())
    space = {}
    for cell in held["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), space)
    return space


def test_an_honest_run_is_promoted_once_and_screens(workspace):
    failed, summary = workspace.run()
    assert failed == []
    assert summary.endswith("now champion")
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("1", None)
    gates, card = (
        workspace.root / f"reports/register/{name}" for name in ("gates.json", "card.md")
    )
    assert workspace.json("reports/register/gates.json")["promoted"] is True
    for text in (gates.read_text(), card.read_text()):
        assert str(workspace.root) not in text
    assert "Decision support, not a diagnosis." in card.read_text()
    assert "simulated" in card.read_text()
    before = gates.read_bytes(), read_ledger(NAME)

    failed, summary = workspace.run()
    assert failed == []
    assert "(unchanged)" in summary
    assert summary.endswith("still champion")
    after = gates.read_bytes(), read_ledger(NAME)
    kept = [json.loads(each[0]) for each in (before, after)]
    for each in kept:  # the first run had no champion to be compared with, and time passes
        each["gates"] = [g for g in each["gates"] if g["code"] not in ("RA001", "RA008")]
        del each["evidence"], each["champion"]
    assert kept[0] == kept[1]
    assert before[1] == after[1]

    source = workspace.root / "visits.jsonl"
    source.write_text('{"case_id": "v1", "chief_complaint": "cough and fever"}\n')
    model = load_model(NAME, "champion", workspace.paths.tracking_uri)
    report = screen_file(source, workspace.root / "risks.jsonl", model, Options("all"))
    assert (report.screened, report.version) == (1, "1")
    row = json.loads((workspace.root / "risks.jsonl").read_text())
    assert row["rationale"]
    assert row["model_digest"] == model.digest != ""


def test_a_better_student_follows_and_the_way_back_stays_open(workspace, monkeypatch):
    import mlflow

    workspace.run()
    failed, _ = workspace.next_version()
    assert failed == []
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("2", "1")
    gates = workspace.json("reports/register/gates.json")["gates"]
    assert "on the same 24 cases" in gates[0]["reason"]
    version = mlflow.MlflowClient().get_model_version(NAME, "2")
    assert version.tags["gates.failed"] == "none"
    assert "AUROC" in version.description
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/2"))
    card_text = (folder / "card.md").read_text()
    adapter = folder / "artifacts/adapter"
    assert (adapter / "README.md").read_text() == card_text
    assert not (workspace.root / "build/distil/adapter/README.md").exists()
    assert version.tags["adapter.sha256"] == adapter_sha256(adapter)
    assert adapter_sha256(adapter) == adapter_sha256(workspace.root / "build/distil/adapter")
    assert adapter_sha256(adapter) in card_text

    monkeypatch.chdir(workspace.root)
    assert "AUROC of B minus A" in compare_versions("previous", "champion", Path("out"))
    compared = workspace.json("out/compare.json")
    assert compared["cases"] == {"n": 24, "of": 24, "rare": 12}
    assert [side["label"] for side in compared["sides"]] == [
        "previous, version 1",
        "champion, version 2",
    ]
    assert all(seconds >= 0 for seconds in compared["costs"]["seconds for one visit"])
    assert "data:image/png" in (workspace.root / "out/index.html").read_text()
    with pytest.raises(BadInputError, match="nobody"):
        compare_versions("previous", "nobody", Path("out"))

    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    notebook = run_notebook("02-compare-runs.ipynb")
    assert [version.version for version in notebook["judged"]] == [2, 1]
    assert list(notebook["table"].index) == ["student"]
    assert notebook["page"].data == (workspace.root / "build/compare/compare.md").read_text()

    assert "version 1 is champion again; 2 is previous" in roll_back("too many alerts")
    assert (workspace.alias("champion"), workspace.alias("previous")) == ("1", "2")
    assert "too many alerts" in show_log()


def test_the_logged_models_figures_name_the_test_part_they_were_measured_on(workspace):
    import mlflow

    workspace.run()
    version = mlflow.MlflowClient().get_model_version(NAME, "1")
    model = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    report = workspace.json("reports/evaluate/metrics.json")["models"]["student"]["auroc"]
    held = {metric.key: metric for metric in model.metrics}
    for key, part in (("auroc", "value"), ("auroc.ci_low", "ci_low"), ("auroc.ci_high", "ci_high")):
        assert held[key].value == report[part]
        assert held[key].dataset_name == "split.test"
    run = mlflow.get_run(held["auroc"].run_id)
    known = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert held["auroc"].dataset_digest == known["split.test"]
    found = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        datasets=[{"dataset_name": "split.test"}],
        order_by=[{"field_name": "metrics.auroc", "dataset_name": "split.test"}],
        output_format="list",
    )
    assert [one.model_id for one in found] == [model.model_id]


def test_promotion_can_be_switched_off(workspace):
    failed, summary = workspace.run(promote="never")
    assert failed == []
    assert summary.endswith("promotion is off")
    assert workspace.alias("champion") is None


def test_a_stage_above_that_did_not_finish_is_named(workspace):
    (workspace.root / "reports/evaluate/metrics.json").unlink()
    with pytest.raises(BadInputError, match=r"metrics\.json .*dvc repro evaluate"):
        workspace.run()
