"""evidently's page and JSON of a drift report, where the extra ``drift`` is installed.

evidently draws what our one pass counted: each quantity becomes a categorical column of at most
``MAX_ROWS`` rows in the proportions counted, so neither memory nor page grows with the files and
no case text can reach either. Its test is our index (``rarealert.screening.drift``), so that both
pages and the exit code always say the same (docs/decisions/0250).
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import RareAlertError
from rarealert.files import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from rarealert.screening.drift import DriftReport, Quantity

MAX_ROWS = 10_000
"""Rows a side that evidently is given; a bar's height is right to a hundredth of a percent."""


class EvidentlyError(RareAlertError):
    """evidently is installed and fails; the exit code is none that could be taken for drift."""

    exit_code = 2


_TEST = "rarealert_stability_index"
_ANY_DRIFTED = 0.01  # share of quantities from which evidently calls all of it drifted: one
_BODY = "<body>"
_HEAD = "<head>"


def write_evidently(report: "DriftReport") -> Path | None:
    """Write ``<page>.evidently.html`` and ``.json``; ``None`` where evidently is not installed.

    Raises:
        EvidentlyError: evidently is installed but fails beside what else is installed.
    """
    if find_spec("evidently") is None:
        return None
    html, said = _drawn(report)
    page = report.page.with_suffix(".evidently.html")
    write_text(page, _headed(html, report))
    write_json(page.with_suffix(".json"), said)
    return page


def _drawn(report: "DriftReport") -> tuple[str, dict[str, Any]]:
    held = {_column(item): item for item in report.quantities}

    def told(before: "pd.Series[str]", _after: object, _kind: object, _at: float) -> Any:
        item = held[str(before.name)]
        return item.psi, item.drifted

    with _evidently():
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.presets import DataDriftPreset

        kinds = [ColumnType.Categorical]
        test = StatTest(_TEST, "population stability index", kinds, report.threshold)
        register_stattest(test, told)
        preset = DataDriftPreset(
            columns=list(held),
            cat_method=_TEST,
            per_column_threshold={
                name: max(report.threshold, item.chance) for name, item in held.items()
            },
            drift_share=_ANY_DRIFTED,
        )
        columns = DataDefinition(categorical_columns=list(held))
        sides = [Dataset.from_pandas(_frame(held, side), columns) for side in (0, 1)]
        drawn = Report([preset], include_tests=True)
        run = drawn.run(reference_data=sides[0], current_data=sides[1])
        return run.get_html_str(as_iframe=False), json.loads(run.json())


@contextmanager
def _evidently() -> Iterator[None]:
    """Let evidently 0.7.23 be imported and run beside pandas 3, and fail with one sentence.

    It imports a private helper that pandas 3 has no more, for a test of column types that is not
    used here; what stands in for it does the same for any dtype.
    """
    import pandas.core.dtypes.common as common
    from pandas.api.types import pandas_dtype

    if not hasattr(common, "infer_dtype_from_object"):
        common.infer_dtype_from_object = lambda dtype: pandas_dtype(dtype).type  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():  # numpy, pandas and litestar deprecate what evidently uses
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # a traceback would exit with 1, which says drift
        raise EvidentlyError(
            f"evidently is installed but fails ({type(error).__name__}: {error}); install it with "
            "-c constraints.txt, or remove it with pip uninstall evidently."
        ) from error


def _column(item: "Quantity") -> str:
    return f"{item.part}: {item.name}"


def _frame(held: Mapping[str, "Quantity"], side: int) -> "pd.DataFrame":
    import pandas as pd

    columns = {}
    for name, item in held.items():
        rows = min((item.reference, item.new)[side], MAX_ROWS)
        shares = {category: pair[side] for category, pair in item.shares.items()}
        columns[name] = pd.Series(spread(shares, rows), dtype="str")
    return pd.DataFrame(columns)  # shorter ones end in missing values, which evidently leaves out


def spread(shares: Mapping[str, float], rows: int) -> list[str]:
    """``rows`` categories in the proportions of ``shares``, by the largest remainder."""
    exact = {category: share * rows for category, share in shares.items()}
    counts = {category: int(value) for category, value in exact.items()}
    left = rows - sum(counts.values())
    for category in sorted(exact, key=lambda name: counts[name] - exact[name])[: max(left, 0)]:
        counts[category] += 1
    return [category for category, count in counts.items() for _ in range(count)]


def _headed(html: str, report: "DriftReport") -> str:
    count, total = len(report.drifted), len(report.quantities)
    said = (
        "<header style='margin:1.5rem 2.6rem 0;max-width:60rem;line-height:1.5'>"
        f"<h1 style='font-size:1.6rem'>Drift of {report.kind}: {count} of {total} quantities "
        "drifted</h1><p><b>Decision support, not a diagnosis.</b> Drawn by evidently from counts "
        "alone. Score and verdict are RareAlert's: the population stability index, drifted where "
        f"it is above {report.threshold:g} and above what chance explains; the command's exit code "
        "is 1 where a single quantity drifted. Bars stand for at most "
        f"{MAX_ROWS:,} rows a side; {escape(report.page.name)} says how many were counted.</p>"
        "</header>"
    )
    title = f"{_HEAD}<title>Drift of {report.kind}</title>"
    return html.replace(_HEAD, title, 1).replace(_BODY, f"{_BODY}{said}", 1)
