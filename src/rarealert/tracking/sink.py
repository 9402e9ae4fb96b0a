"""The one place that logs items to MLflow.

It adds the lineage of every run, so that no stage can forget it.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rarealert.errors import RareAlertError
from rarealert.files import write_json
from rarealert.tracking import items
from rarealert.tracking.backup import SQLITE, back_up
from rarealert.tracking.lineage import lineage_tags, stage_inputs, stage_parameters

EXPERIMENT = "rarealert"
_EXPERIMENT_TAGS = {
    # opens the UI on training runs and models instead of its pages for chat traces
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Each stage of `dvc repro` is a run; runs of one pipeline share the tag `pipeline.id`. "
        "Start with `evaluate` (every model with its interval and the controls) and `register` "
        "(the gates). `align` and `tune` have their trials as children. Decision support, not a "
        "diagnosis."
    ),
}


_DIGEST_LENGTH = 36  # characters that MLflow keeps of a dataset's digest
_BATCH = 100  # metrics a call; one call a metric costs a database commit each


def connect(uri: str) -> None:
    """Point MLflow at the store ``uri`` and select the experiment; create what is missing.

    Artifacts of a SQLite store are written to its folder; a server has its own place for them.

    Raises:
        RareAlertError: the store can't be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow
    from mlflow.exceptions import MlflowException

    place = None
    try:
        if uri.startswith(SQLITE):
            folder = Path(uri.removeprefix(SQLITE)).parent
            folder.mkdir(parents=True, exist_ok=True)
            place = (folder / "artifacts").as_uri()
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, place, tags=_EXPERIMENT_TAGS)
        mlflow.set_experiment(EXPERIMENT)
    except (MlflowException, OSError) as error:
        raise _unusable(type(error).__name__) from error


def _unusable(why: str) -> RareAlertError:
    return RareAlertError(
        f"MLflow's store can't be used ({why}); check MLFLOW_TRACKING_URI or mlruns/mlflow.db, and "
        "that no disk is full. Finished work of the stages is kept: run the command again."
    )


class Sink:
    """Logs items to the active MLflow run.

    ``inputs`` is path → DVC digest of the stage's data; those that no ``Dataset`` item describes
    are logged at the end.
    """

    def __init__(self, inputs: dict[str, str]) -> None:
        self._inputs = inputs
        self._metrics: list[items.Metric] = []
        self._digests: dict[str, str] = {}

    def log(self, item: items.Item) -> None:
        """Log one item.

        Raises:
            TypeError: ``item`` is not one of ``rarealert.tracking.items``.
            ValueError: a metric names a dataset that was not logged before.
        """
        if isinstance(item, items.Metric):
            if item.dataset is not None and item.dataset not in self._digests:
                raise ValueError(
                    f"{item.name} names the dataset {item.dataset}, which was not logged before"
                )
            self._metrics.append(item)
            if len(self._metrics) >= _BATCH:
                self.flush()
            return
        handler = self._handlers().get(type(item))
        if handler is None:
            raise TypeError(f"{type(item).__name__} is not an item that the sink can log")
        self.flush()
        handler(item)

    def finish(self) -> None:
        """Log what is still held back, and the remaining inputs."""
        self.flush()
        for path, md5 in self._inputs.items():
            _log_dataset(Path(path).as_posix(), path, md5, None, "input")
        self._inputs = {}

    def flush(self) -> None:
        """Log the metrics that were held back to be sent together."""
        import mlflow
        from mlflow.entities import Metric

        if not self._metrics:
            return
        now = int(time.time() * 1000)
        run = mlflow.active_run()
        assert run is not None
        batch = [
            Metric(
                held.name,
                held.value,
                now,
                held.step or 0,
                model_id=held.model,
                dataset_name=held.dataset,
                dataset_digest=self._digests[held.dataset] if held.dataset else None,
                run_id=run.info.run_id,
            )
            for held in self._metrics
        ]
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=batch)
        self._metrics = []

    def _handlers(self) -> dict[type, Callable[[Any], object]]:
        import mlflow

        return {
            items.Parameters: lambda i: mlflow.log_params(dict(i.values)),
            items.Tags: lambda i: mlflow.set_tags(dict(i.values)),
            items.Table: lambda i: mlflow.log_table(i.frame, i.name),
            items.Figure: _log_figure,
            items.Artifact: _log_artifact,
            items.Dataset: self._dataset,
            items.Child: self._child,
            items.Trace: _log_trace,
            items.Summary: _describe,
        }

    def _dataset(self, item: items.Dataset) -> None:
        path = item.path.as_posix()
        known = [name for name in self._inputs if path == name or path.endswith(f"/{name}")]
        digest = self._inputs.pop(known[0]) if known else item.digest
        self._digests[item.name] = digest[:_DIGEST_LENGTH]
        _log_dataset(item.name, known[0] if known else item.name, digest, item.rows, item.context)

    def _child(self, child: items.Child) -> None:
        import mlflow

        with mlflow.start_run(run_name=child.name, nested=True):
            for item in child.items:
                self.log(item)
            self.flush()


def _describe(item: items.Summary) -> None:
    import mlflow

    # what the UI shows as the run's description
    mlflow.set_tag("mlflow.note.content", f"{item.text}. Decision support, not a diagnosis.")


def _log_figure(item: items.Figure) -> None:
    import matplotlib.pyplot as plt
    import mlflow

    mlflow.log_figure(item.figure, item.name)
    plt.close(item.figure)


def _log_trace(item: items.Trace) -> None:
    import mlflow
    from mlflow.entities import SpanStatusCode, SpanType

    span = mlflow.start_span_no_context(
        item.name,
        span_type=SpanType.CHAT_MODEL,
        inputs=dict(item.inputs),
        start_time_ns=item.started_ns,
    )
    if item.error is not None:
        span.set_status(SpanStatusCode.ERROR)
        span.set_attribute("error", item.error)
    span.set_outputs(dict(item.outputs))
    span.end(end_time_ns=item.started_ns + int(item.seconds * 1e9))


def _log_artifact(item: items.Artifact) -> None:
    import mlflow

    if item.path.is_dir():
        mlflow.log_artifacts(str(item.path), item.folder)
    else:
        mlflow.log_artifact(str(item.path), item.folder)


def _log_dataset(name: str, source: str, digest: str, rows: int | None, context: str) -> None:
    import mlflow
    from mlflow.data import sources
    from mlflow.data.meta_dataset import MetaDataset

    # the path in the workspace is the source: with the digest, any DVC remote has the bytes
    place = sources.LocalArtifactDatasetSource(source)  # type: ignore[attr-defined]  # made at import
    dataset = MetaDataset(place, name=name, digest=digest[:_DIGEST_LENGTH])  # type: ignore[abstract]  # its own use
    tags = {} if rows is None else {"rows": str(rows)}
    mlflow.log_input(dataset, context=context, tags=tags)


@contextmanager
def open_run(stage: str, root: Path, uri: str, record: Path) -> Iterator[Sink]:
    """Open an MLflow run of ``stage`` in the store ``uri``; write its id to ``record`` at the end.

    A stage that raises leaves a FAILED run tagged with the exception's type, and no record.

    Raises:
        RareAlertError: the store can't be reached any more, or refuses an item.
    """
    from mlflow.exceptions import MlflowException

    connect(uri)
    try:
        with _running(stage, root) as (run_id, sink):
            yield sink
            sink.finish()
    except MlflowException as error:
        raise _unusable(error.error_code) from error
    write_json(record, {"run_id": run_id})
    back_up(uri)


@contextmanager
def _running(stage: str, root: Path) -> Iterator[tuple[str, Sink]]:
    """Open the run and its sink; the first error is the one raised."""
    import mlflow

    _close_orphans(stage)
    tags = lineage_tags(root, stage) | {"host": platform.node(), "pid": str(os.getpid())}
    run = mlflow.start_run(run_name=stage, tags=tags)
    sink = Sink(stage_inputs(root, stage))
    try:
        mlflow.log_params(stage_parameters(root, stage))
        yield run.info.run_id, sink
    except BaseException as error:
        _end_failed(sink, type(error).__name__)
        raise
    mlflow.end_run()


def _end_failed(sink: Sink, error: str) -> None:
    """Log what is held back and close the run, as far as the store still works."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        mlflow.set_tag("error", error)  # a store that refuses this is not tried any further
        with suppress(MlflowException):
            sink.flush()
        mlflow.end_run("FAILED")


def _close_orphans(stage: str) -> None:
    """Mark runs of this stage as KILLED if their process on this machine has ended.

    A killed process can't close its run, and a run shown as running misleads a reviewer.
    """
    import mlflow
    import psutil

    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment(EXPERIMENT)
    orphans = (
        f"attributes.status = 'RUNNING' AND tags.host = '{platform.node()}' "
        f"AND tags.stage = '{stage}'"
    )
    for run in client.search_runs([experiment.experiment_id], orphans):
        if not psutil.pid_exists(int(run.data.tags["pid"])):
            client.set_terminated(run.info.run_id, status="KILLED")
