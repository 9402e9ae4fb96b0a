"""Tracking rebuilt from DVC's files."""

import json

import pytest
import yaml

from rarealert.errors import BadInputError
from rarealert.registry.restore import RESTORED, sync_tracking

STAGES = ("ingest", "evaluate")


@pytest.fixture
def checkout(mlflow_store, tmp_path, monkeypatch):
    """Two finished stages without a run in the store."""

    def write(name, held):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(held))

    def stage(name, metrics):
        outs = {"outs": [f"build/{name}/run.json"]}
        return outs | {"metrics": [{f"reports/{name}/{metrics}": {"cache": False}}]}

    write("params.yaml", {})
    stages = {"ingest": stage("ingest", "summary.json"), "evaluate": stage("evaluate", "s.json")}
    write("dvc.yaml", {"stages": {**stages, "register": {}}})
    room = {"path": "src/rarealert/visits", "md5": "b" * 32 + ".dir"}
    deps = [{"path": "data", "md5": "a" * 32 + ".dir"}, room]
    locked = {"deps": deps, "params": {"params.yaml": {"ingest": {"sources": ["simulated"]}}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": dict.fromkeys(STAGES, locked)}))
    for name in STAGES:
        write(f"build/{name}/run.json", {"run_id": name * 4})
    write("reports/ingest/summary.json", {"cases": 3, "note": "no number", "kinds": [1, 2]})
    write("reports/evaluate/s.json", {"student": {"auroc": 0.8}, "teacher:one": {"auroc": 0.7}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs():
    import mlflow

    found = mlflow.search_runs(experiment_names=["rarealert"], output_format="list")
    return {run.info.run_name: run for run in found}


def test_every_lost_run_comes_back_below_one_parent(checkout):
    import mlflow

    assert "restored 2 runs" in sync_tracking()
    found = runs()
    assert set(found) == {"restored pipeline", *STAGES}
    parent = found["restored pipeline"].info.run_id
    for stage in STAGES:
        tags = found[stage].data.tags
        assert tags["mlflow.parentRunId"] == parent
        assert tags[RESTORED] == stage * 4
        assert len(tags["dvc.lock.sha256"]) == 64
        assert found[stage].data.params == {"ingest.sources": "['simulated']"}
        data = [
            (one.dataset.name, one.dataset.digest) for one in found[stage].inputs.dataset_inputs
        ]
        assert data == [("data", "a" * 32 + ".dir")]
    assert found["ingest"].data.metrics == {"cases": 3}
    assert found["evaluate"].data.metrics == {"student.auroc": 0.8, "teacher.one.auroc": 0.7}
    held = mlflow.MlflowClient().list_artifacts(found["evaluate"].info.run_id)
    assert [file.path for file in held] == ["s.json"]


def test_what_is_known_is_left_alone_and_dvcs_files_stay_as_they_are(checkout):
    before = {file: file.read_bytes() for file in checkout.glob("build/*/run.json")}
    sync_tracking()
    count = len(runs())
    assert "holds a run of every finished stage" in sync_tracking()
    assert len(runs()) == count
    assert {file: file.read_bytes() for file in checkout.glob("build/*/run.json")} == before


def test_without_a_lock_nothing_has_finished(checkout):
    (checkout / "dvc.lock").unlink()
    with pytest.raises(BadInputError, match=r"dvc\.lock"):
        sync_tracking()
