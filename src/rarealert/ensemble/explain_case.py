"""How the ensemble came to one case's risk: ``rarealert explain CASE_ID``."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.errors import BadInputError
from rarealert.files import whole, write_json
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import read_cases

if TYPE_CHECKING:
    from rarealert.ensemble.explanation import CaseExplanation, Voice

_PARTS = ("train", "valid")
_BACKGROUND = 60  # training cases that stand for "unknown"; the cost grows with them
_OTHER_VOICES = {
    "spread": "how their risks lie",
    "differential": "the diseases they name",
    "insight": "how they weigh findings",
    "text": "how they word it",
    "case": "the visit itself",
}


def explain_to_terminal(case_id: str, png: Path | None, out: Path | None) -> str:
    """A table of the voices behind the risk of ``case_id``, a training or validation case.

    The same goes to ``out`` as JSON and, column by column, to ``png`` as a waterfall. Neither holds
    anything of the visit's text.

    Raises:
        BadInputError: ``align`` has not run, the case is in neither part, or no teacher that the
            ensemble knows answered it, or a file can't be written.
    """
    paths = Paths.here()
    parts = {part: read_cases(paths.build("split") / f"{part}.parquet") for part in _PARTS}
    found = {item.case.case_id: (item, part) for part in _PARTS for item in parts[part]}
    if case_id not in found:
        raise BadInputError(
            f"{case_id} is in neither the training nor the validation part, and no other case is "
            "explained: the test part is read by score alone. Take a case_id of "
            "build/align/risk.parquet."
        )
    case, part = found[case_id]
    out_of_fold = _out_of_fold(paths)
    answered = [item for item in parts["train"] if item.case.case_id in out_of_fold]
    explained = _explain(paths, case, answered)
    try:
        if png is not None:
            _draw(explained, case, png)
        if out is not None:
            write_json(out, _as_json(explained, case_id, part))
    except OSError as error:
        raise BadInputError(
            f"{error.filename} can't be written; name a file in a folder of yours."
        ) from error
    return _table(explained, case_id, part, out_of_fold.get(case_id))


def _explain(paths: Paths, case: LabelledCase, answered: list[LabelledCase]) -> "CaseExplanation":
    """``case`` against some of ``answered``, which stand for "unknown"."""
    from rarealert.ensemble.ensemble import load_ensemble
    from rarealert.ensemble.explanation import draw_background, explain_case
    from rarealert.ensemble.features import visit_features
    from rarealert.ensemble.signals import read_panel

    ensemble = load_ensemble(paths.build("align") / "model.skops")
    seed, case_id = load_params(paths.params).align.seed, case.case.case_id
    others = {item.case.case_id: item.case for item in answered if item.case.case_id != case_id}
    drawn = draw_background(others, _BACKGROUND, seed)
    panel = read_panel(paths.build("rationales") / "answers.parquet", [case_id, *drawn])
    visits = visit_features([case.case, *(others[name] for name in drawn)])
    explained = explain_case(ensemble, panel, visits, case_id, seed)
    if explained is None:
        raise BadInputError(
            f"{case_id} has no answer of a teacher that the ensemble knows, so it has no risk; ask "
            "one (rarealert teach), then run dvc repro."
        )
    return explained


def _out_of_fold(paths: Paths) -> dict[str, float]:
    """The risks that the student learns from, of every training case that somebody answered."""
    import pyarrow.parquet as pq

    path = paths.build("align") / "risk.parquet"
    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the align stage (dvc repro align).")
    rows = pq.read_table(path, filters=[("part", "=", "train")]).to_pylist()
    return {row["case_id"]: row["risk"] for row in rows}


def _table(found: "CaseExplanation", case_id: str, part: str, out_of_fold: float | None) -> str:
    names = [_called(voice) for voice in (*found.voices, *_silent(found))]
    width = max(map(len, ["nothing known", *names]))
    head = f"{'voice':<{width}}  said  log odds  risk so far  risk without it"
    lines = [head, f"{'nothing known':<{width}}  {'':>4}  {'':>8}  {_risk(found.base):>11.2f}"]
    reached = found.base
    for voice in (*(one for one in found.voices if _spoke(one)), *_silent(found)):
        reached += voice.log_odds
        said = "" if voice.said is None else f"{voice.said:.2f}"
        without = "" if voice.risk_without is None else f"{voice.risk_without:.2f}"
        lines.append(
            f"{_called(voice):<{width}}  {said:>4}  {voice.log_odds:>+8.2f}  "
            f"{_risk(reached):>11.2f}  {without:>15}".rstrip()
        )
    told = f"{case_id} ({part}): risk {found.risk:.2f} by the frozen ensemble"
    if part == "train":
        told += ", which was fitted on this case"
    if out_of_fold is not None:
        told += f"; {out_of_fold:.2f} by the model that never saw its disease"
    return "\n".join([f"{told}.", *_doubts(found), "", *lines])


def _doubts(found: "CaseExplanation") -> list[str]:
    """What can't be ruled out at each confidence, and how strange the case is."""
    sets = ", ".join(
        f"{level:.0%}: {' or '.join(labels) or 'none'}" for level, labels in found.labels.items()
    )
    return [
        f"Labels left standing at a confidence of {sets}.",
        f"Stranger than {found.strangeness:.0%} of the cases it was fitted on.",
    ]


def _spoke(voice: "Voice") -> bool:
    return voice.said is not None or voice.name in _OTHER_VOICES


def _silent(found: "CaseExplanation") -> list["Voice"]:
    """Those who did not answer, as one: what it moves the risk that they are silent."""
    from rarealert.ensemble.explanation import Voice

    silent = [voice.log_odds for voice in found.voices if not _spoke(voice)]
    return [Voice(f"{len(silent)} who did not answer", sum(silent))] if silent else []


def _called(voice: "Voice") -> str:
    return _OTHER_VOICES.get(voice.name, voice.name) if voice.said is None else voice.name


def _risk(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def _as_json(found: "CaseExplanation", case_id: str, part: str) -> dict[str, Any]:
    from rarealert.ensemble.report import rounded

    said: dict[str, Any] = rounded(asdict(found))
    return {"case_id": case_id, "part": part, **said}


def _draw(found: "CaseExplanation", case: LabelledCase, png: Path) -> None:
    import numpy as np

    from rarealert.ensemble.plots import waterfall

    names, values = tuple(found.columns), np.asarray(list(found.columns.values()))
    rare = case.label.label == "rare"
    figure = waterfall(names, values, found.base, case.case.case_id, rare=rare)
    with whole(png) as partial:
        figure.savefig(partial, format="png", dpi=120)
