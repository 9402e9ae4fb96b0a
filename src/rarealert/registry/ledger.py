"""The append-only log of moves: a chain of hashes that lives in the registry itself.

Each entry is a version of the registered model ``<name>.log``. The registry numbers versions
one by one, whatever the store, the machine and the number of people moving at once, and an entry
names the hash of the one it follows. Of two entries that follow the same one, the first counts
and the second is void: that is how two promotions at once are told apart, by SQLite and by a
server alike (docs/decisions/0018). Changing, removing or putting in an entry breaks the chain.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rarealert.errors import RareAlertError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SUFFIX = ".log"
_GENESIS = "0" * 64
_TAG = "entry."
_SQLITE = "sqlite:///"
_PURPOSE = (
    "Append-only, hash-chained log of who moved which alias when, on which evidence. Not a model: "
    "read it with `rarealert log`."
)


class BrokenLedgerError(RareAlertError):
    """An entry was changed, left out or put in, or an alias was moved without one."""


class OutrunError(RareAlertError):
    """Somebody else's move came first."""


@dataclass(frozen=True)
class Entry:
    """One move. Empty strings stand for nobody: no champion before, or none after.

    ``when`` is UTC in ISO 8601, ``evidence`` the sha256 of the judgement, ``before`` the hash of
    the entry that this one follows.
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
        """Sha256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_ledger(name: str) -> tuple[Entry, ...]:
    """The moves of the model ``name`` that count, oldest first.

    Raises:
        BrokenLedgerError: the chain does not hold; the sentence names the entry.
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
    """Write ``entry`` behind the moves ``after``, as they were read; the moves with it.

    Raises:
        OutrunError: another move was written first; nothing is to be moved.
        BrokenLedgerError: the chain does not hold.
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
    _keep_copy(entry.name, now)
    return now


def read_copy(name: str) -> tuple[Entry, ...]:
    """The moves as the file beside a SQLite store holds them; empty where there is none.

    Raises:
        BrokenLedgerError: the file was changed: its entries are no chain.
    """
    file = _copy_of(name)
    if file is None or not file.is_file():
        return ()
    before, chain = _GENESIS, []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            held = json.loads(line)
            noted = held.pop("hash")
            entry = Entry(**held)
        except (AttributeError, KeyError, TypeError, ValueError):
            entry, noted = None, ""
        if entry is None or (entry.name, entry.before, entry.hash) != (name, before, noted):
            raise BrokenLedgerError(
                f"{file.name} beside the store is no chain of moves; promote by hand, or restore "
                "it from a backup."
            )
        chain.append(entry)
        before = entry.hash
    return tuple(chain)


def write_back(chain: Sequence[Entry]) -> None:
    """Put the moves of a lost log into the registry again, as they were."""
    for entry in chain:
        _write(entry)


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


def _keep_copy(name: str, chain: Sequence[Entry]) -> None:
    """Lay the moves beside a SQLite store, whose loss would take them along."""
    file = _copy_of(name)
    if file is None:
        return
    # two people may move at once, so each writes a file of their own
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    lines = (json.dumps({**asdict(entry), "hash": entry.hash}, sort_keys=True) for entry in chain)
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(file)


def _copy_of(name: str) -> Path | None:
    """Where the copy of the log lies; a server's database has backups of its own."""
    import mlflow

    uri = mlflow.get_registry_uri()
    store = uri.removeprefix(_SQLITE)
    return None if store == uri else Path(store).parent / f"{name}{SUFFIX}.jsonl"


def _sentence(entry: Entry) -> str:
    said = f"{entry.who} at {entry.when}: {entry.action}, champion {entry.previous or 'none'} to "
    return f"{said}{entry.version or 'none'}. {entry.reason}".strip()


def _parse(version: "ModelVersion") -> Entry | None:
    held = {key.removeprefix(_TAG): value for key, value in version.tags.items()}
    try:
        # a registry drops tags without a value
        entry = Entry(**{field.name: held.get(field.name, "") for field in fields(Entry)})
    except TypeError:
        return None
    return entry if held.get("hash") == entry.hash else None
