"""Screen a file of visits: streamed in chunks, and resumed where a killed run ended.

Command: ``rarealert screen FILE --out FILE``. Answers grow in ``<out>.partial``, and after each
chunk ``<out>.progress.json`` records what is complete. The next run of the same visits, model and
options continues there: it first cuts off what was written after the last complete chunk. ``<out>``
appears once all is done. A run holds ``<out>.lock``, and a second one is refused.

Which visits are padded together depends on the source alone, so a resumed run gives the bytes of an
uninterrupted one.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import sha256_of_file
from rarealert.screening.answer import Answer, RationaleFor
from rarealert.screening.champion import ScreeningModel, loader
from rarealert.screening.tables import answer_row, check_out, write_table
from rarealert.screening.visit_files import VisitRow, kind_of, read_rows
from rarealert.sources.published_files import walk
from rarealert.visits.reading import read_visit

CHUNK_ROWS = 256

Engine = Literal["local", "ray"]
"""Where the model runs: in this process, or in actors on a Ray cluster."""

Load = Callable[[], ScreeningModel]
"""Loads another copy of the model, on any machine."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks


@dataclass(frozen=True)
class Options:
    """Which visits get a rationale, and the prevalence 0-1 that every risk is restated for."""

    rationale: RationaleFor = "none"
    prevalence: float | None = None


@dataclass(frozen=True)
class ScreenReport:
    """The result of a run.

    ``resumed`` counts the rows that an earlier, killed run had finished. ``cut`` visits were longer
    than the model reads, ``flagged`` ones have other notes.
    """

    out: Path
    refused_file: Path | None
    screened: int
    refused: int
    resumed: int
    flagged: int
    cut: int
    bands: Mapping[str, int]
    version: str

    def sentence(self) -> str:
        """The result in one sentence."""
        bands = ", ".join(f"{count:,} {band}" for band, count in sorted(self.bands.items()))
        parts = [f"{self.screened:,} visits screened with version {self.version}"]
        parts[0] += f" ({bands}) to {self.out}" if bands else f" to {self.out}"
        if self.resumed:
            parts[0] += f", {self.resumed:,} of the rows by an earlier run"
        if self.flagged:
            parts.append(f"{self.flagged:,} to be read with their notes")
        if self.cut:
            parts.append(f"{self.cut:,} longer than the model reads")
        if self.refused_file:
            parts.append(f"{self.refused:,} refused, see {self.refused_file}")
        return "; ".join(parts) + ". Decision support, not a diagnosis."


def screen(
    source: Path,
    out: Path,
    alias: str,
    options: Options,
    folder: Path | None = None,
    engine: Engine = "local",
) -> ScreenReport:
    """Screen ``source`` with the workspace's registered version that ``alias`` points at.

    With ``folder``, a model's, neither a registry nor a workspace is needed.

    Raises:
        BadInputError: ``source`` is missing or of no known kind, ``out`` is ``source`` itself, is
            in it, is a folder or of no known kind, or the prevalence is not a share.
        RareAlertError: no such version is registered, or it can't be used.
    """
    files = _checked(source, out, options)
    load = loader(folder.resolve() if folder else None, alias)
    with _alone(files):
        return _screen(files, load(), options, CHUNK_ROWS, load if engine == "ray" else None)


def screen_file(
    source: Path,
    out: Path,
    model: ScreeningModel,
    options: Options = Options(),
    *,
    chunk_rows: int = CHUNK_ROWS,
    load: Load | None = None,
) -> ScreenReport:
    """Screen the visits of a file of any kind that ``rarealert.screening.visit_files`` reads.

    Each row of ``out`` has the columns of ``rarealert.screening.answer.COLUMNS``, ``rationale``
    where requested, ``notes``, ``model_version`` and ``model_digest``, in the source's order. Rows
    that are not a case go to ``<out>.refused.jsonl`` with their number and the reason. With
    ``load``, which has to load the same ``model``, the chunks are answered on a Ray cluster.

    Raises:
        BadInputError, RareAlertError: as ``screen``.
    """
    files = _checked(source, out, options)
    with _alone(files):
        return _screen(files, model, options, chunk_rows, load)


@dataclass(frozen=True)
class _Files:
    """The visits, the answers, and the files beside these during a run."""

    source: Path
    out: Path

    @property
    def growing(self) -> Path:
        """Where the answers grow, one line of JSON each."""
        return _beside(self.out, "partial")

    @property
    def refused(self) -> Path:
        """Rows that are not a case, with their reasons."""
        return _beside(self.out, "refused.jsonl")

    @property
    def growing_refused(self) -> Path:
        """Where the refused rows grow."""
        return _beside(self.refused, "partial")

    @property
    def progress(self) -> Path:
        """What is complete."""
        return _beside(self.out, "progress.json")

    @property
    def parts(self) -> list[Path]:
        """The files of visits."""
        return [file for file, _ in walk(self.source, ("",))]


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


@dataclass(frozen=True)
class _Progress:
    """Rows and bytes of the source read, and bytes of both files written, in the run ``key``."""

    key: str
    rows: int = 0
    source_bytes: int = 0
    out_bytes: int = 0
    refused_bytes: int = 0
    screened: int = 0
    refused: int = 0
    flagged: int = 0
    cut: int = 0
    bands: Mapping[str, int] = field(default_factory=dict)

    def counted(self, answers: Sequence[Answer], refused: int) -> "_Progress":
        """Add the counts of one chunk."""
        bands = Counter("not read" if each.not_english else each.band for each in answers)
        return replace(
            self,
            screened=self.screened + len(answers),
            refused=self.refused + refused,
            flagged=self.flagged + sum(map(_is_flagged, answers)),
            cut=self.cut + sum(each.truncated for each in answers),
            bands=dict(Counter(self.bands) + bands),
        )


def _is_flagged(answer: Answer) -> bool:
    """Whether there are notes beside the one on a cut, which is counted separately."""
    return any(note.code != "truncated" for note in answer.notes)


def _checked(source: Path, out: Path, options: Options) -> _Files:
    kind_of(source)
    check_out(source, out)
    if options.prevalence is not None and not 0 < options.prevalence < 1:
        raise BadInputError("--prevalence must be a share between 0 and 1, such as 0.02.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return _Files(source, out)


@contextmanager
def _alone(files: _Files) -> Iterator[None]:
    """Keep other runs away from ``out``, for as long as this process lives at most.

    On a file system without locks, other runs are not kept away.

    Raises:
        BadInputError: another run writes the same answers.
    """
    from filelock import FileLock, Timeout

    path = _beside(files.out, "lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BadInputError(
            f"{files.out} is being written by another run; wait for it or name another --out."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes it on release
            path.unlink(missing_ok=True)  # before the release, so never another run's
        lock.release()


def _screen(
    files: _Files, model: ScreeningModel, options: Options, chunk_rows: int, load: Load | None
) -> ScreenReport:
    from tqdm import tqdm

    progress = _resumed(files, _key(files, model, options, chunk_rows))
    resumed = progress.screened + progress.refused
    rows = read_rows(files.source, progress.rows)
    chunks = iter(lambda: list(islice(rows, chunk_rows)), [])
    with (
        files.growing.open("ab") as out,
        files.growing_refused.open("ab") as refused,
        tqdm(
            total=sum(file.stat().st_size for file in files.parts),
            initial=progress.source_bytes,
            unit="B",
            unit_scale=True,
            disable=None,  # a bar on a terminal, no control characters in a log
        ) as bar,
    ):
        out.truncate(progress.out_bytes)
        refused.truncate(progress.refused_bytes)
        for chunk, answers in _answered(chunks, model, options, load):
            refusals = [row.refusal() for row in chunk if row.case is None]
            cells = [answer_row(each, model, options.rationale != "none") for each in answers]
            progress = replace(
                progress.counted(answers, len(refusals)),
                rows=chunk[-1].number,
                source_bytes=chunk[-1].end,
                out_bytes=_append(out, cells),
                refused_bytes=_append(refused, refusals),
            )
            _save(files, progress)
            bar.update(progress.source_bytes - bar.n)
            done = progress.screened + progress.refused - resumed
            each = done / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{each:.1f} visits/s, {progress.refused:,} refused")
    _finish(files, progress, options.rationale != "none")
    return ScreenReport(
        out=files.out,
        refused_file=files.refused if progress.refused else None,
        screened=progress.screened,
        refused=progress.refused,
        resumed=resumed,
        flagged=progress.flagged,
        cut=progress.cut,
        bands=progress.bands,
        version=model.version,
    )


def _answered(
    chunks: Iterable[list[VisitRow]], model: ScreeningModel, options: Options, load: Load | None
) -> Iterator[tuple[list[VisitRow], list[Answer]]]:
    """Each chunk with its answers, in order."""
    if load is None:
        return ((chunk, _answer(chunk, model, options)) for chunk in chunks)
    import torch

    from rarealert.scale.cluster import spread

    identity = model.version, model.digest
    arguments = (load, identity, options, torch.get_num_threads())
    return spread(_RayWorker, arguments, chunks, ordered=True)


def _answer(chunk: Sequence[VisitRow], model: ScreeningModel, options: Options) -> list[Answer]:
    """One answer for each row of ``chunk`` that is a case."""
    readings = [read_visit(row.case) for row in chunk if row.case is not None]
    return model.scorer.answer(readings, options.prevalence, options.rationale)


class _RayWorker:
    """Answers chunks on one machine of a Ray cluster; the registry must be in its reach.

    It uses as many threads as the process that started the run, because sums of floating-point
    numbers depend on how they are split.
    """

    def __init__(
        self, load: Load, identity: tuple[str, str], options: Options, threads: int
    ) -> None:
        self._load, self._identity = load, identity
        self._options, self._threads = options, threads
        self._model: ScreeningModel | None = None

    def run(self, chunk: list[VisitRow]) -> list[Answer]:
        if self._model is None:
            self._model = self._loaded()
        return _answer(chunk, self._model, self._options)

    def _loaded(self) -> ScreeningModel:
        model = self._load()
        import torch

        torch.set_num_threads(self._threads)
        if (model.version, model.digest) != self._identity:
            raise RareAlertError(
                f"The alias moved from version {self._identity[0]} to {model.version} during the "
                "run; run the command again."
            )
        return model


def _key(files: _Files, model: ScreeningModel, options: Options, chunk_rows: int) -> str:
    """The visits, model and options that a resumed run must share."""
    visits = sha256()
    for file in files.parts:
        visits.update(os.fsencode(file.name) + b"\0" + sha256_of_file(file).encode())
    settings = f"{options.rationale} {options.prevalence} {chunk_rows}"
    return f"{visits.hexdigest()} {model.name} {model.version} {model.digest} {settings}"


def _resumed(files: _Files, key: str) -> _Progress:
    """The progress of an earlier run of the same key, if its files still have that much."""
    try:
        saved = _Progress(**json.loads(files.progress.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Progress(key)
    growing = files.growing, files.growing_refused
    sizes = [path.stat().st_size if path.is_file() else 0 for path in growing]
    complete = sizes[0] >= saved.out_bytes and sizes[1] >= saved.refused_bytes
    return saved if saved.key == key and complete else _Progress(key)


def _append(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> int:
    """Write and make durable; returns the size of the file in bytes."""
    for row in rows:
        stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())
    return os.fstat(stream.fileno()).st_size


def _save(files: _Files, progress: _Progress) -> None:
    """Replace the record of the progress in one step."""
    growing = _beside(files.progress, "partial")
    growing.write_text(json.dumps(asdict(progress), sort_keys=True), encoding="utf-8")
    growing.replace(files.progress)


def _finish(files: _Files, progress: _Progress, rationale: bool) -> None:
    """Give the files their names, and remove the record of the progress.

    A table is written first, while its lines are there: a run killed in the middle writes the table
    again and scores no visit again.
    """
    is_table = files.out.suffix.lower() != ".jsonl"
    if is_table:
        write_table(files.growing, files.out, rationale)
    if progress.refused:
        files.growing_refused.replace(files.refused)
    else:
        files.growing_refused.unlink()
        files.refused.unlink(missing_ok=True)
    if not is_table:
        files.growing.replace(files.out)
    files.progress.unlink(missing_ok=True)
    files.growing.unlink(missing_ok=True)
