"""Commands on the registry: ``gates list``, ``promote``, ``rollback`` and ``log``.

Each function returns what its command prints.
"""

import textwrap

from rarealert.errors import RareAlertError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.registry.gates.approval import APPROVAL_GATES, ApprovalGate, approve
from rarealert.registry.gates.catalogue import gates, limits
from rarealert.registry.gates.gate import Gate
from rarealert.registry.ledger import Entry, read_ledger
from rarealert.registry.promotion import Decision, promote, rollback, settle
from rarealert.registry.versions import CHALLENGER, JUDGEMENT, read_artifact, resolve
from rarealert.tracking.lineage import git_commit
from rarealert.tracking.sink import connect

_WIDTH = 96
_INDENT = " " * 7


def list_gates() -> str:
    """Describe every gate: code, title, check, and threshold with its key in ``params.yaml``."""
    params = load_params(Paths.here().params)
    lines = ["Checked when dvc repro registers a version:"]
    for gate in gates(params.register_, params.evaluate):
        lines += _described(gate)
        limit = "no fault is allowed"
        if gate.param is not None:
            limit = f"register.{gate.param}: {getattr(params.register_, gate.param)}"
        lines.append(f"{_INDENT}{limit}")
    lines.append("Checked at every promotion:")
    for gate_of_promotion in APPROVAL_GATES:
        lines += [*_described(gate_of_promotion), f"{_INDENT}no fault is allowed"]
    return "\n".join(lines)


def _described(gate: Gate | ApprovalGate) -> list[str]:
    first = " ".join((gate.__doc__ or "").split("\n\n")[0].split())
    wrapped = textwrap.wrap(first, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return [f"{gate.code}  {gate.title}", *wrapped]


def promote_version(which: str = CHALLENGER, reason: str = "") -> str:
    """Promote a version, given by number or alias, that passes every gate.

    Raises:
        RareAlertError: a gate refuses it, another promotion came first, or it fails its smoke
            test; the sentence says which.
    """
    paths, name = _connected()
    version = resolve(name, which)
    number = str(version.version)
    params = load_params(paths.params)
    required = limits(params.register_, gates(params.register_, params.evaluate))
    refused = [result for result in approve(name, number, required) if not result.passed]
    judgement = read_artifact(version, JUDGEMENT)
    if refused or judgement is None:
        reasons = " ".join(f"{result.code}: {result.reason}" for result in refused)
        raise RareAlertError(f"Version {number} of {name} is refused. {reasons}")
    decision = Decision(
        name=name,
        version=number,
        expected=judgement["champion"],
        commit=git_commit(paths.root),
        evidence=str(judgement["evidence"]),
        reason=reason,
    )
    if not promote(decision):
        return f"{name} version {number} is champion already"
    return f"{name} version {number} is champion now; rarealert rollback goes back"


def roll_back(reason: str = "") -> str:
    """Make the previous champion the champion again.

    Raises:
        RareAlertError: there is none, the log is broken, or it fails its smoke test.
    """
    paths, name = _connected()
    entry = rollback(name, git_commit(paths.root), reason)
    return f"{name} version {entry.version} is champion again; {entry.previous} is previous"


def show_log() -> str:
    """List all moves, oldest first, after checking that their chain is unbroken.

    Raises:
        RareAlertError: the chain is broken.
    """
    _, name = _connected()
    entries = read_ledger(name)
    if not entries:
        return f"Nothing was promoted yet; {name}.log is empty."
    settle(name)
    return "\n".join([_line(entry) for entry in entries] + ["The chain is whole."])


def _line(entry: Entry) -> str:
    move = f"{entry.previous or 'none':>4} -> {entry.version or 'none':<4}"
    basis = f"commit {entry.commit[:10]} evidence {entry.evidence[:12]}"
    line = f"{entry.when}  {entry.who:<10} {entry.action:<8} {move} {basis}  {entry.reason}"
    return line.rstrip()


def _connected() -> tuple[Paths, str]:
    paths = Paths.here()
    connect(paths.tracking_uri)
    return paths, load_params(paths.params).register_.model_name
