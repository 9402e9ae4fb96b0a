"""Train, valid and test: whole groups of cases, each part with its share of every stratum."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rarealert.cases.case import LabelledCase
from rarealert.errors import BadInputError

PARTS = ("train", "valid", "test")
Stratum = tuple[str, str]


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


def stratum(item: LabelledCase) -> Stratum:
    """What a part should hold its share of: source and label."""
    return item.case.source, item.label.label


def assign(
    cases: Sequence[LabelledCase], groups: Sequence[Sequence[int]], shares: Shares, seed: int
) -> list[str]:
    """The part of each case, in the order of ``cases``.

    Greedy stratified group assignment after Sechidis et al. 2011 ("On the stratification of
    multi-label data"): large groups first, each to the part that lacks the largest share of its
    strata. Ties and the order of equal groups come from ``seed`` and the case ids, so the result
    does not depend on the order of rows. Time is linear in the cases but for sorting groups.
    """
    wanted = shares.by_part()
    totals = Counter(stratum(item) for item in cases)
    targets = {
        part: {key: share * count for key, count in totals.items()}
        for part, share in wanted.items()
    }
    held: dict[str, Counter[Stratum]] = {part: Counter() for part in PARTS}
    parts = [""] * len(cases)
    for draw, group in _ordered(cases, groups, seed):
        counts = Counter(stratum(cases[position]) for position in group)
        part = _neediest(counts, targets, held, draw, wanted)
        held[part].update(counts)
        for position in group:
            parts[position] = part
    return parts


def _ordered(
    cases: Sequence[LabelledCase], groups: Sequence[Sequence[int]], seed: int
) -> list[tuple[float, Sequence[int]]]:
    """Groups, largest first, each with its draw in [0, 1)."""
    drawn = [
        (_draw(seed, min(cases[position].case.case_id for position in group)), group)
        for group in groups
    ]
    return sorted(drawn, key=lambda item: (-len(item[1]), item[0]))


def _draw(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _neediest(
    counts: Mapping[Stratum, int],
    targets: Mapping[str, Mapping[Stratum, float]],
    held: Mapping[str, Mapping[Stratum, int]],
    draw: float,
    shares: Mapping[str, float],
) -> str:
    def need(part: str) -> float:
        # half of the group is counted as held: a large group weighs more in a small part
        return sum(
            count * (targets[part][key] - held[part][key] - count / 2) / targets[part][key]
            for key, count in counts.items()
        )

    needs = {part: round(need(part), 9) for part in PARTS}
    most = max(needs.values())
    tied = [part for part in PARTS if needs[part] == most]
    edge, total = 0.0, sum(shares[part] for part in tied)
    for part in tied:
        edge += shares[part] / total
        if draw < edge:
            return part
    return tied[-1]


def check_labels(cases: Sequence[LabelledCase], parts: Sequence[str]) -> None:
    """Refuse a split in which a source has only one label in some part.

    Raises:
        BadInputError: which source, part and label, and what to do.
    """
    seen = {
        (item.case.source, part, item.label.label) for item, part in zip(cases, parts, strict=True)
    }
    for source in sorted({item.case.source for item in cases}):
        for part in PARTS:
            for label in ("rare", "nonrare"):
                if (source, part, label) not in seen:
                    raise BadInputError(
                        f"Source {source} has no {label} case in the {part} part, so its results "
                        "would measure style, not medicine; add cases of more diseases to it, "
                        "take it out of ingest.sources, or raise the part's share in params.yaml."
                    )


def lock_digest(case_ids: Iterable[str]) -> str:
    """Sha256 of the sorted case ids, one a line."""
    text = "".join(f"{case_id}\n" for case_id in sorted(case_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def check_lock(digest: str, locked: str | None) -> None:
    """Refuse a test part other than the locked one.

    Raises:
        BadInputError: the digests differ; the sentence says what to set.
    """
    if locked is not None and locked != digest:
        raise BadInputError(
            f"The test part has changed: its digest is {digest}, but split.test_lock in "
            f"params.yaml is {locked}. Restore the data and the split's parameters, or set "
            f"split.test_lock to {digest} to accept a test part that earlier results can't be "
            "compared with."
        )


def counts_by_part(
    cases: Sequence[LabelledCase], parts: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Cases by part, source and label."""
    table: dict[str, dict[str, dict[str, int]]] = {part: {} for part in PARTS}
    for item, part in zip(cases, parts, strict=True):
        labels = table[part].setdefault(item.case.source, {})
        labels[item.label.label] = labels.get(item.label.label, 0) + 1
    return table
