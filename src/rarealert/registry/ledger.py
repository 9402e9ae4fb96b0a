"""The append-only log of promotions: a chain of hashes inside the registry itself.

Each entry is a version of the registered model ``<name>.log``. Every store numbers versions one by
one, also for concurrent writers, and an entry names the hash of the one before. Of two entries
that follow the same one, the first counts and the second is void; so one of two concurrent
promotions wins, on SQLite and on a server alike (docs/decisions/0018). Changing, removing or
inserting an entry breaks the chain.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from rarealert.errors import RareAlertError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SUFFIX = ".log"
_GENESIS = "0" * 64
_TAG = "entry."
_PURPOSE = (
    "Append-only, hash-chained log of who moved which alias when, on which evidence. Not a model: "
    "read it with `rarealert log`."
)


class BrokenLedgerError(RareAlertError):
    """An entry was changed, removed or inserted, or an alias was moved without one."""


class OutrunError(RareAlertError):
    """Another move came first."""


@dataclass(frozen=True)
class Entry:
    """One move of ``champion`` to ``version``; empty strings mean no champion.

    ``when`` is UTC in ISO 8601, ``evidence`` the digest of the judgement, ``before`` the hash of
    the entry before.
    """

    action: str
    name: str
    version: str
    previous: str
    who: str
    when: str
    commit: str
    evidence: str
    reason: str
    before: str = _GENESIS

    @property
    def hash(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_ledger(name: str) -> tuple[Entry, ...]:
    """Return the valid moves of the model ``name``, oldest first.

    Raises:
        BrokenLedgerError: the chain is broken; the sentence names the entry.
    """
    import mlflow

    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}{SUFFIX}'")
    ordered = sorted(found, key=lambda version: int(version.version))
    chain: list[Entry] = []
    known = {_GENESIS}
    for version in ordered:
        entry = _parse(version)
        if entry is None or entry.name != name or entry.before not in known:
            raise BrokenLedgerError(
                f"Entry {version.version} of {name}{SUFFIX} was changed, or one before it is gone; "
                "restore the registry's database from a backup before moving anything."
            )
        if entry.before == (chain[-1].hash if chain else _GENESIS):
            chain.append(entry)
            known.add(entry.hash)
    return tuple(chain)


def append(entry: Entry, after: Sequence[Entry]) -> tuple[Entry, ...]:
    """Write ``entry`` behind the moves ``after``; return all moves.

    Raises:
        OutrunError: another move was written first; the alias must not be moved.
        BrokenLedgerError: the chain is broken.
    """
    written = Entry(**{**asdict(entry), "before": after[-1].hash if after else _GENESIS})
    _write(written)
    now = read_ledger(entry.name)
    if written not in now:
        first = now[-1]
        raise OutrunError(
            f"{first.who} moved the champion of {entry.name} to version {first.version or 'none'} "
            "meanwhile; compare with it and decide again."
        )
    return now


def _write(written: Entry) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    log = f"{written.name}{SUFFIX}"
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(log, description=_PURPOSE)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {f"{_TAG}{key}": value for key, value in asdict(written).items()}
    tags[f"{_TAG}hash"] = written.hash
    source = f"models:/{written.name}/{written.version or written.previous}"
    client.create_model_version(log, source, tags=tags, description=_sentence(written))


def _sentence(entry: Entry) -> str:
    move = f"champion {entry.previous or 'none'} to {entry.version or 'none'}"
    return f"{entry.who} at {entry.when}: {entry.action}, {move}. {entry.reason}".strip()


def _parse(version: "ModelVersion") -> Entry | None:
    held = {key.removeprefix(_TAG): value for key, value in version.tags.items()}
    try:
        # a registry drops tags without a value
        entry = Entry(**{field.name: held.get(field.name, "") for field in fields(Entry)})
    except TypeError:
        return None
    return entry if held.get("hash") == entry.hash else None
