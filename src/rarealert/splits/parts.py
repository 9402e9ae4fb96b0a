"""Train, validation and test parts: whole groups of cases, with equal shares of each stratum.

A split is drawn, drawn under a rule (a held-out source or Orphanet head, a cut by date), or read
from a registered CSV. The test part is locked by the digest of its case ids.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from rarealert.errors import BadInputError
from rarealert.splits.leakage import SET_ASIDE
from rarealert.visits.case import LabelledCase

PARTS = ("train", "valid", "test")
MIN_HEAD = 10  # rare cases of a source; a smaller head can't be shared out and is pooled
Stratum = tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """The share of cases for validation and test, 0 to 1; train gets the rest."""

    valid: float
    test: float

    def by_part(self) -> dict[str, float]:
        """Shares in the order of ``PARTS``.

        Raises:
            BadInputError: a part would be empty.
        """
        shares = {"train": 1 - self.valid - self.test, "valid": self.valid, "test": self.test}
        if min(shares.values()) <= 0:
            raise BadInputError(
                f"split.valid_share is {self.valid:g} and split.test_share {self.test:g}; each "
                "must be above 0 and their sum below 1. Change them in params.yaml."
            )
        return shares


def strata(cases: Sequence[LabelledCase]) -> list[tuple[Stratum, Stratum]]:
    """Two strata for each case: its source and label; the same with its Orphanet head.

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
    """Assign each case to a part, in the order of ``cases``.

    Greedy stratified group assignment after Sechidis et al. 2011 ("On the stratification of
    multi-label data"): groups with one allowed part first, then large groups, each to the part
    with the largest relative deficit in its strata. ``allowed`` names the parts of each group;
    without it, any. Ties and the order of equal groups come from ``seed`` and the case ids, so
    the order of rows has no influence. Linear in the cases, apart from sorting groups.
    """
    wanted = shares.by_part()
    keys = strata(cases)
    needs = _Needs(keys, wanted)
    parts = [""] * len(cases)
    drawn = [
        (_draw(seed, min(cases[position].case.case_id for position in group)), group, choice)
        for group, choice in zip(groups, allowed or [PARTS] * len(groups), strict=True)
    ]
    drawn.sort(key=lambda item: (len(item[2]) > 1, -len(item[1]), item[0]))
    for draw, group, choice in drawn:
        counts = Counter(key for position in group for key in keys[position])
        part = choice[0] if len(choice) == 1 else needs.neediest(counts, choice, draw)
        needs.held[part].update(counts)
        for position in group:
            parts[position] = part
    return parts


def _draw(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class _Needs:
    """The cases of each stratum in each part, and the part with the largest deficit."""

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
        """The part of ``choice`` with the largest deficit in ``counts``; ``draw`` breaks ties.

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
            deficit = target - self.held[part][key] - count / 2
            need += self._weights[key] * count * deficit / target
        return need


Side = Literal["test", "learn"]
_PARTS_OF: Mapping[Side | None, tuple[str, ...]] = {
    "test": ("test",),
    "learn": ("train", "valid"),
    None: PARTS,
}


@dataclass(frozen=True)
class Rule:
    """Which parts a group of tied cases may go to, and which of its cases are set aside.

    ``held_out_source`` tests on the source ``name`` alone. ``held_out_head`` tests on the Orphanet
    head ``name`` and on non-rare cases of ``sources``, those that have the head; non-rare cases of
    other sources would reveal the label by their style. ``by_date`` learns from visits before the
    day in ``cuts`` of their source and tests on the others; undated visits, and sources without a
    cut, may be in any part. ``drawn`` has no restriction.
    """

    kind: Literal["drawn", "by_date", "held_out_source", "held_out_head"] = "drawn"
    name: str = ""
    sources: frozenset[str] = frozenset()
    cuts: Mapping[str, date] = field(default_factory=dict)

    @property
    def holds_out(self) -> bool:
        """Whether a source or a head is held out."""
        return self.kind in ("held_out_source", "held_out_head")

    def side(self, item: LabelledCase) -> Side | None:
        """The side that a case by itself belongs to, ``None`` for either."""
        if self.kind == "held_out_source":
            return "test" if item.case.source == self.name else "learn"
        if self.kind == "held_out_head":
            if item.label.orphanet_head == self.name:
                return "test"
            free = item.label.label == "nonrare" and item.case.source in self.sources
            return None if free else "learn"
        cut, day = self.cuts.get(item.case.source), item.case.visit_date
        if cut is None or day is None:
            return None
        return "test" if day >= cut else "learn"

    def parts(self, group: Sequence[LabelledCase]) -> tuple[str, ...]:
        """The parts that ``group`` may go to.

        Held-out cases decide for their group. A group with visits on both sides of a cut by date
        may go anywhere and loses the visits on the wrong side.
        """
        sides = {side for item in group if (side := self.side(item)) is not None}
        if self.holds_out and "test" in sides:
            return _PARTS_OF["test"]
        return _PARTS_OF[sides.pop()] if len(sides) == 1 else PARTS

    def keeps(self, group: Sequence[LabelledCase], part: str) -> list[bool]:
        """Whether each case of ``group`` may stay in ``part``; the others are set aside."""
        sides = [self.side(item) for item in group]
        if self.holds_out:
            alone = part == "test" and "test" in sides
            return [not alone or side == "test" for side in sides]
        return [part in _PARTS_OF[side] for side in sides]


def rule_for(
    cases: Sequence[LabelledCase],
    hold_out: str | None,
    test_from: date | Literal["auto"] | None,
    test_share: float,
) -> Rule:
    """Make the rule for ``split.hold_out``, or else for ``split.test_from``.

    Raises:
        BadInputError: no case has the source or head to hold out, or it is the only source.
    """
    if hold_out is None:
        cuts = date_cuts(cases, test_from, test_share)
        return Rule("by_date", cuts=cuts) if cuts else Rule()
    kind, _, name = hold_out.partition(":")
    if kind == "source":
        known = sorted({item.case.source for item in cases})
        if name in known and len(known) > 1:
            return Rule("held_out_source", name)
        more = "" if len(known) > 1 else "; the only source can't be held out"
    else:
        heads = {(item.label.orphanet_head, item.case.source) for item in cases}
        known = sorted({head for head, _ in heads if head is not None})
        if name in known:
            sources = frozenset(source for head, source in heads if head == name)
            return Rule("held_out_head", name, sources)
        more = "" if known else "; no case has a head (see rarealert data import orphanet)"
    raise BadInputError(
        f"split.hold_out is {hold_out}, but the cases have the {kind}s "
        f"{', '.join(known) or 'none'}{more}. Change split.hold_out in params.yaml."
    )


def date_cuts(
    cases: Sequence[LabelledCase], test_from: date | Literal["auto"] | None, test_share: float
) -> dict[str, date]:
    """The first day of the test part by source.

    A given day applies to every source with dates. ``auto`` takes, in each source that dates all
    of its visits, the day that leaves ``test_share`` of them. A source of one day has no cut.
    """
    days: dict[str, list[date]] = {}
    undated: set[str] = set()
    for item in cases:
        if item.case.visit_date is None:
            undated.add(item.case.source)
        else:
            days.setdefault(item.case.source, []).append(item.case.visit_date)
    if isinstance(test_from, date):
        return dict.fromkeys(sorted(days), test_from)
    cuts: dict[str, date] = {}
    for source in sorted(days.keys() - undated) if test_from == "auto" else ():
        cut = sorted(days[source])[int((1 - test_share) * len(days[source]))]
        if cut > min(days[source]):
            cuts[source] = cut
    return cuts


def assign_by_rule(
    cases: Sequence[LabelledCase],
    groups: Sequence[Sequence[int]],
    shares: Shares,
    seed: int,
    rule: Rule,
) -> list[str]:
    """Assign each case to a part under ``rule``; ``SET_ASIDE`` where no part may hold it."""
    members = [[cases[position] for position in group] for group in groups]
    parts = assign(cases, groups, shares, seed, [rule.parts(group) for group in members])
    for group, items in zip(groups, members, strict=True):
        for position, kept in zip(group, rule.keeps(items, parts[group[0]]), strict=True):
            if not kept:
                parts[position] = SET_ASIDE
    return parts


def check_labels(
    cases: Sequence[LabelledCase], parts: Sequence[str], *, everywhere: bool = True
) -> None:
    """Refuse a split in which a source has only one label in some part.

    Without ``everywhere`` a source may be absent from a part, as when it is held out.

    Raises:
        BadInputError: a part is empty, or a source has one label only in it.
    """
    seen = {
        (item.case.source, part, item.label.label) for item, part in zip(cases, parts, strict=True)
    }
    present = {(source, part) for source, part, _ in seen}
    for part in PARTS:
        if part not in parts:
            raise BadInputError(f"The {part} part would have no case. Change split in params.yaml.")
    for source in sorted({item.case.source for item in cases}):
        for part in PARTS:
            for label in ("rare", "nonrare"):
                required = everywhere or (source, part) in present
                if required and (source, part, label) not in seen:
                    raise BadInputError(
                        f"Source {source} has no {label} case in the {part} part, so its results "
                        "would measure style, not medicine; add cases of more diseases to it, "
                        "take it out of ingest.sources, or raise the part's share in params.yaml."
                    )


def lock_digest(case_ids: Iterable[str]) -> str:
    """Sha256 of the sorted case ids, one a line."""
    text = "".join(f"{case_id}\n" for case_id in sorted(case_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def check_lock(digest: str, pinned: str | None, earlier: str | None = None) -> None:
    """Refuse a test part other than the locked one.

    ``pinned`` is the digest in ``split.test_lock``; without it, ``earlier`` applies, the digest
    that an earlier run locked for this corpus.

    Raises:
        BadInputError: the digests differ.
    """
    locked = pinned or earlier
    if locked is not None and locked != digest:
        where = "split.test_lock in params.yaml" if pinned else "the one in reports/split/lock.json"
        raise BadInputError(
            f"The test part has changed: its digest is {digest}, but {where} is {locked}. Restore "
            f"the data and the split's parameters, or set split.test_lock to {digest} to accept a "
            "test part that earlier results can't be compared with."
        )


@dataclass(frozen=True)
class RegisteredSplit:
    """The part of each case; ``absent`` counts rows of cases that are not there."""

    parts: list[str]
    sha256: str
    absent: int


def read_registered(path: Path, case_ids: Sequence[str]) -> RegisteredSplit:
    """Read the parts of ``case_ids`` from a CSV with the columns ``case_id`` and ``part``.

    A row of an unknown case is counted, not refused: ingest may have refused the case.

    Raises:
        BadInputError: the file is missing or no such CSV, a part is unknown, a case has two rows
            or none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"split.assign names {path}, which can't be read. Put the CSV there."
        ) from error
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for name in ("case_id", "part"):
            if name not in (rows.fieldnames or ()):
                raise BadInputError(f"{path} has no column {name}; expected case_id,part.")
        part_of = _parts_of_rows(path, rows)
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


def _parts_of_rows(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    part_of: dict[str, str] = {}
    for row in rows:
        case_id, part = (row["case_id"] or "").strip(), (row["part"] or "").strip()
        where = f"{path}, line {rows.line_num}"
        if part not in PARTS:
            raise BadInputError(f"{where}: part must be one of {', '.join(PARTS)}; fix the row.")
        if not case_id:
            raise BadInputError(f"{where}: case_id is empty; fix the row.")
        if case_id in part_of:
            raise BadInputError(f"{where}: case {case_id[:200]} has two rows; keep one.")
        part_of[case_id] = part
    return part_of
