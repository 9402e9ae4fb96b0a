"""Train, valid and test: whole groups of cases, each part with its share of every stratum."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rarealert.cases.case import LabelledCase
from rarealert.errors import BadInputError

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
