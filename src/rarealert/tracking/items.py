"""Items that a stage can log: small types without MLflow, so that stages stay testable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as MplFigure


@dataclass(frozen=True)
class Metric:
    """One number of the run; ``step`` makes a curve of numbers of the same name.

    ``dataset`` names the ``Dataset`` of this run that the number was measured on, ``model`` the id
    of the measured logged model: the UI then lists the number with both.
    """

    name: str
    value: float
    step: int | None = None
    dataset: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Settings of the run besides its section of ``params.yaml``, which the sink logs itself."""

    values: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Tags:
    """Search keys of the run, for a reviewer's filters."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table that the MLflow UI shows and compares across runs; ``name`` ends in ``.json``."""

    name: str
    frame: "pd.DataFrame"


@dataclass(frozen=True)
class Figure:
    """A plot; ``name`` ends in ``.png``. The sink closes the figure once it is saved."""

    name: str
    figure: "MplFigure"


@dataclass(frozen=True)
class Artifact:
    """A file or folder on disk; it must hold no case text."""

    path: Path
    folder: str | None = None


@dataclass(frozen=True)
class Dataset:
    """An input of the run: name, digest and size, never its rows, which hold case text."""

    name: str
    path: Path
    digest: str
    rows: int
    context: str


@dataclass(frozen=True)
class Child:
    """A nested run, such as one Optuna trial."""

    name: str
    items: tuple["Item", ...] = field(default=())


@dataclass(frozen=True)
class Trace:
    """One exchange with a model as digests and counts; it must hold no case text.

    ``started_ns`` is in nanoseconds since 1970; ``error`` is the exception's type, if it failed.
    """

    name: str
    started_ns: int
    seconds: float
    inputs: Mapping[str, str]
    outputs: Mapping[str, str | int | float | None]
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """The line that a stage prints, which is also its run's description."""

    text: str


Item = Metric | Parameters | Tags | Table | Figure | Artifact | Dataset | Child | Trace | Summary
