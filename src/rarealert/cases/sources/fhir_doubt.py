"""Whose records may stand in a part of a file that is lost.

A visit is the first of its patient, and its label comes of all diagnoses, so a record of which a
part is lost can be wrong where it looks whole.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

DECISIVE = ("Patient", "Encounter", "Condition")
"""The types of which one that is missing changes what the first visit or the label is."""

_TYPE = re.compile(r'"resourceType"\s*:\s*"(\w+)"')
_NAMES = re.compile(r'"(?:reference|fullUrl)"\s*:\s*"([^"]+)"')
_IDS = re.compile(r'"id"\s*:\s*"([^"]+)"')


@dataclass(frozen=True)
class Loss:
    """Ids that a lost part names; ``tail`` where it may name more, being cut off."""

    names: frozenset[str] = frozenset()
    tail: bool = True


def loss_in(text: str, tail: bool, identify: Callable[[object], str | None]) -> Loss | None:
    """What is lost with ``text``; ``None`` if it is one resource that costs nobody's record."""
    types = _TYPE.findall(text)
    if len(types) == 1 and types[0] not in DECISIVE and not tail:
        return None
    named = {identify(name) for name in _NAMES.findall(text)}
    named.update(_IDS.findall(text) if "Patient" in types else ())
    return Loss(frozenset(name for name in named if name), tail)


@dataclass
class Doubts:
    """Follows whose resources stand where, and says whom a loss may concern."""

    _runs: list[tuple[str, str]] = field(default_factory=list)
    _losses: list[tuple[int, str, Loss]] = field(default_factory=list)

    def saw(self, patient: str, file: str) -> None:
        """A resource of ``patient`` in ``file``, in the order in which they are read."""
        if not self._runs or self._runs[-1] != (file, patient):
            self._runs.append((file, patient))

    def lost(self, loss: Loss, file: str) -> None:
        """A part of ``file`` that is lost, behind what was seen last."""
        self._losses.append((len(self._runs), file, loss))

    def patients(self) -> frozenset[str]:
        """Whoever a loss names. Else, and at a cut, its neighbours in the file.

        Where the resources of one patient do not stand together, anybody's may be lost.
        """
        runs = Counter(patient for _, patient in self._runs)
        scattered = any(count > 1 for count in runs.values())
        doubted: set[str] = set()
        for at, file, loss in self._losses:
            named = loss.names & runs.keys()
            doubted |= named
            if named and not loss.tail:
                continue
            if scattered:
                return frozenset(runs)
            beside = self._runs[max(at - 1, 0) : at + 1]
            doubted.update(patient for where, patient in beside if where == file)
        return frozenset(doubted)
