"""The commands of ``rarealert cache``: what is in the cache, is it whole, compact it, export it."""

import json
from pathlib import Path

from rarealert.errors import BadInputError, RareAlertError
from rarealert.files import whole
from rarealert.teachers.cache import RationaleCache, TeacherStats
from rarealert.teachers.shards import disk_full

_COLUMNS = ("teacher", "answers", "failures", "tokens in", "tokens out", "cost USD", "last answer")


def stats(folder: Path) -> str:
    """A table with one line a teacher, and below it the failures by type.

    Raises:
        BadInputError: there is no cache in ``folder``.
    """
    import pandas as pd

    found = _opened(folder).stats()
    if not found:
        return "The cache is empty."
    table = pd.DataFrame([_row(name, entry) for name, entry in found.items()], columns=_COLUMNS)
    failures = [
        f"{name} failed with {', '.join(f'{kind} ({n})' for kind, n in entry.failures.items())}"
        for name, entry in found.items()
        if entry.failures
    ]
    return "\n".join([table.to_string(index=False), *failures])


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
    """A sentence with the counts of an undamaged cache.

    Raises:
        BadInputError: there is no cache in ``folder``.
        RareAlertError: lines are damaged; the sentence names the first and the next step.
    """
    found = _opened(folder).verify()
    if found.damaged:
        raise RareAlertError(
            f"{len(found.damaged)} of {found.answers + found.failures + len(found.damaged)} lines "
            f"in {folder} are damaged, the first in {found.damaged[0]}. Run `rarealert teach`: it "
            "sets them aside and asks for those answers again, and for no others."
        )
    twice = f", {found.duplicates:,} of them twice" if found.duplicates else ""
    return (
        f"{found.shards:,} shards are whole: {found.answers:,} answers{twice}, "
        f"{found.failures:,} failures."
    )


def compact(folder: Path) -> str:
    """Merge the finished shards; returns a sentence with the counts.

    Raises:
        BadInputError: there is no cache in ``folder``.
        RareAlertError: the disk is full; nothing was changed.
    """
    done = _opened(folder).compact()
    before, after = (sum(getattr(item, name) for item in done) for name in ("before", "after"))
    if before == after:
        return "There is nothing to merge."
    dropped = sum(item.dropped for item in done)
    return (
        f"{before:,} shards became {after:,}, {dropped:,} repeated answers were dropped. "
        "Next: dvc commit teach."
    )


def export(folder: Path, out: Path) -> str:
    """Write every answer with its provenance as JSON Lines to ``out``; returns a sentence.

    The file holds neither the case's text nor the model's raw response, which may quote it.

    Raises:
        BadInputError: there is no cache in ``folder``, or ``out`` can't be written.
        RareAlertError: the disk is full; ``out`` is unchanged.
    """
    cache = _opened(folder)
    if not out.parent.is_dir() or out.is_dir():
        raise BadInputError(f"{out} can't be written: name a file in an existing folder.")
    count = 0
    try:
        with (
            disk_full(out.parent),
            whole(out) as partial,
            partial.open("w", encoding="utf-8") as to,
        ):
            for row in cache.export():
                to.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
                count += 1
    except PermissionError as error:
        raise BadInputError(f"{out} can't be written: name a file in your own folder.") from error
    return f"{count:,} answers in {out}."


def _opened(folder: Path) -> RationaleCache:
    if not folder.is_dir():
        raise BadInputError(f"{folder} is missing. Run rarealert teach or dvc pull first.")
    return RationaleCache(folder)
