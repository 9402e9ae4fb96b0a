"""Which model is at work: loaded at the start, replaced when the alias moves.

The next version is loaded beside the one at work and takes over between two batches, so no request
fails or waits for it. A version that can't be loaded changes nothing but a counter.
"""

import logging
import threading
from pathlib import Path
from typing import Protocol

from rarealert.cases.case import Case
from rarealert.screening.champion import ScreeningModel, load_folder, load_model, version_of
from rarealert.screening.frames import request_frame
from rarealert.screening.service.metrics import Metrics

_LOG = logging.getLogger("rarealert.service")
_CHECK = Case(
    case_id="warm-up", source="screening", age_years=34, chief_complaint="Tired for half a year."
)


class ModelSource(Protocol):
    """Where the service finds its model."""

    def current(self) -> str:
        """Names what should be at work now; another name means that it should be loaded."""

    def load(self) -> ScreeningModel:
        """What ``current`` names, ready to be asked.

        Raises:
            RareAlertError: there is none, or it is damaged.
        """


class RegistrySource:
    """The version that an alias points at in MLflow's registry."""

    def __init__(self, name: str, alias: str, tracking_uri: str) -> None:
        self._where = (name, alias, tracking_uri)

    def current(self) -> str:
        """The version's number."""
        return version_of(*self._where)

    def load(self) -> ScreeningModel:
        """The version, loaded."""
        return load_model(*self._where)


class FolderSource:
    """A model's folder, as ``rarealert bundle`` or ``mlflow artifacts download`` leave it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> str:
        """The folder; what lies in it does not change."""
        return str(self._folder)

    def load(self) -> ScreeningModel:
        """The folder's model, marked with the version that it was bundled from."""
        return load_folder(self._folder)


class Keeper:
    """Holds the model at work and looks for the next; ``start`` it, and ``close`` it at the end."""

    def __init__(self, source: ModelSource, metrics: Metrics, every_s: float) -> None:
        self._source = source
        self._metrics = metrics
        self._every_s = every_s
        self._named = ""
        self._model: ScreeningModel | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether a model is at work."""
        return self._model is not None

    def model(self) -> ScreeningModel:
        """The model at work; there is one from ``start`` on."""
        assert self._model is not None
        return self._model

    def start(self) -> None:
        """Load the first model and begin to look for the next.

        Raises:
            RareAlertError: there is no model to load.
        """
        self._take(self._source.current())
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(self._every_s)

    def look(self) -> bool:
        """Load the model that should be at work, if it is another one; whether it took over."""
        try:
            named = self._source.current()
            if named == self._named:
                return False
            self._take(named)
        except Exception as error:  # a registry that is down must not end the watch
            self._metrics.load_failed()
            _LOG.warning("model not loaded, the one before stays: %s", type(error).__name__)
            return False
        return True

    def _take(self, named: str) -> None:
        model = self._source.load()
        # the first answer of a model builds what later ones find ready, and shows that it works
        model.scorer.predict(request_frame([_CHECK]), params={"rationale": False})
        self._model, self._named = model, named
        self._metrics.loaded(model.name, model.version, model.digest)
        _LOG.info("model %s version %s at work", model.name, model.version)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()
