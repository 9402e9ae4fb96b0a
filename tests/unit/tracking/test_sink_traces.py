"""A traced exchange: its digests and counts reach MLflow, with its own times."""

import time
from pathlib import Path

import mlflow
import pytest

from rarealert.tracking.items import Trace
from rarealert.tracking.sink import open_run


# MLflow's trace module, on its first import, warns of a type hint of its own
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
def test_a_trace_is_logged_with_its_run_times_and_error(mlflow_store: str, tmp_path: Path) -> None:
    started = time.time_ns() - 10**10
    said = Trace("gpt", started, 2.5, {"case_id": "c1"}, {"risk": None}, error="TimedOutError")
    with open_run("teach", tmp_path, mlflow_store, tmp_path / "run.json") as sink:
        run = mlflow.active_run()
        assert run is not None
        sink.log(said)
    mlflow.flush_trace_async_logging()
    (found,) = mlflow.search_traces(locations=[run.info.experiment_id], return_type="list")
    (span,) = found.data.spans
    assert (span.name, span.inputs, span.outputs) == ("gpt", {"case_id": "c1"}, {"risk": None})
    assert span.end_time_ns - span.start_time_ns == 2_500_000_000
    assert span.attributes["error"] == "TimedOutError"
    assert found.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
