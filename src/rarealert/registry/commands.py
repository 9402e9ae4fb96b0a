"""What a reviewer asks of the registry: ``gates list``, ``promote``, ``rollback`` and ``log``.

Each returns what the command prints.
"""

import textwrap

from rarealert.errors import RareAlertError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.registry.gates.approval import APPROVAL_GATES, approve, read_judgement
from rarealert.registry.gates.catalogue import gates, limits
from rarealert.registry.ledger import Entry, read_ledger
from rarealert.registry.promotion import Decision, promote, rollback, settle
from rarealert.registry.versions import CHALLENGER, aliased
from rarealert.tracking.lineage import git_commit
from rarealert.tracking.sink import connect

_WIDTH = 96


def list_gates() -> str:
    """Every gate: code, title, threshold with its key in ``params.yaml``, and what it asks."""
    params = load_params(Paths.here().params)
    lines = ["Asked when dvc repro registers a version:"]
    for gate in gates(params.register_, params.evaluate):
        lines += _explained(gate.code, gate.title, gate.param, gate.__doc__ or "")
        if gate.param is not None:
            lines.append(f"       register.{gate.param}: {getattr(params.register_, gate.param)}")
    lines.append("Asked again at the door, at every promotion:")
    for door in APPROVAL_GATES:
        lines += _explained(door.code, door.title, door.param, door.__doc__ or "")
    return "\n".join(lines)


def _explained(code: str, title: str, param: str | None, doc: str) -> list[str]:
    first = " ".join(doc.split("\n\n")[0].split())
    said = textwrap.wrap(first, _WIDTH, initial_indent="       ", subsequent_indent="       ")
    return [f"{code}  {title}", *said] + ([] if param else ["       no fault is allowed"])


def promote_version(which: str = CHALLENGER, reason: str = "") -> str:
    """Promote a version, by number or alias, that every gate has let pass.

    Raises:
        RareAlertError: a gate refuses it, another promotion came first, or it fails its smoke
            test; the sentence says which.
    """
    paths, name = _connected()
    version = _resolve(name, which)
    params = load_params(paths.params)
    asked = limits(params.register_, gates(params.register_, params.evaluate))
    refused = [result for result in approve(name, version, asked) if not result.passed]
    if refused:
        said = " ".join(f"{result.code}: {result.reason}" for result in refused)
        raise RareAlertError(f"Version {version} of {name} is refused. {said}")
    judgement = read_judgement(name, version)
    decision = Decision(
        name=name,
        version=version,
        expected=judgement["champion"],
        commit=git_commit(paths.root),
        evidence=str(judgement["evidence"]),
        reason=reason,
    )
    if not promote(decision):
        return f"{name} version {version} is champion already"
    return f"{name} version {version} is champion now; rarealert rollback goes back"


def roll_back(reason: str = "") -> str:
    """Make the previous champion champion again.

    Raises:
        RareAlertError: there is none, the log is broken, or it fails its smoke test.
    """
    paths, name = _connected()
    entry = rollback(name, git_commit(paths.root), reason)
    return f"{name} version {entry.version} is champion again; {entry.previous} is previous"


def show_log() -> str:
    """Who moved what, when and on which evidence, oldest first, once the chain was checked."""
    _, name = _connected()
    entries = read_ledger(name)
    if not entries:
        return f"Nothing was promoted yet; {name}.log is empty."
    settle(name)
    return "\n".join([_line(entry) for entry in entries] + ["The chain is whole."])


def _line(entry: Entry) -> str:
    said = f"{entry.when}  {entry.who:<10} {entry.action:<8}"
    said += f" {entry.previous or 'none':>4} -> {entry.version or 'none':<4}"
    said += f" commit {entry.commit[:10]} evidence {entry.evidence[:12]}"
    return f"{said}  {entry.reason}".rstrip()


def _connected() -> tuple[Paths, str]:
    paths = Paths.here()
    connect(paths.tracking_uri)
    return paths, load_params(paths.params).register_.model_name


def _resolve(name: str, which: str) -> str:
    if which.isdecimal():
        return str(int(which))  # as MLflow stores it: the log would name no version by "01"
    held = aliased(name, which)
    if held is None:
        raise RareAlertError(f"No version of {name} is called {which!r}; see the MLflow UI.")
    return str(held.version)
