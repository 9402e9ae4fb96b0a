"""Moving ``champion``: written down first, then done, then tried out; taken back if it fails."""

import getpass
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rarealert.errors import RareAlertError
from rarealert.registry.ledger import BrokenLedgerError, Entry, OutrunError, append, read_ledger
from rarealert.registry.versions import CHAMPION, PREVIOUS, aliased

_UNDO = "undo"

SmokeTest = Callable[[str, str], None]
"""Takes a model's name and an alias; raises RareAlertError where what it points at fails."""


@dataclass(frozen=True)
class Decision:
    """What is asked for: ``version`` of ``name`` shall follow ``expected`` (``None``: nobody).

    ``commit`` and ``evidence`` (a sha256) say on what the decision rests, ``reason`` why.
    """

    name: str
    version: str
    expected: str | None
    commit: str
    evidence: str
    reason: str = ""


def smoke_test(name: str, alias: str) -> None:
    """Load what ``alias`` points at and let it answer the visit it was registered with.

    Raises:
        RareAlertError: it can't be loaded, or its answer is no risk in 0-1.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.pyfunc.load_model(f"models:/{name}@{alias}")
        risks = [float(risk) for risk in model.predict(model.input_example)["risk"]]
    except (MlflowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RareAlertError(
            f"{name}@{alias} does not answer ({type(error).__name__}); register it again."
        ) from error
    if not risks or not all(math.isfinite(risk) and 0 <= risk <= 1 for risk in risks):
        raise RareAlertError(f"{name}@{alias} answers with something that is no risk in 0-1.")


def promote(decision: Decision, smoke: SmokeTest = smoke_test) -> bool:
    """Point ``champion`` at the version and ``previous`` at the one before; whether it moved.

    A process killed after the entry and before the move leaves the move to the next command.
    Where the version is champion already nothing is written.

    Raises:
        RareAlertError: the log is broken, the champion is no longer the one that the decision
            was made against, or the version fails the smoke test and was taken back.
    """
    chain = settle(decision.name)
    holder, _ = standing(chain)
    if holder == decision.version:
        return False
    if holder != (decision.expected or ""):
        raise OutrunError(
            f"The champion of {decision.name} became version {holder or 'none'} meanwhile; "
            "judge the challenger against it: run dvc repro -f register."
        )
    entry = _entry("promote", decision, decision.version, holder)
    _move(chain, entry, smoke)
    return True


def rollback(name: str, commit: str, reason: str, smoke: SmokeTest = smoke_test) -> Entry:
    """Make ``previous`` champion again, and the champion ``previous``; the entry written.

    Raises:
        RareAlertError: there is nothing to go back to, the log is broken, or the former
            champion fails the smoke test; then nothing has moved in the end.
    """
    chain = settle(name)
    holder, target = standing(chain)
    if not target:
        raise RareAlertError(f"{name} has no previous version to go back to.")
    promoted = [entry for entry in chain if entry.version == target]
    evidence = promoted[-1].evidence
    decision = Decision(name, target, holder, commit, evidence, reason)
    entry = _entry("rollback", decision, target, holder)
    _move(chain, entry, smoke)
    return entry


def settle(name: str) -> tuple[Entry, ...]:
    """The moves of ``name``, after a move that was written down but not made has been made.

    Raises:
        BrokenLedgerError: the chain does not hold, or somebody moved the alias without an entry.
    """
    chain = read_ledger(name)
    held = aliased(name, CHAMPION)
    actual = str(held.version) if held else ""
    holder, _ = standing(chain)
    if actual == holder:
        return chain
    if not chain or actual != chain[-1].previous:
        raise BrokenLedgerError(
            f"The champion of {name} is version {actual or 'none'}, the log says "
            f"{holder or 'none'}: it was moved by hand. Point the alias back and promote "
            "with rarealert promote."
        )
    point(name, chain)
    return chain


def standing(chain: Sequence[Entry]) -> tuple[str, str]:
    """Champion and previous after these moves; empty for none."""
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
    except BaseException as error:  # whatever it was: nobody has seen this version answer
        why = f"version {entry.version} failed its smoke test"
        back = replace(entry, action=_UNDO, version=entry.previous, previous=entry.version)
        point(entry.name, append(replace(back, when=_now(), reason=why), written))
        if not isinstance(error, Exception):
            raise
        said = str(error) if isinstance(error, RareAlertError) else _silent(entry.name, error)
        raise RareAlertError(
            f"{said} The champion is version {entry.previous or 'none'} as before."
        ) from error


def _silent(name: str, error: Exception) -> str:
    return f"{name}@{CHAMPION} does not answer ({type(error).__name__}); register it again."


def point(name: str, chain: tuple[Entry, ...]) -> None:
    """Make the aliases say what the log says, also where a later entry comes meanwhile."""
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
            return
        chain = now


def _entry(action: str, decision: Decision, version: str, previous: str) -> Entry:
    return Entry(
        action=action,
        name=decision.name,
        version=version,
        previous=previous,
        who=getpass.getuser(),
        when=_now(),
        commit=decision.commit,
        evidence=decision.evidence,
        reason=decision.reason,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
