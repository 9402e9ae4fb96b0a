"""Moving ``champion``: one at a time, written down before it is done, in a chain of hashes."""

import fcntl
import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rarealert.errors import RareAlertError
from rarealert.registry.versions import CHAMPION, PREVIOUS, aliased

_GENESIS = "0" * 64


@dataclass(frozen=True)
class Decision:
    """What is asked for: ``version`` of ``name`` shall follow ``expected`` (``None``: nobody).

    ``commit`` and ``evidence`` (a sha256) say on what the decision rests.
    """

    name: str
    version: str
    expected: str | None
    commit: str
    evidence: str


def promote(decision: Decision, log: Path) -> bool:
    """Point ``champion`` at the version and ``previous`` at the one before; whether it moved.

    The log is written first: a process killed in between leaves an entry without a move, which
    the next run repeats, never a move without an entry. Where the version is champion already
    nothing is written.

    Raises:
        RareAlertError: the log was tampered with, or the champion is no longer the one that
            the decision was made against.
    """
    import mlflow

    with _locked(log):
        current = aliased(decision.name, CHAMPION)
        holder = str(current.version) if current else None
        if holder == decision.version:
            return False
        if holder != decision.expected:
            raise RareAlertError(
                f"The champion of {decision.name} became version {holder} meanwhile; "
                "judge the challenger against it: run dvc repro register -f."
            )
        _append(log, _entry(decision))
        client = mlflow.MlflowClient()
        if holder is not None:
            client.set_registered_model_alias(decision.name, PREVIOUS, holder)
        client.set_registered_model_alias(decision.name, CHAMPION, decision.version)
    return True


def read_log(log: Path) -> list[dict[str, str | None]]:
    """All entries, oldest first.

    Raises:
        RareAlertError: an entry was changed, left out or put in; the sentence names the line.
    """
    if not log.is_file():
        return []
    entries: list[dict[str, str | None]] = []
    before = _GENESIS
    for number, line in enumerate(log.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            sound = entry["before"] == before and entry["hash"] == _hash(entry)
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise RareAlertError(
                f"{log}, line {number}: the chain of promotions is broken; restore the file "
                "from a backup before promoting anything."
            )
        entries.append(entry)
        before = entry["hash"]
    return entries


def _entry(decision: Decision) -> dict[str, str | None]:
    return {
        "action": "promote",
        "name": decision.name,
        "version": decision.version,
        "previous": decision.expected,
        "who": getpass.getuser(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": decision.commit,
        "evidence": decision.evidence,
    }


def _append(log: Path, entry: Mapping[str, str | None]) -> None:
    entries = read_log(log)
    whole = {**entry, "before": entries[-1]["hash"] if entries else _GENESIS}
    line = json.dumps({**whole, "hash": _hash(whole)}, sort_keys=True) + "\n"
    with log.open("a", encoding="utf-8") as stream:
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def _hash(entry: Mapping[str, str | None]) -> str:
    held = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
