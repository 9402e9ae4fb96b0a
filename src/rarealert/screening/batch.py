"""How the threads of one forward pass wait for each other.

What a run of screening did, in one sentence.

Screen a file of visits: streamed in chunks, resumable, finished in one step.

Commands: ``rarealert screen FILE --out FILE``.

Answers grow in ``<out>.partial``; after each chunk ``<out>.progress.json`` says how far it got.
A run that is killed is continued by the next one of the same visits, model and question; what
was written after the last whole chunk is cut off first. ``<out>`` appears when all is done. While
a run is under way it holds ``<out>.lock``, and a second one is refused.

A chunk is the unit of work: which visits are padded together depends on the source alone, so a
continued run gives the very bytes of an uninterrupted one.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from rarealert.errors import BadInputError
from rarealert.screening.answer import Answer, RationaleFor
from rarealert.screening.champion import ScreeningModel, loader
from rarealert.screening.resume import (
    Files,
    Progress,
    alone,
    append,
    finish,
    partial,
    resume,
    save,
)
from rarealert.screening.tables import answer_row, check_out
from rarealert.screening.visit_files import Row, kind_of, read_rows
from rarealert.visits.reading import read_visit


def wait_asleep() -> None:
    """Let torch's threads sleep between two layers; call it before torch is imported.

    GNU's OpenMP spins by default, and on a machine that has other work to do each thread then
    spends its share of the processor on waiting for one that has none: a hundred seconds were not
    enough for five rationales that take under thirty asleep. What the environment says goes first
    (``OMP_WAIT_POLICY``, OpenMP 5.0, section 6.7).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class ScreenReport:
    """What a run did; ``resumed`` counts the rows that an earlier, killed run had finished.

    ``cut`` visits were longer than the model reads, ``flagged`` ones have other notes, and
    ``bands`` leaves out those that could not be read.
    """

    out: Path
    refused_file: Path | None
    screened: int
    refused: int
    resumed: int
    flagged: int
    cut: int
    bands: dict[str, int]
    version: str

    def sentence(self) -> str:
        """What a user wants to know at the end."""
        bands = ", ".join(f"{count:,} {band}" for band, count in sorted(self.bands.items()))
        said = f"{self.screened:,} visits screened with version {self.version}"
        said += f" ({bands}) to {self.out}" if bands else f" to {self.out}"
        if self.resumed:
            said += f", {self.resumed:,} of the rows by an earlier run"
        if self.flagged:
            said += f"; {self.flagged:,} to be read with their notes"
        if self.cut:
            said += f"; {self.cut:,} longer than the model reads"
        if self.refused_file:
            said += f"; {self.refused:,} refused, see {self.refused_file}"
        return said + ". Decision support, not a diagnosis."


def report_of(
    files: Files, progress: Progress, resumed: int, model: ScreeningModel
) -> ScreenReport:
    """The report of a run that got to ``progress``."""
    return ScreenReport(
        out=files.out,
        refused_file=files.refused if progress.refused else None,
        screened=progress.screened,
        refused=progress.refused,
        resumed=resumed,
        flagged=progress.flagged,
        cut=progress.cut,
        bands=dict(progress.bands),
        version=model.version,
    )


CHUNK_ROWS = 256
Engine = Literal["local", "ray"]
"""Who asks the model: this process, or the actors of a Ray cluster."""

Load = Callable[[], ScreeningModel]
"""What gives an actor its own copy of the model."""

_Answered = Iterator[tuple[Sequence[Row], list[Answer]]]


@dataclass(frozen=True)
class Question:
    """What is asked of the model: ``prevalence`` 0-1 restates every risk for such a population."""

    rationale: RationaleFor = "none"
    prevalence: float | None = None


def screen(
    source: Path,
    out: Path,
    alias: str,
    question: Question,
    folder: Path | None = None,
    engine: Engine = "local",
) -> ScreenReport:
    """Screen ``source`` with the workspace's registered version that ``alias`` points at.

    With ``folder``, a model's, no registry and no workspace is needed.

    Raises:
        BadInputError: ``source`` is missing or of no known kind, ``out`` is ``source`` itself,
            lies in it, is a folder or of no known kind, or the prevalence is no share.
        RareAlertError: no such version is registered, or it gives no such answers.
    """
    files = _checked(source, out, question)
    wait_asleep()
    load = loader(folder.resolve() if folder else None, alias)
    return _screen(files, load(), question, CHUNK_ROWS, load if engine == "ray" else None)


def screen_file(
    source: Path,
    out: Path,
    model: ScreeningModel,
    question: Question = Question(),
    *,
    chunk_rows: int = CHUNK_ROWS,
    load: Load | None = None,
) -> ScreenReport:
    """Screen the visits of a file of any kind that ``rarealert.screening.rows`` reads.

    Each row of ``out`` holds the columns of ``rarealert.screening.answer.COLUMNS``, ``rationale``
    where asked, ``model_version`` and ``model_digest``, in the source's order. Rows that are no
    case go to ``<out>.refused.jsonl`` with their number and the reason. With ``load``, which has
    to give the same ``model``, the chunks are answered on a Ray cluster.

    Raises:
        BadInputError, RareAlertError: as ``screen``.
    """
    return _screen(_checked(source, out, question), model, question, chunk_rows, load)


def _checked(source: Path, out: Path, question: Question) -> Files:
    kind_of(source)
    check_out(source, out)
    if question.prevalence is not None and not 0 < question.prevalence < 1:
        raise BadInputError("--prevalence must be a share between 0 and 1, such as 0.02.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return Files(source, out)


def _screen(
    files: Files,
    model: ScreeningModel,
    question: Question,
    chunk_rows: int,
    load: Load | None = None,
) -> ScreenReport:
    with alone(files):
        return _answered(files, model, question, chunk_rows, load)


def _answered(
    files: Files, model: ScreeningModel, question: Question, chunk_rows: int, load: Load | None
) -> ScreenReport:
    from tqdm import tqdm

    progress = resume(files, _key(files, model, question, chunk_rows))
    resumed = progress.screened + progress.refused
    rationale = question.rationale != "none"
    engine = _engine(model, question, load)
    rows = read_rows(files.source, progress.source_bytes, progress.rows)
    chunks = iter(lambda: list(islice(rows, chunk_rows)), [])
    with (
        partial(files.out).open("ab") as out,
        partial(files.refused).open("ab") as refused,
        tqdm(
            total=files.source_bytes,
            initial=progress.source_bytes,
            unit="B",
            unit_scale=True,
            disable=None,  # a bar on a terminal, no control characters in a log
        ) as bar,
    ):
        out.truncate(progress.out_bytes)
        refused.truncate(progress.refused_bytes)
        for chunk, answers in engine(chunks):
            rows_out = [answer_row(answer, model, rationale) for answer in answers]
            refusals = [row.refusal() for row in chunk if row.case is None]
            progress = replace(
                _counted(progress, answers, len(refusals)),
                rows=chunk[-1].number,
                source_bytes=chunk[-1].end,
                out_bytes=append(out, rows_out),
                refused_bytes=append(refused, refusals),
            )
            save(files.progress, progress)
            bar.update(progress.source_bytes - bar.n)
            done = progress.screened + progress.refused - resumed
            each = done / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{each:.1f} visits/s, {progress.refused:,} refused")
    finish(files, progress, rationale)
    return report_of(files, progress, resumed, model)


def _engine(
    model: ScreeningModel, question: Question, load: Load | None
) -> Callable[[Iterable[Sequence[Row]]], _Answered]:
    """What answers chunks in their order: this process, or with ``load`` a Ray cluster's actors."""
    if load is None:
        return lambda chunks: ((chunk, answer_chunk(chunk, model, question)) for chunk in chunks)
    from rarealert.screening.ray_engine import answer_on_ray

    return lambda chunks: answer_on_ray(chunks, load, model, question)


def answer_chunk(chunk: Sequence[Row], model: ScreeningModel, question: Question) -> list[Answer]:
    """One answer for each row of ``chunk`` that is a case."""
    readings = [read_visit(row.case) for row in chunk if row.case is not None]
    return model.scorer.answer(readings, question.prevalence, question.rationale)


def _is_flagged(answer: Answer) -> bool:
    """Whether there are notes beside the one on a cut, which is counted separately."""
    return any(note.code != "truncated" for note in answer.notes)


def _counted(before: Progress, answers: Sequence[Answer], refused: int) -> Progress:
    return replace(
        before,
        screened=before.screened + len(answers),
        refused=before.refused + refused,
        flagged=before.flagged + sum(_is_flagged(answer) for answer in answers),
        cut=before.cut + sum(answer.truncated for answer in answers),
        bands=dict(Counter(before.bands) + Counter(_band(answer) for answer in answers)),
    )


def _band(answer: Answer) -> str:
    return "not read" if answer.not_english else answer.band


def _key(files: Files, model: ScreeningModel, question: Question, chunk_rows: int) -> str:
    """Which visits, which model, which question: what a continued run must share."""
    asked = f"{question.rationale} {question.prevalence} {chunk_rows}"
    return f"{files.digest()} {model.name} {model.version} {model.digest} {asked}"
