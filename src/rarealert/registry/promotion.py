"""Moving the alias ``champion``: logged, moved, tested, and undone if the test fails."""

import getpass
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rarealert.errors import RareAlertError
from rarealert.registry.ledger import BrokenLedgerError, Entry, OutrunError, append, read_ledger
from rarealert.registry.versions import CHAMPION, PREVIOUS, aliased
from rarealert.tracking.backup import back_up

_UNDO = "undo"

SmokeTest = Callable[[str, str], None]
"""Takes a model's name and an alias; raises where the version that it points at does not work."""


@dataclass(frozen=True)
class Decision:
    """The decision that ``version`` of ``name`` follows the champion ``expected`` (or ``None``).

    ``commit`` and ``evidence`` (digest of the judgement) are its basis, ``reason`` is for the log.
    """

    name: str
    version: str
    expected: str | None
    commit: str
    evidence: str
    reason: str = ""


def smoke_test(name: str, alias: str) -> None:
    """Load the version that ``alias`` points at and score the visit it was registered with.

    Raises:
        RareAlertError: it can't be loaded, or returns a risk outside 0-1.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.pyfunc.load_model(f"models:/{name}@{alias}")
        risks = [float(risk) for risk in model.predict(model.input_example)["risk"]]
    except (MlflowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RareAlertError(_broken(name, error)) from error
    if not risks or not all(math.isfinite(risk) and 0 <= risk <= 1 for risk in risks):
        raise RareAlertError(f"{name}@{alias} returns a risk outside 0-1; register it again.")


def promote(decision: Decision, smoke: SmokeTest = smoke_test) -> bool:
    """Point ``champion`` at the version and ``previous`` at the one before; whether it moved.

    If a process is killed between the entry and the move, the next command moves the alias.
    Where the version is champion already nothing is written.

    Raises:
        RareAlertError: the log is broken, the champion is no longer the one that the decision
            was made against, or the version fails the smoke test; then nothing has changed.
    """
    chain = settle(decision.name)
    champion, _ = standing(chain)
    if champion == decision.version:
        return False
    if champion != (decision.expected or ""):
        raise OutrunError(
            f"The champion of {decision.name} became version {champion or 'none'} meanwhile; "
            "judge the challenger against it: run dvc repro -f register."
        )
    _move(chain, _entry("promote", decision, champion), smoke)
    return True


def rollback(name: str, commit: str, reason: str, smoke: SmokeTest = smoke_test) -> Entry:
    """Exchange ``champion`` and ``previous``; return the entry written.

    Raises:
        RareAlertError: there is no previous version, the log is broken, or the former champion
            fails the smoke test; then nothing has changed.
    """
    chain = settle(name)
    champion, target = standing(chain)
    if not target:
        raise RareAlertError(f"{name} has no previous version to go back to.")
    evidence = [entry.evidence for entry in chain if entry.version == target][-1]
    decision = Decision(name, target, champion, commit, evidence, reason)
    entry = _entry("rollback", decision, champion)
    _move(chain, entry, smoke)
    return entry


def settle(name: str) -> tuple[Entry, ...]:
    """Return the moves of ``name`` after completing one that was logged but not made.

    Raises:
        BrokenLedgerError: the chain is broken, or the alias was moved without an entry.
    """
    chain = read_ledger(name)
    held = aliased(name, CHAMPION)
    actual = str(held.version) if held else ""
    champion, _ = standing(chain)
    if actual == champion:
        return chain
    if not chain or actual != chain[-1].previous:
        raise BrokenLedgerError(
            f"The champion of {name} is version {actual or 'none'}, but {champion or 'none'} in "
            "the log: it was moved by hand. Point the alias back and use rarealert promote."
        )
    point(name, chain)
    return chain


def standing(chain: Sequence[Entry]) -> tuple[str, str]:
    """Return champion and previous after these moves; empty for none."""
    past = [("", "")]
    for entry in chain:
        champion, _ = past[-1]
        past.append(past[-2] if entry.action == _UNDO else (entry.version, champion))
    return past[-1]


def _move(chain: tuple[Entry, ...], entry: Entry, smoke: SmokeTest) -> None:
    written = append(entry, chain)
    point(entry.name, written)
    try:
        smoke(entry.name, CHAMPION)
    except BaseException as error:  # whatever it was, this version has not been seen to work
        undo = replace(
            entry,
            action=_UNDO,
            version=entry.previous,
            previous=entry.version,
            when=_now(),
            reason=f"version {entry.version} failed its smoke test",
        )
        point(entry.name, append(undo, written))
        if not isinstance(error, Exception):
            raise
        known = isinstance(error, RareAlertError)
        raise RareAlertError(
            f"{error if known else _broken(entry.name, error)} The champion is version "
            f"{entry.previous or 'none'} as before."
        ) from error


def _broken(name: str, error: Exception) -> str:
    return f"{name}@{CHAMPION} does not work ({type(error).__name__}); register it again."


def point(name: str, chain: tuple[Entry, ...]) -> None:
    """Set the aliases to what the log says, repeated if an entry was added meanwhile."""
    import mlflow

    client = mlflow.MlflowClient()
    while True:
        for alias, version in zip((CHAMPION, PREVIOUS), standing(chain), strict=True):
            if version:
                client.set_registered_model_alias(name, alias, version)
            else:
                client.delete_registered_model_alias(name, alias)
        now = read_ledger(name)
        if now == chain:
            break
        chain = now
    back_up(mlflow.get_tracking_uri())


def _entry(action: str, decision: Decision, previous: str) -> Entry:
    return Entry(
        action=action,
        name=decision.name,
        version=decision.version,
        previous=previous,
        who=getpass.getuser(),
        when=_now(),
        commit=decision.commit,
        evidence=decision.evidence,
        reason=decision.reason,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
