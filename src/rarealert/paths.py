"""Where everything lies in a checkout; the only module that knows folder names."""

import os
from dataclasses import dataclass
from pathlib import Path

_DVC_TEMPORARY = "/.dvc/tmp/exps/"


@dataclass(frozen=True)
class Paths:
    """The folders of one workspace, all below ``root`` (the folder that holds ``dvc.yaml``)."""

    root: Path

    @classmethod
    def here(cls) -> "Paths":
        """The workspace around the current folder: the nearest parent that holds ``params.yaml``.

        Falls back to the current folder, where the missing file is then named by its reader.
        """
        start = Path.cwd()
        for folder in (start, *start.parents):
            if (folder / "params.yaml").is_file():
                return cls(folder)
        return cls(start)

    @property
    def data(self) -> Path:
        """Raw, immutable inputs, pinned by ``data.dvc``."""
        return self.root / "data"

    @property
    def params(self) -> Path:
        """The one configuration file."""
        return self.root / "params.yaml"

    @property
    def mlruns(self) -> Path:
        """MLflow's database and artifacts.

        DVC runs queued experiments in a copy below ``.dvc/tmp/exps`` that it deletes afterwards:
        their runs belong to the checkout they came from.
        """
        home = str(self.root).split(_DVC_TEMPORARY)[0]
        return Path(home) / "mlruns"

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` where it is set, else the workspace's SQLite database."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlruns / 'mlflow.db'}"

    def build(self, stage: str) -> Path:
        """What ``stage`` makes, cached by DVC."""
        return self.root / "build" / stage

    def report(self, stage: str) -> Path:
        """The small metrics, plots and pages of ``stage``, kept in git."""
        return self.root / "reports" / stage
