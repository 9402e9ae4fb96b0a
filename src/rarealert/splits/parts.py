"""Train, valid and test: whole groups of cases, each part with its share of every stratum.

A pre-registered split: a CSV of case id and part, honoured as it stands.

What a split must respect beside whole groups: a held-out source or head, or a cut by date.

A rule says which parts a group may go to, and which of its cases then fit: a case of a tested
disease that is not part of the question is set aside rather than trained on.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, Protocol

from rarealert.errors import BadInputError
from rarealert.splits.leakage import SET_ASIDE
from rarealert.visits.case import LabelledCase

PARTS = ("train", "valid", "test")
MIN_HEAD = 10  # rare cases of a source; a smaller head can't be shared out and is pooled
Stratum = tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """The share of cases that each part should hold; what valid and test leave is train."""

    valid: float
    test: float

    def by_part(self) -> dict[str, float]:
        """Shares in the order of ``PARTS``.

        Raises:
            BadInputError: nothing is left for train, or a part would be empty.
        """
        shares = {"train": 1 - self.valid - self.test, "valid": self.valid, "test": self.test}
        if min(shares.values()) <= 0:
            raise BadInputError(
                "split.valid_share and split.test_share must be above 0 and sum to less than 1; "
                "mend them in params.yaml."
            )
        return shares


def strata(cases: Sequence[LabelledCase]) -> list[tuple[Stratum, Stratum]]:
    """What each part should hold its share of, per case: source and label; the same and head.

    Heads with fewer than ``MIN_HEAD`` rare cases in a source are pooled there.
    """
    heads = Counter((item.case.source, item.label.orphanet_head) for item in cases)
    found: list[tuple[Stratum, Stratum]] = []
    for item in cases:
        source, head = item.case.source, item.label.orphanet_head
        if head is not None and heads[source, head] < MIN_HEAD:
            head = "other heads"
        wide = (source, item.label.label)
        found.append((wide, (*wide, head or "no head")))
    return found


def assign(
    cases: Sequence[LabelledCase],
    groups: Sequence[Sequence[int]],
    shares: Shares,
    seed: int,
    allowed: Sequence[Sequence[str]] | None = None,
) -> list[str]:
    """The part of each case, in the order of ``cases``.

    Greedy stratified group assignment after Sechidis et al. 2011 ("On the stratification of
    multi-label data"): groups without a choice first, then large ones, each to the part that
    lacks the largest share of its strata. ``allowed`` names the parts that each group may go to;
    without it, any. Ties and the order of equal groups come from ``seed`` and the case ids, so
    the result does not depend on the order of rows. Linear in the cases but for sorting groups.
    """
    wanted = shares.by_part()
    keys = strata(cases)
    needs = _Needs(keys, wanted)
    parts = [""] * len(cases)
    choices = allowed or [PARTS] * len(groups)
    for draw, group, choice in _ordered(cases, groups, choices, seed):
        counts = Counter(key for position in group for key in keys[position])
        part = choice[0] if len(choice) == 1 else needs.neediest(counts, choice, draw)
        needs.held[part].update(counts)
        for position in group:
            parts[position] = part
    return parts


def _ordered(
    cases: Sequence[LabelledCase],
    groups: Sequence[Sequence[int]],
    allowed: Sequence[Sequence[str]],
    seed: int,
) -> list[tuple[float, Sequence[int], Sequence[str]]]:
    """Groups without a choice, then the largest first, each with its draw in [0, 1)."""
    drawn = [
        (_draw(seed, min(cases[position].case.case_id for position in group)), group, choice)
        for group, choice in zip(groups, allowed, strict=True)
    ]
    return sorted(drawn, key=lambda item: (len(item[2]) > 1, -len(item[1]), item[0]))


def _draw(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class _Needs:
    """What each part holds of each stratum, and which part lacks most."""

    def __init__(
        self, keys: Sequence[tuple[Stratum, Stratum]], shares: Mapping[str, float]
    ) -> None:
        self._shares = shares
        self._totals = Counter(key for pair in keys for key in pair)
        self.held: dict[str, Counter[Stratum]] = {part: Counter() for part in PARTS}
        heads = Counter(wide for wide, _ in set(keys))
        # a case too many weighs the same in a source and label as in one of its heads
        self._weights = {key: heads.get(key, 1) for key in self._totals}

    def neediest(self, counts: Mapping[Stratum, int], choice: Sequence[str], draw: float) -> str:
        """The part of ``choice`` that lacks the largest share of ``counts``; ``draw`` breaks ties.

        Half of the group is counted as held: a large group weighs more in a small part.
        """
        needs = {part: round(self._need(counts, part), 9) for part in choice}
        most = max(needs.values())
        tied = [part for part in choice if needs[part] == most]
        edge, total = 0.0, sum(self._shares[part] for part in tied)
        for part in tied:
            edge += self._shares[part] / total
            if draw < edge:
                return part
        return tied[-1]

    def _need(self, counts: Mapping[Stratum, int], part: str) -> float:
        need = 0.0
        for key, count in counts.items():
            target = self._shares[part] * self._totals[key]
            lacking = target - self.held[part][key] - count / 2
            need += self._weights[key] * count * lacking / target
        return need


def check_labels(
    cases: Sequence[LabelledCase], parts: Sequence[str], *, everywhere: bool = True
) -> None:
    """Refuse a split in which a source has only one label in some part.

    Without ``everywhere`` a source may be absent from a part, as when it is held out.

    Raises:
        BadInputError: which source, part and label, and what to do.
    """
    seen = {
        (item.case.source, part, item.label.label) for item, part in zip(cases, parts, strict=True)
    }
    present = {(source, part) for source, part, _ in seen}
    for part in PARTS:
        if part not in parts:
            raise BadInputError(
                f"The split leaves no case for the {part} part; mend split in params.yaml."
            )
    for source in sorted({item.case.source for item in cases}):
        for part in PARTS:
            for label in ("rare", "nonrare"):
                asked = everywhere or (source, part) in present
                if asked and (source, part, label) not in seen:
                    raise BadInputError(
                        f"Source {source} has no {label} case in the {part} part, so its results "
                        "would measure style, not medicine; add cases of more diseases to it, "
                        "take it out of ingest.sources, or raise the part's share in params.yaml."
                    )


def lock_digest(case_ids: Iterable[str]) -> str:
    """Sha256 of the sorted case ids, one a line."""
    text = "".join(f"{case_id}\n" for case_id in sorted(case_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def check_lock(digest: str, named: str | None, before: str | None = None) -> None:
    """Refuse a test part other than the locked one.

    ``named`` is the digest that ``split.test_lock`` asks for; without it, ``before``, the digest
    that an earlier run locked for this corpus, must hold.

    Raises:
        BadInputError: the digests differ; the sentence says what to set.
    """
    locked = named or before
    if locked is not None and locked != digest:
        where = "split.test_lock in params.yaml" if named else "the one in reports/split/lock.json"
        raise BadInputError(
            f"The test part has changed: its digest is {digest}, but {where} is {locked}. Restore "
            f"the data and the split's parameters, or set split.test_lock to {digest} to accept a "
            "test part that earlier results can't be compared with."
        )


def counts_by_part(
    cases: Sequence[LabelledCase], parts: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Cases by part, source and label; parts in the order of ``PARTS``, then what is set aside."""
    table: dict[str, dict[str, dict[str, int]]] = {part: {} for part in PARTS}
    for item, part in zip(cases, parts, strict=True):
        labels = table.setdefault(part, {}).setdefault(item.case.source, {})
        labels[item.label.label] = labels.get(item.label.label, 0) + 1
    return table


_COLUMNS = ("case_id", "part")


@dataclass(frozen=True)
class RegisteredSplit:
    """The part of each case, in the order asked for; ``absent`` rows name cases we don't have."""

    parts: list[str]
    sha256: str
    absent: int


def read_registered(path: Path, case_ids: Sequence[str]) -> RegisteredSplit:
    """The parts that ``path`` gives to ``case_ids``; a row of an unknown case is counted.

    Such rows are no error: a case may have been registered and then been refused at ingest.

    Raises:
        BadInputError: the file is missing or no such CSV, a part is unknown, a case has two rows
            or none.
    """
    content = _content(path)
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            raise BadInputError(f"{path} has no column {lacking[0]}; give case_id,part.")
        part_of = _parts(path, rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} is no CSV in UTF-8; save it as such.") from error
    missing = [case_id for case_id in case_ids if case_id not in part_of]
    if missing:
        raise BadInputError(
            f"{path} gives no part to {len(missing)} of {len(case_ids)} cases, among them "
            f"{min(missing)}; add a row for each."
        )
    return RegisteredSplit(
        parts=[part_of[case_id] for case_id in case_ids],
        sha256=hashlib.sha256(content).hexdigest(),
        absent=len(part_of.keys() - set(case_ids)),
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}, which split.assign names, can't be read; put the CSV there."
        ) from error


def _parts(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    part_of: dict[str, str] = {}
    for row in rows:
        case_id, part = (row["case_id"] or "").strip(), (row["part"] or "").strip()
        where = f"{path}, line {rows.line_num}"
        if part not in PARTS:
            raise BadInputError(f"{where}: part must be one of {', '.join(PARTS)}; mend the row.")
        if not case_id:
            raise BadInputError(f"{where}: case_id is empty; mend the row.")
        if case_id in part_of:
            raise BadInputError(f"{where}: case {case_id[:200]} has two rows; keep one.")
        part_of[case_id] = part
    return part_of


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
