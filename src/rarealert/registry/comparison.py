"""Two registered versions compared on the same locked cases: ``rarealert compare A B``.

Differences are paired and resample whole diseases; p-values of one table are Holm-adjusted, so a
reader may look at every row (Holm, Scand J Stat 6:65, 1979).
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarealert.errors import BadInputError, RareAlertError
from rarealert.evaluation.intervals import Bootstrap, Estimate, holm
from rarealert.evaluation.metrics import calibration_points
from rarealert.evaluation.study import Comparison, Study, compare, evaluate
from rarealert.files import write_json, write_text
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.registry.card import METRICS
from rarealert.registry.judged import group_by_cell, is_judged_alone, rare_by_head
from rarealert.registry.judgement import subgroup_cells
from rarealert.registry.versions import (
    FAILED_GATES,
    JUDGED_RUN,
    JUDGEMENT,
    SCORED,
    read_artifact,
    resolve,
)
from rarealert.splits.parts import lock_digest
from rarealert.templates import environment
from rarealert.tracking.sink import connect
from rarealert.visits.store import read_cases

if TYPE_CHECKING:
    from jinja2 import Environment
    from mlflow.entities.model_registry import ModelVersion

_MORE_IS_BETTER = {
    "auroc": True,
    "auprc": True,
    "brier": False,
    "log_loss": False,
    "ece": False,
    "net_benefit_at_5pct": True,
}
"""The metrics compared."""

_COSTS = {"RA008": "seconds for one visit", "RA020": "GiB of memory at the peak"}
"""Gate → what its value measures."""

_MIB = 2**20
_BINS = 10
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#D55E00", "linestyle": "-", "marker": "o"},
)
_KINDS = {"head": "Orphanet head", "source": "Source", "age": "Age", "sex": "Sex"}


@dataclass(frozen=True)
class Side:
    """One version: its risks on the test part, its alert threshold, and its costs.

    ``costs`` are figures by name, the unit in the name; ``alert`` is a risk 0-1 or ``None``
    where the version records none.
    """

    label: str
    version: str
    risks: Mapping[str, float]
    alert: float | None
    costs: Mapping[str, float]
    failed: str


@dataclass(frozen=True)
class TestPart:
    """The locked cases: label, disease and subgroups by case id; kinds as for the gates."""

    __test__ = False  # keeps pytest from collecting it

    rare: Mapping[str, bool]
    disease: Mapping[str, str]
    cells: Mapping[str, Mapping[str, str]]


def compare_versions(first: str, second: str, out: Path) -> str:
    """Write ``index.html``, ``compare.md`` and ``compare.json`` to ``out``; return the verdict.

    ``first`` and ``second`` are each an alias, a version's number, or the id of the run that
    judged it.

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
    file = paths.build("split") / "test.parquet"
    test = read_cases(file)
    if lock_digest(item.case.case_id for item in test) != lock:
        raise BadInputError(
            f"{file.relative_to(paths.root)} is not the test part that these versions were judged "
            "on; check out their commit and run dvc checkout."
        )
    return TestPart(
        rare={item.case.case_id: item.label.label == "rare" for item in test},
        disease={item.case.case_id: item.label.disease_id for item in test},
        cells=subgroup_cells(test),
    )


def read_side(name: str, which: str) -> tuple[Side, str]:
    """Return a version of ``name`` and the lock of the test part it was judged on.

    Raises:
        BadInputError: there is no such version, or its run stored no risks.
    """
    version = resolve(name, which)
    scored, judgement = read_artifact(version, SCORED), read_artifact(version, JUDGEMENT)
    if scored is None or judgement is None:
        raise BadInputError(
            f"{name} version {version.version} has no risks to compare; run dvc repro -f register."
        )
    run_id = version.tags[JUDGED_RUN]
    number = f"version {version.version}"
    is_alias = not which.isdecimal() and which != run_id
    side = Side(
        label=f"{which}, {number}" if is_alias else number,
        version=str(version.version),
        risks={str(key): float(risk) for key, risk in scored["risks"].items()},
        alert=scored.get("alert"),
        costs=_costs(version, judgement, run_id),
        failed=version.tags.get(FAILED_GATES, ""),
    )
    return side, str(scored["test_lock"])


def _costs(version: "ModelVersion", judgement: dict[str, Any], run_id: str) -> dict[str, float]:
    values = {gate["code"]: gate["value"] for gate in judgement["gates"]}
    costs = {name: values[code] for code, name in _COSTS.items() if values.get(code) is not None}
    seconds = _pipeline_seconds(run_id)
    return costs | _sizes(version) | ({"seconds of its pipeline": seconds} if seconds else {})


def _sizes(version: "ModelVersion") -> dict[str, float]:
    import mlflow

    with TemporaryDirectory(prefix="rarealert-") as folder:
        uri = f"models:/{version.name}/{version.version}"
        place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        adapter = next((file.parent for file in place.rglob("student.json")), None)
        if adapter is None:
            return {}
        size = sum(file.stat().st_size for file in adapter.rglob("*") if file.is_file())
    return {"MiB of the adapter": round(size / _MIB, 3)}


def _pipeline_seconds(run_id: str) -> float | None:
    """Return the seconds of all finished runs in the judging run's pipeline, itself included."""
    import mlflow

    run = mlflow.get_run(run_id)
    pipeline = run.data.tags.get("pipeline.id")
    if pipeline is None:
        return None
    runs = mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], f"tags.\"pipeline.id\" = '{pipeline}' AND tags.stage != ''"
    )
    spent = [each.info.end_time - each.info.start_time for each in runs if each.info.end_time]
    return round(sum(spent) / 1000, 1) if spent else None


def compare_sides(one: Side, other: Side, part: TestPart, plan: Bootstrap) -> dict[str, Any]:
    """Return the comparison as JSON: ``metrics``, ``subgroups``, ``alerts``, ``costs``, ``sides``.

    Differences are the second side minus the first.

    Raises:
        RareAlertError: the two share no case, or the shared cases do not define an AUROC.
    """
    ids = _shared(one, other, part)
    study = _study(one, other, part, ids)
    metrics = _metrics(study, plan)
    if "auroc" not in metrics:
        raise RareAlertError("The cases that both versions scored do not define an AUROC.")
    return {
        "sides": [
            {"label": side.label, "version": side.version, "failed_gates": side.failed}
            for side in (one, other)
        ],
        "cases": {"n": len(ids), "rare": int(study.labels.sum()), "of": len(part.rare)},
        "interval": {"confidence": plan.confidence, "resamples": plan.resamples},
        "metrics": metrics,
        "subgroups": _subgroups(study, part, ids, plan),
        "alerts": _alerts(one, other, part, ids),
        "costs": {
            name: [one.costs.get(name), other.costs.get(name)]
            for name in sorted(one.costs.keys() | other.costs.keys())
        },
        "verdict": _verdict(metrics["auroc"]),
    }


def _shared(one: Side, other: Side, part: TestPart) -> list[str]:
    return sorted(part.rare.keys() & one.risks.keys() & other.risks.keys())


def _study(one: Side, other: Side, part: TestPart, ids: list[str]) -> Study:
    return Study(
        labels=np.array([float(part.rare[key]) for key in ids]),
        clusters=np.array([part.disease[key] for key in ids], dtype=np.str_),
        risks={
            name: np.array([side.risks[key] for key in ids], dtype=np.float64)
            for name, side in (("a", one), ("b", other))
        },
        thresholds={},
    )


def _metrics(study: Study, plan: Bootstrap) -> dict[str, dict[str, Any]]:
    everyone = {"all": np.arange(study.labels.size)}
    values = evaluate(study, everyone, _MORE_IS_BETTER, plan)["all"]
    found: dict[str, Comparison] = {}
    for name in _MORE_IS_BETTER:
        found |= compare(study, {name: ("b", "a")}, name, plan)
    adjusted = holm({name: each.p_value for name, each in found.items()})
    return {
        name: {
            "a": asdict(values["a"].estimates[name]),
            "b": asdict(values["b"].estimates[name]),
            "difference": asdict(each.difference),
            "p_value": each.p_value,
            "p_holm": adjusted[name],
            "better": _better(each.difference, _MORE_IS_BETTER[name]),
        }
        for name, each in found.items()
        if name in values["a"].estimates and name in values["b"].estimates
    }


def _better(difference: Estimate, more_is_better: bool) -> str:
    """Return ``a`` or ``b`` where the interval excludes zero, else ``neither``."""
    if difference.ci_low <= 0 <= difference.ci_high:
        return "neither"
    return "b" if (difference.ci_low > 0) == more_is_better else "a"


def _subgroups(
    study: Study, part: TestPart, ids: list[str], plan: Bootstrap
) -> dict[str, dict[str, Any]]:
    """Compare AUROC within each Orphanet head, source, age band and sex, with Holm over all."""
    place = {key: index for index, key in enumerate(ids)}
    found: dict[tuple[str, str], Comparison] = {}
    for kind, cells in _cells(part, ids).items():
        for cell, keys in cells.items():
            index = np.array(sorted(place[key] for key in keys), dtype=np.intp)
            cut = replace(
                study,
                labels=study.labels[index],
                clusters=study.clusters[index],
                risks={name: risks[index] for name, risks in study.risks.items()},
            )
            for each in compare(cut, {cell: ("b", "a")}, "auroc", plan).values():
                found[kind, cell] = each
    adjusted = holm({"\n".join(key): each.p_value for key, each in found.items()})
    rows: dict[str, dict[str, Any]] = {}
    for (kind, cell), each in found.items():
        rows.setdefault(kind, {})[cell] = {
            "difference": asdict(each.difference),
            "p_holm": adjusted[f"{kind}\n{cell}"],
            "gains": _better(each.difference, more_is_better=True),
        }
    return rows


def _cells(part: TestPart, ids: list[str]) -> dict[str, dict[str, list[str]]]:
    """Return kind → cell → cases; the rare cases of a head come with all non-rare ones."""
    rare = {key: part.rare[key] for key in ids}
    nonrare = [key for key in ids if not rare[key]]
    found: dict[str, dict[str, list[str]]] = {}
    for kind, cell_of in sorted(part.cells.items()):
        if kind == "head":
            heads = sorted(rare_by_head(rare, cell_of).items())
            found[kind] = {head: keys + nonrare for head, keys in heads}
        else:
            cells = group_by_cell({key: cell_of[key] for key in ids if key in cell_of})
            found[kind] = {
                cell: keys for cell, keys in sorted(cells.items()) if is_judged_alone(rare, keys)
            }
    return found


def _alerts(one: Side, other: Side, part: TestPart, ids: list[str]) -> dict[str, Any] | None:
    """Count cases alerted by one side alone, at each side's threshold; ``None`` without both."""
    if one.alert is None or other.alert is None:
        return None
    first = np.array([one.risks[key] >= one.alert for key in ids])
    second = np.array([other.risks[key] >= other.alert for key in ids])
    rare = np.array([part.rare[key] for key in ids])
    heads = np.array([part.cells.get("head", {}).get(key, "no head") for key in ids])

    def counts(among: NDArray[np.bool_]) -> dict[str, int]:
        return {
            "n": int(among.sum()),
            "both": int((among & first & second).sum()),
            "gained": int((among & ~first & second).sum()),
            "lost": int((among & first & ~second).sum()),
        }

    return {
        "rare": counts(rare),
        "nonrare": counts(~rare),
        "rare_by_head": {
            name: counts(rare & (heads == name)) for name in sorted(set(heads[rare].tolist()))
        },
    }


def _verdict(auroc: Mapping[str, Any]) -> str:
    difference = f"AUROC of B minus A is {_signed(auroc['difference'])}"
    if auroc["better"] == "neither":
        return f"{difference}: no difference is shown on these cases."
    return f"{difference}: {auroc['better'].upper()} is better on these cases."


def page(found: Mapping[str, Any], plot: bytes) -> str:
    """Render one self-contained HTML page; ``plot`` is a PNG."""
    template = _environment().get_template("compare.html.j2")
    picture = base64.b64encode(plot).decode()
    return template.render(found=found, plot=picture, names=METRICS, kinds=_KINDS)


def markdown(found: Mapping[str, Any]) -> str:
    """Render Markdown, short enough for a comment on a pull request."""
    template = _environment().get_template("compare.md.j2")
    return template.render(found=found, names=METRICS, kinds=_KINDS)


def calibration_overlay(one: Side, other: Side, part: TestPart) -> bytes:
    """Plot the observed share of rare cases against the mean risk of ten equal bins, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="ideal")
    ids = _shared(one, other, part)
    labels = np.array([float(part.rare[key]) for key in ids])
    for letter, side, style in zip("AB", (one, other), _STYLES, strict=True):
        risks = np.array([side.risks[key] for key in ids], dtype=np.float64)
        points = calibration_points(labels, risks, _BINS)
        name = f"{letter}: {side.label}"
        axes.plot(points[:, 0], points[:, 1], label=name, markersize=5, **style)
    axes.set(xlabel="Mean predicted risk", ylabel="Observed share of rare disease")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


@cache
def _environment() -> "Environment":
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {"interval": _interval, "signed": _signed, "p": _p, "cost": _cost}
    return made


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} ({figure['ci_low']:.3f} to {figure['ci_high']:.3f})"


def _signed(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:+.3f} ({figure['ci_low']:+.3f} to {figure['ci_high']:+.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cost(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
