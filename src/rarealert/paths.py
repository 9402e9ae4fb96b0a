"""Folders and files of a checkout; the only module that contains their names."""

import os
from dataclasses import dataclass
from pathlib import Path

_DVC_TEMPORARY = "/.dvc/tmp/exps/"


@dataclass(frozen=True)
class Paths:
    """The folders of one workspace, all below ``root`` (the folder with ``dvc.yaml``)."""

    root: Path

    @classmethod
    def here(cls) -> "Paths":
        """The workspace around the current folder: the nearest parent with ``params.yaml``.

        Without one it is the current folder, and the reader of the file reports it as missing.
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

        DVC runs queued experiments in a copy below ``.dvc/tmp/exps`` and deletes it afterwards,
        so their runs are stored in the checkout that they come from.
        """
        home = str(self.root).split(_DVC_TEMPORARY)[0]
        return Path(home) / "mlruns"

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` where it is set, else the workspace's SQLite database."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlruns / 'mlflow.db'}"

    def build(self, stage: str) -> Path:
        """Outputs of ``stage``, cached by DVC."""
        return self.root / "build" / stage

    def report(self, stage: str) -> Path:
        """The small metrics, plots and pages of ``stage``, kept in git."""
        return self.root / "reports" / stage
