"""Two registered versions side by side on the locked test part: ``rarealert compare A B``."""

from pathlib import Path

from rarealert.cases.splits import lock_digest
from rarealert.cases.store import read_cases
from rarealert.errors import BadInputError
from rarealert.files import write_json, write_text
from rarealert.metrics.intervals import Bootstrap
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.registry.comparison import TestPart, compare_sides
from rarealert.registry.comparison_page import calibration_overlay, markdown, page
from rarealert.registry.sides import read_side
from rarealert.stages.judgement import test_cells
from rarealert.tracking.sink import connect


def compare_versions(first: str, second: str, out: Path) -> str:
    """Write ``index.html``, ``compare.md`` and ``compare.json`` to ``out``; the verdict.

    Raises:
        BadInputError: one of them is no version, they were judged on different test parts, or
            the test part in this workspace is another one.
    """
    paths = Paths.here()
    params = load_params(paths.params)
    connect(paths.tracking_uri)
    name = params.register_.model_name
    (one, first_lock), (other, second_lock) = read_side(name, first), read_side(name, second)
    if first_lock != second_lock:
        raise BadInputError(
            f"{one.label} and {other.label} were judged on different test parts; register one of "
            "them again on the other's data."
        )
    part = _test_part(paths, first_lock)
    plan = Bootstrap(params.evaluate.resamples, params.evaluate.confidence, params.evaluate.seed)
    found = compare_sides(one, other, part, plan)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "compare.json", found)
    write_text(out / "compare.md", markdown(found))
    write_text(out / "index.html", page(found, calibration_overlay(one, other, part)))
    return f"{found['verdict']}\n{out / 'index.html'}"


def _test_part(paths: Paths, lock: str) -> TestPart:
    test = read_cases(paths.build("split") / "test.parquet")
    if lock_digest(item.case.case_id for item in test) != lock:
        raise BadInputError(
            "build/split/test.parquet is not the test part these versions were judged on; check "
            "out their commit and run dvc checkout."
        )
    return TestPart(
        rare={item.case.case_id: item.label.label == "rare" for item in test},
        disease={item.case.case_id: item.label.disease_id for item in test},
        cells=test_cells(test),
    )
