"""What a split must respect beside whole groups: a held-out source or head, or a cut by date.

A rule says which parts a group may go to, and which of its cases then fit: a case of a tested
disease that is not part of the question is set aside rather than trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

from rarealert.cases.case import LabelledCase
from rarealert.cases.leakage import SET_ASIDE
from rarealert.cases.splits import PARTS, Shares, assign
from rarealert.errors import BadInputError

_TEST: tuple[str, ...] = ("test",)
_LEARN: tuple[str, ...] = ("train", "valid")


class Rule(Protocol):
    """Where a group may go, and who of it may stay there."""

    def parts(self, group: Sequence[LabelledCase]) -> tuple[str, ...]:
        """The parts that ``group`` may go to."""

    def fits(self, group: Sequence[LabelledCase], part: str) -> list[bool]:
        """Whether each case of ``group`` may stay in ``part``; the others are set aside."""


@dataclass(frozen=True)
class HeldOutSource:
    """Leave one source out: it is the test part, and no case tied to it is learnt from."""

    source: str

    def _held(self, item: LabelledCase) -> bool:
        return item.case.source == self.source

    def parts(self, group: Sequence[LabelledCase]) -> tuple[str, ...]:
        """The test part for a group that holds a case of the source."""
        return _TEST if any(map(self._held, group)) else _LEARN

    def fits(self, group: Sequence[LabelledCase], part: str) -> list[bool]:
        """In the test part, the source alone."""
        return [part != "test" or self._held(item) for item in group]


@dataclass(frozen=True)
class HeldOutHead:
    """Leave one Orphanet head out: its rare cases are tested against unseen non-rare ones.

    Non-rare cases of a source without this head stay out of the test part, where they would
    tell source, not disease. ``sources`` are those that hold rare cases of ``head``.
    """

    head: str
    sources: frozenset[str]

    def _held(self, item: LabelledCase) -> bool:
        return item.label.orphanet_head == self.head

    def parts(self, group: Sequence[LabelledCase]) -> tuple[str, ...]:
        """The test part for the head, any for non-rare cases of its sources, else learning."""
        if any(map(self._held, group)):
            return _TEST
        of_sources = all(item.case.source in self.sources for item in group)
        nonrare = all(item.label.label == "nonrare" for item in group)
        return PARTS if of_sources and nonrare else _LEARN

    def fits(self, group: Sequence[LabelledCase], part: str) -> list[bool]:
        """A group tested for the head keeps the head's cases only."""
        held = [self._held(item) for item in group]
        return held if part == "test" and any(held) else [True] * len(group)


@dataclass(frozen=True)
class CutByDate:
    """Learn from visits before a day and test on those from it on; ``cuts`` has one per source.

    Whole diseases stay together, so a disease seen on both sides of the cut loses the visits on
    the wrong side of it. Undated visits, and sources without a cut, are free; without any cut
    every group may go anywhere.
    """

    cuts: Mapping[str, date]

    def _late(self, item: LabelledCase) -> bool | None:
        cut, day = self.cuts.get(item.case.source), item.case.visit_date
        return None if cut is None or day is None else day >= cut

    def parts(self, group: Sequence[LabelledCase]) -> tuple[str, ...]:
        """Test for a group of late visits, learning for one of early visits, else any."""
        sides = {side for item in group if (side := self._late(item)) is not None}
        if len(sides) != 1:
            return PARTS
        return _TEST if sides == {True} else _LEARN

    def fits(self, group: Sequence[LabelledCase], part: str) -> list[bool]:
        """Late visits in the test part, early ones in the others."""
        return [self._late(item) in (None, part == "test") for item in group]


def rule_for(
    cases: Sequence[LabelledCase],
    hold_out: str | None,
    test_from: date | Literal["auto"] | None,
    test_share: float,
) -> Rule:
    """The rule that ``split.hold_out`` or else ``split.test_from`` asks for.

    Raises:
        BadInputError: no case has the source or head that should be held out, or it is the only
            source.
    """
    if hold_out is not None:
        return _held_out(cases, hold_out)
    return CutByDate(date_cuts(cases, test_from, test_share))


def _held_out(cases: Sequence[LabelledCase], hold_out: str) -> Rule:
    kind, _, name = hold_out.partition(":")
    if kind == "source":
        known = sorted({item.case.source for item in cases})
        if name in known and len(known) > 1:
            return HeldOutSource(name)
        more = "" if len(known) > 1 else "; one alone can't be held out"
    else:
        rare = [item for item in cases if item.label.orphanet_head is not None]
        known = sorted({item.label.orphanet_head or "" for item in rare})
        sources = {item.case.source for item in rare if item.label.orphanet_head == name}
        if sources:
            return HeldOutHead(name, frozenset(sources))
        more = "" if known else "; these cases name no head (see rarealert data import orphanet)"
    raise BadInputError(
        f"split.hold_out is {hold_out}, but the cases have the {kind}s "
        f"{', '.join(known) or 'none'}{more}. Mend split.hold_out in params.yaml."
    )


def date_cuts(
    cases: Sequence[LabelledCase], test_from: date | Literal["auto"] | None, test_share: float
) -> dict[str, date]:
    """The first day of the test part by source.

    A day holds for every source with dates; ``auto`` takes, in each source that dates all of its
    visits, the day from which ``test_share`` of them are left. A source of one day has no cut.
    """
    days: dict[str, list[date]] = {}
    undated: set[str] = set()
    for item in cases:
        if item.case.visit_date is None:
            undated.add(item.case.source)
        else:
            days.setdefault(item.case.source, []).append(item.case.visit_date)
    cuts: dict[str, date] = {}
    for source, seen in sorted(days.items()):
        if test_from == "auto" and source not in undated:
            cut = sorted(seen)[int((1 - test_share) * len(seen))]
            if cut > min(seen):
                cuts[source] = cut
        elif isinstance(test_from, date):
            cuts[source] = test_from
    return cuts


def assign_by_rule(
    cases: Sequence[LabelledCase],
    groups: Sequence[Sequence[int]],
    shares: Shares,
    seed: int,
    rule: Rule,
) -> list[str]:
    """The part of each case under ``rule``; ``SET_ASIDE`` where no part may hold it."""
    members = [[cases[position] for position in group] for group in groups]
    parts = assign(cases, groups, shares, seed, [rule.parts(group) for group in members])
    for group, items in zip(groups, members, strict=True):
        for position, fits in zip(group, rule.fits(items, parts[group[0]]), strict=True):
            if not fits:
                parts[position] = SET_ASIDE
    return parts
