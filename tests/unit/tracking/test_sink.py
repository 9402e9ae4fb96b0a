"""The sink: every item reaches MLflow, failures are honest, lost runs are closed."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rarealert.errors import RareAlertError
from rarealert.tracking import items
from rarealert.tracking.sink import open_run


@dataclass(frozen=True)
class Workspace:
    root: Path
    uri: str

    @property
    def record(self) -> Path:
        return self.root / "build/align/run.json"


@pytest.fixture
def workspace(tmp_path: Path, mlflow_store: str) -> Workspace:
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  align:\n    cmd: rarealert align\n    deps: [build/train.parquet, data]\n"
    )
    (tmp_path / "params.yaml").write_text("align: {seed: 1}\n")
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  split:\n    outs:\n    - {path: build/train.parquet, md5: aa}\n"
    )
    (tmp_path / "data.dvc").write_text("outs:\n- {md5: bb.dir, path: data}\n")
    return Workspace(tmp_path, mlflow_store)


def _run(workspace: Workspace, *logged: items.Item) -> str:
    with open_run("align", workspace.root, workspace.uri, workspace.record) as sink:
        for item in logged:
            sink.log(item)
    run_id: str = json.loads(workspace.record.read_text())["run_id"]
    return run_id


def test_every_kind_of_item_arrives(workspace: Workspace) -> None:
    import mlflow
    import pandas as pd
    from matplotlib.figure import Figure

    note = workspace.root / "note.txt"
    note.write_text("kept")
    run_id = _run(
        workspace,
        items.Metric("auroc", 0.75),
        items.Metric("loss", 2.0, step=1),
        items.Parameters({"chosen": "logistic"}),
        items.Tags({"pool": "all"}),
        items.Table("table.json", pd.DataFrame({"a": [1]})),
        items.Figure("plot.png", Figure()),
        items.Artifact(note, "notes"),
        items.Dataset("train", workspace.root / "build/train.parquet", "own", 12, "training"),
        items.Child("trial 0", (items.Metric("auroc", 0.5),)),
        items.Summary("3 cases, 2 rows left out"),
    )
    run = mlflow.get_run(run_id)
    assert run.data.metrics == {"auroc": 0.75, "loss": 2.0}
    assert run.data.params == {"align.seed": "1", "chosen": "logistic"}
    assert run.data.tags["pool"] == "all"
    description = run.data.tags["mlflow.note.content"]
    assert description == "3 cases, 2 rows left out. Decision support, not a diagnosis."
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(run_id)}
    assert names == {"table.json", "plot.png", "notes"}
    inputs = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert inputs == {"train": "aa", "data": "bb.dir"}
    child = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run_id}'")
    assert child["metrics.auroc"].tolist() == [0.5]


def test_a_figure_is_found_from_its_model_and_its_dataset(workspace: Workspace) -> None:
    import mlflow

    with open_run("align", workspace.root, workspace.uri, workspace.record) as sink:
        model = mlflow.initialize_logged_model("student")
        sink.log(items.Dataset("test", workspace.root / "build/test.parquet", "e" * 64, 9, "test"))
        sink.log(items.Metric("auroc", 0.8, dataset="test", model=model.model_id))
        sink.log(items.Metric("auroc.ci_low", 0.7, dataset="test", model=model.model_id))
    held = mlflow.get_logged_model(model.model_id).metrics
    assert {one.key: one.value for one in held} == {"auroc": 0.8, "auroc.ci_low": 0.7}
    assert {(one.dataset_name, one.dataset_digest) for one in held} == {("test", "e" * 36)}
    found = mlflow.search_logged_models(
        filter_string="metrics.auroc > 0.75", datasets=[{"dataset_name": "test"}]
    )
    assert found["model_id"].tolist() == [model.model_id]


def test_a_metric_of_an_unknown_dataset_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match=r"auroc.*test"):
        _run(workspace, items.Metric("auroc", 0.8, dataset="test"))


def test_an_unknown_item_is_refused(workspace: Workspace) -> None:
    with pytest.raises(TypeError, match="str"):
        _run(workspace, "auroc 0.9")  # type: ignore[arg-type]


def test_a_stage_that_raises_leaves_a_failed_run_and_no_record(workspace: Workspace) -> None:
    import mlflow

    with (
        pytest.raises(ValueError, match="broken"),
        open_run("align", workspace.root, workspace.uri, workspace.record),
    ):
        raise ValueError("broken")
    assert not workspace.record.exists()
    runs = mlflow.search_runs(experiment_names=["rarealert"])
    assert runs["status"].tolist() == ["FAILED"]
    assert runs["tags.error"].tolist() == ["ValueError"]


def test_the_run_of_a_killed_process_is_closed_by_the_next_one(workspace: Workspace) -> None:
    import mlflow

    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from rarealert.tracking.sink import open_run\n"
        "root, uri = Path(sys.argv[1]), sys.argv[2]\n"
        "with open_run('align', root, uri, root / 'build/align/run.json'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [str(workspace.root), workspace.uri]
    subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    assert not workspace.record.exists()
    _run(workspace)
    runs = mlflow.search_runs(experiment_names=["rarealert"])
    assert sorted(runs["status"]) == ["FINISHED", "KILLED"]


def test_a_store_that_cannot_be_used_is_one_sentence(
    workspace: Workspace,
) -> None:
    blocked = f"sqlite:///{workspace.root}/params.yaml/no.db"
    with pytest.raises(RareAlertError, match="MLFLOW_TRACKING_URI"):
        _run(Workspace(workspace.root, blocked))


def test_a_store_that_fails_later_hides_no_error_of_the_stage(workspace: Workspace) -> None:
    from mlflow.exceptions import MlflowException

    def gone(*_: object, **__: object) -> None:
        raise MlflowException("no more")

    def stage(patched: pytest.MonkeyPatch) -> None:
        with open_run("align", workspace.root, workspace.uri, workspace.record) as sink:
            sink.log(items.Metric("auroc", 0.8))
            for name in ("set_tag", "end_run"):
                patched.setattr(f"mlflow.{name}", gone)
            patched.setattr("mlflow.MlflowClient.log_batch", gone)
            raise ValueError("broken")

    with pytest.MonkeyPatch.context() as patched, pytest.raises(ValueError, match="broken"):
        stage(patched)


def test_a_store_that_fails_in_a_stage_is_one_sentence_and_the_run_is_failed(
    workspace: Workspace,
) -> None:
    import mlflow

    with pytest.raises(RareAlertError, match=r"can't be used \(INVALID_PARAMETER_VALUE\)"):
        _run(workspace, items.Metric("not/../allowed:*", 0.8))
    assert not workspace.record.exists()
    runs = mlflow.search_runs(experiment_names=["rarealert"])
    assert runs["status"].tolist() == ["FAILED"]


# MLflow's trace module, on its first import, warns about one of its type hints
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
def test_a_trace_is_logged_with_its_run_times_and_error(workspace: Workspace) -> None:
    import mlflow

    started = time.time_ns() - 10**10
    traced = items.Trace(
        "gpt", started, 2.5, {"case_id": "c1"}, {"risk": None}, error="TimedOutError"
    )
    with open_run("align", workspace.root, workspace.uri, workspace.record) as sink:
        run = mlflow.active_run()
        assert run is not None
        sink.log(traced)
    mlflow.flush_trace_async_logging()
    (found,) = mlflow.search_traces(locations=[run.info.experiment_id], return_type="list")
    (span,) = found.data.spans
    assert (span.name, span.inputs, span.outputs) == ("gpt", {"case_id": "c1"}, {"risk": None})
    assert span.end_time_ns - span.start_time_ns == 2_500_000_000
    assert span.attributes["error"] == "TimedOutError"
    assert found.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
