"""What a person asks of the cache: what is in it, is it whole, make it smaller, give it to me."""

import json
from contextlib import suppress
from pathlib import Path

from rarealert.errors import BadInputError, RareAlertError
from rarealert.teachers.cache import RationaleCache, TeacherStats
from rarealert.teachers.shards import disk_full

_COLUMNS = ("teacher", "answers", "failures", "tokens in", "tokens out", "cost USD", "last answer")


def stats(folder: Path) -> str:
    """A table: one line a teacher, failures by type below it.

    Raises:
        BadInputError: there is no cache in ``folder``.
    """
    found = _opened(folder).stats()
    if not found:
        return "The cache is empty."
    rows = [_COLUMNS, *(_row(name, entry) for name, entry in found.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    failures = [
        f"{name} failed with {', '.join(f'{kind} ({n})' for kind, n in entry.failures.items())}"
        for name, entry in found.items()
        if entry.failures
    ]
    return "\n".join(lines + failures)


def _row(name: str, entry: TeacherStats) -> tuple[str, ...]:
    return (
        name,
        f"{entry.answers:,}",
        f"{entry.failures.total():,}",
        f"{entry.prompt_tokens:,}",
        f"{entry.completion_tokens:,}",
        f"{entry.cost_usd:.2f}",
        entry.last.split(".")[0] if entry.last else "never",
    )


def verify(folder: Path) -> str:
    """One sentence on the cache's wholeness.

    Raises:
        BadInputError: there is no cache in ``folder``.
        RareAlertError: lines are damaged; the sentence names the first and says what to do.
    """
    found = _opened(folder).verify()
    if found.damaged:
        raise RareAlertError(
            f"{len(found.damaged)} of {found.answers + found.failures + len(found.damaged)} lines "
            f"in {folder} are damaged, the first in {found.damaged[0]}; the next `rarealert teach` "
            "sets them aside and asks again for what they held, and for nothing else."
        )
    twice = f", {found.duplicates:,} of them twice" if found.duplicates else ""
    return (
        f"{found.shards:,} shards are whole: {found.answers:,} answers{twice}, "
        f"{found.failures:,} failures."
    )


def compact(folder: Path) -> str:
    """Merge the finished shards; one sentence on what became of them.

    Raises:
        BadInputError: there is no cache in ``folder``.
        RareAlertError: the disk is full; nothing was changed.
    """
    done = _opened(folder).compact()
    before, after = (sum(getattr(item, name) for item in done) for name in ("before", "after"))
    dropped = sum(item.dropped for item in done)
    return (
        f"{before:,} shards became {after:,}, {dropped:,} repeated answers were dropped. "
        "Next: dvc commit teach."
        if after < before
        else "There is nothing to merge."
    )


def export(folder: Path, out: Path) -> str:
    """Write every answer with its provenance as JSON Lines to ``out``; one sentence.

    Neither the case's text nor the model's raw response, which may quote it, is in the file.

    Raises:
        BadInputError: there is no cache in ``folder``, or ``out`` can't be written.
        RareAlertError: the disk is full; ``out`` is as it was.
    """
    cache = _opened(folder)
    if out.is_dir():
        raise BadInputError(f"{out} is a folder; name a file in it.")
    partial = out.with_name(out.name + ".partial")
    count = 0
    try:
        with disk_full(out.parent), partial.open("w", encoding="utf-8") as stream:
            for row in cache.export():
                stream.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
                count += 1
        partial.replace(out)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise BadInputError(f"{out} can't be written; name a file in a folder of yours.") from error
    finally:
        with suppress(NotADirectoryError, PermissionError):
            partial.unlink(missing_ok=True)
    return f"{count:,} answers in {out}."


def _opened(folder: Path) -> RationaleCache:
    if not folder.is_dir():
        raise BadInputError(f"{folder} is missing; run rarealert teach or dvc pull first.")
    return RationaleCache(folder)
