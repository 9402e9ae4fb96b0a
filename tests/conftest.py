"""What tests of several rooms share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

MLFLOW_WARNINGS = (
    # mlflow 3.17 still uses a loader strategy that SQLAlchemy 2.1 deprecates
    "ignore:The ``noload`` loader strategy is deprecated",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mlflow_store" in getattr(item, "fixturenames", ()):
            for warning in MLFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def _mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes 6 to 9 s, copying it 0.2 s."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_store(
    _mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Tracking URI of an empty MLflow store of this test, at ``<tmp_path>/mlruns/mlflow.db``."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlruns = tmp_path / "mlruns"
    mlruns.mkdir()
    shutil.copy(_mlflow_template, mlruns / "mlflow.db")
    uri = f"sqlite:///{mlruns / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
