"""Screen a file of visits: streamed in chunks, resumable, finished in one step.

Commands: ``rarealert screen FILE --out FILE``.

Answers grow in ``<out>.partial``; after each chunk ``<out>.progress.json`` says how far it got.
A run that is killed is continued by the next one of the same visits and the same model; what
was written after the last whole chunk is cut off first. ``<out>`` appears when all is done.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from typing import IO, Any

from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.screening.champion import ScreeningModel, load_model
from rarealert.screening.frames import request_frame
from rarealert.screening.rows import Row, read_rows

CHUNK_ROWS = 256


@dataclass(frozen=True)
class ScreenReport:
    """What a run did; ``resumed`` counts the rows that an earlier, killed run had finished."""

    out: Path
    refused_file: Path | None
    screened: int
    refused: int
    resumed: int
    bands: dict[str, int]
    version: str

    def sentence(self) -> str:
        """What a user wants to know at the end."""
        bands = ", ".join(f"{count:,} {band}" for band, count in sorted(self.bands.items()))
        said = f"{self.screened:,} visits screened with version {self.version}"
        said += f" ({bands}) to {self.out}" if bands else f" to {self.out}"
        if self.resumed:
            said += f"; {self.resumed:,} of them by an earlier run"
        if self.refused_file:
            said += f"; {self.refused:,} refused, see {self.refused_file}"
        return said + ". Decision support, not a diagnosis."


@dataclass(frozen=True)
class _Progress:
    """How far a run got: rows and bytes of the source, bytes of both files written."""

    key: str
    rows: int = 0
    source_bytes: int = 0
    out_bytes: int = 0
    refused_bytes: int = 0
    screened: int = 0
    refused: int = 0
    bands: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Files:
    source: Path
    out: Path

    @property
    def refused(self) -> Path:
        return self.out.with_name(f"{self.out.name}.refused.jsonl")

    @property
    def progress(self) -> Path:
        return self.out.with_name(f"{self.out.name}.progress.json")


def screen(source: Path, out: Path, alias: str, rationale: bool) -> ScreenReport:
    """Screen ``source`` with the workspace's registered version that ``alias`` points at.

    Raises:
        BadInputError: ``source`` is missing or is ``out`` itself.
        RareAlertError: no such version is registered.
    """
    files = _checked(source, out)
    paths = Paths.here()
    name = load_params(paths.params).register_.model_name
    model = load_model(name, alias, paths.tracking_uri)
    return _screen(files, model, rationale, CHUNK_ROWS)


def screen_file(
    source: Path,
    out: Path,
    model: ScreeningModel,
    *,
    rationale: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> ScreenReport:
    """Screen the visits of a JSONL file (the fields of ``Case``, flat, one object a line).

    Each line of ``out`` holds ``case_id``, ``risk`` (0-1), ``band``, ``truncated``,
    ``rationale`` where asked, ``model_version`` and ``model_digest``, in the source's order.
    Rows that are no case go to ``<out>.refused.jsonl`` with their number and the reason.

    Raises:
        BadInputError: ``source`` is missing or is ``out`` itself.
    """
    return _screen(_checked(source, out), model, rationale, chunk_rows)


def _checked(source: Path, out: Path) -> _Files:
    if not source.is_file():
        raise BadInputError(f"{source} is missing; name a JSONL file of visits.")
    if source.resolve() == out.resolve():
        raise BadInputError(f"{out} is the file of visits itself; name another file for --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return _Files(source, out)


def _screen(files: _Files, model: ScreeningModel, rationale: bool, chunk_rows: int) -> ScreenReport:
    from tqdm import tqdm

    progress = _resume(files, _key(files.source, model, rationale))
    resumed = progress.screened + progress.refused
    rows = read_rows(files.source, progress.source_bytes, progress.rows)
    size = files.source.stat().st_size
    with (
        _partial(files.out).open("ab") as out,
        _partial(files.refused).open("ab") as refused,
        tqdm(
            total=size,
            initial=progress.source_bytes,
            unit="B",
            unit_scale=True,
            disable=None,  # a bar on a terminal, no control characters in a log
        ) as bar,
    ):
        out.truncate(progress.out_bytes)
        refused.truncate(progress.refused_bytes)
        while chunk := list(islice(rows, chunk_rows)):
            answers = _answers(chunk, model, rationale)
            refusals = [_refusal(row) for row in chunk if row.case is None]
            progress = replace(
                progress,
                rows=chunk[-1].number,
                source_bytes=chunk[-1].end,
                out_bytes=_append(out, answers),
                refused_bytes=_append(refused, refusals),
                screened=progress.screened + len(answers),
                refused=progress.refused + len(refusals),
                bands=_counted(progress.bands, answers),
            )
            _save(files.progress, progress)
            bar.update(progress.source_bytes - bar.n)
            bar.set_postfix(screened=progress.screened, refused=progress.refused)
    return _finish(files, progress, resumed, model)


def _answers(chunk: Sequence[Row], model: ScreeningModel, rationale: bool) -> list[dict[str, Any]]:
    cases = [row.case for row in chunk if row.case is not None]
    if not cases:
        return []
    answered = model.scorer.predict(request_frame(cases), params={"rationale": rationale})
    marks = {"model_version": model.version, "model_digest": model.digest}
    return [{**answer, **marks} for answer in answered.to_dict("records")]


def _refusal(row: Row) -> dict[str, Any]:
    return {"row": row.number, "case_id": row.case_id, "reason": row.reason}


def _counted(before: Mapping[str, int], answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(before) + Counter(str(answer["band"]) for answer in answers))


def _append(stream: IO[bytes], lines: Sequence[Mapping[str, Any]]) -> int:
    """Write and make durable; the size of the file in bytes."""
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())
    return os.fstat(stream.fileno()).st_size


def _key(source: Path, model: ScreeningModel, rationale: bool) -> str:
    """Which visits, which model, which question: what a continued run must share."""
    with source.open("rb") as stream:
        visits = file_digest(stream, "sha256").hexdigest()
    return f"{visits} {model.name} {model.version} {model.digest} rationale={rationale}"


def _resume(files: _Files, key: str) -> _Progress:
    """Where an earlier run of the same key got to, if its files still hold that much."""
    try:
        held = _Progress(**json.loads(files.progress.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Progress(key)
    sizes = (_size(_partial(files.out)), _size(_partial(files.refused)))
    whole = sizes[0] >= held.out_bytes and sizes[1] >= held.refused_bytes
    return held if held.key == key and whole else _Progress(key)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _save(path: Path, progress: _Progress) -> None:
    partial = _partial(path)
    partial.write_text(json.dumps(asdict(progress), sort_keys=True), encoding="utf-8")
    partial.replace(path)


def _finish(
    files: _Files, progress: _Progress, resumed: int, model: ScreeningModel
) -> ScreenReport:
    """Give the files their names, ``out`` before the mark that the run was under way."""
    if progress.refused:
        _partial(files.refused).replace(files.refused)
    else:
        _partial(files.refused).unlink()
        files.refused.unlink(missing_ok=True)
    _partial(files.out).replace(files.out)
    files.progress.unlink(missing_ok=True)
    return ScreenReport(
        out=files.out,
        refused_file=files.refused if progress.refused else None,
        screened=progress.screened,
        refused=progress.refused,
        resumed=resumed,
        bands=dict(progress.bands),
        version=model.version,
    )
