"""What a visit tells beside its words: the patient's present findings, and where they stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Finding(NamedTuple):
    """A present finding: its first token's place in the prompt, and the HPO terms that it brings.

    ``terms`` are the finding's own and all that it implies, as numbers (1250 for HP:0001250), in
    ascending order.
    """

    position: int
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """``findings`` in order of mention, each term's own once; age and sex, None where not told.

    ``first`` is the place of the visit's first token in a prompt of ``length`` tokens.
    """

    findings: tuple[Finding, ...] = ()
    age_years: float | None = None
    sex: str | None = None
    first: int = 0
    length: int = 0

    def brought(self) -> Iterator[tuple[int, int]]:
        """Place and number of every term that is brought, at the first finding that brings it."""
        seen: set[int] = set()
        for finding in self.findings:
            for number in finding.terms:
                if number not in seen:
                    yield finding.position, number
            seen.update(finding.terms)
