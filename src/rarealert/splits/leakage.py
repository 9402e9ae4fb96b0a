"""Union-find: what must stay together, directly or through a chain of others.

What could let a model know the test part: near-duplicate texts and diseases on two sides.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rarealert.knowledge.names import normalise_name
from rarealert.visits.case import LabelledCase
from rarealert.visits.reading import render

T = TypeVar("T", bound=Hashable)


class DisjointSets(Generic[T]):
    """Sets that only ever merge (Tarjan 1975): near constant time a call."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}
        self._size: dict[T, int] = {}

    def find(self, item: T) -> T:
        """The member that stands for the set of ``item``; a new item is a set of its own."""
        if item not in self._parent:
            self._parent[item] = item
            self._size[item] = 1
            return item
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def union(self, items: Iterable[T]) -> None:
        """Merge the sets of all ``items``."""
        # first come, first: a set's order would change with the interpreter's hash seed
        found = dict.fromkeys(self.find(item) for item in items)
        roots = sorted(found, key=lambda root: -self._size[root])
        for root in roots[1:]:
            self._parent[root] = roots[0]
            self._size[roots[0]] += self._size[root]

    def sets(self) -> dict[T, list[T]]:
        """Members by the item that stands for them, in the order in which they came."""
        members: dict[T, list[T]] = {}
        for item in self._parent:
            members.setdefault(self.find(item), []).append(item)
        return members


SET_ASIDE = "set_aside"
"""Stands for the part of a case that no part may hold."""

_SHINGLE_WORDS = 5
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that the order of words counts modulo 2^64
_MASK = (1 << 64) - 1
_MIN_RECALL = 0.995  # of pairs exactly at the threshold; those above it are found more surely
_Shingles = NDArray[np.uint64]


@dataclass(frozen=True)
class Duplicate:
    """Two cases, as positions in the list given, and the Jaccard similarity of their texts."""

    first: int
    second: int
    jaccard: float


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def shingles(text: str) -> _Shingles:
    """Sorted, distinct 64-bit hashes of every five consecutive words; a shorter text is one.

    Broder 1997, "On the resemblance and containment of documents".
    """
    words = np.array([_word_hash(word) for word in text.casefold().split()], dtype=np.uint64)
    width = min(_SHINGLE_WORDS, len(words))
    length = len(words) - width + 1
    hashes = np.zeros(length if width else 0, dtype=np.uint64)
    for offset in range(width):
        weight = np.uint64(pow(_MULTIPLIER, offset + 1, 1 << 64) & _MASK)
        hashes += words[offset : offset + length] * weight
    return np.unique(hashes)


def jaccard(first: _Shingles, second: _Shingles) -> float:
    """Shared shingles over all shingles of two texts, 0 to 1; two empty texts give 0."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 0.0


def near_duplicates(
    texts: Sequence[str], threshold: float, permutations: int, seed: int
) -> list[Duplicate]:
    """Pairs of texts whose exact Jaccard similarity reaches ``threshold``: enough to tie them all.

    MinHash with locality-sensitive hashing proposes candidates (Broder 1997; Indyk and Motwani
    1998); each is verified exactly. A pair of two texts that others tie already is left out, so n
    notes of one template give n - 1 pairs, not each with all. ``permutations`` must be at least 2.
    """
    from datasketch import MinHash, MinHashLSH

    by_content: dict[bytes, list[int]] = defaultdict(list)
    sets = [shingles(text) for text in texts]
    for position, hashes in enumerate(sets):
        if len(hashes):
            by_content[hashes.tobytes()].append(position)
    pairs = [
        Duplicate(first, second, 1.0)
        for same in by_content.values()
        for first, second in pairwise(same)
    ]
    empty = MinHash(num_perm=permutations, seed=seed, hashfunc=int)
    index = MinHashLSH(num_perm=permutations, params=_bands(threshold, permutations))
    tied: DisjointSets[int] = DisjointSets()
    for position in (same[0] for same in by_content.values()):
        sketch = _sketch(empty, sets[position])
        for other in sorted(index.query(sketch)):
            if tied.find(other) == tied.find(position):
                continue
            similarity = jaccard(sets[other], sets[position])
            if similarity >= threshold:
                tied.union([other, position])
                pairs.append(Duplicate(other, position, similarity))
        index.insert(position, sketch, check_duplication=False)
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows of the index: the most selective that still finds ``_MIN_RECALL`` of pairs.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec,
    Rajaraman and Ullman, "Mining of Massive Datasets", 3.4.2).
    """
    for rows in range(permutations // 2, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _MIN_RECALL:
            return bands, rows
    return permutations, 1


def _sketch(empty: Any, hashes: _Shingles) -> Any:
    sketch = empty.copy()
    sketch.update_batch((hashes >> np.uint64(32)).tolist())
    return sketch


def disease_keys(item: LabelledCase) -> list[str]:
    """Every key under which a case's disease may be known: group, code and normalised name.

    Two sources can file one disease under different keys; sharing any of them ties cases.
    """
    label = item.label
    name = normalise_name(label.disease_name)
    keys = (label.disease_id, label.orpha_code, f"NAME:{name}" if name else None)
    return [key for key in keys if key]


def patient_key(item: LabelledCase) -> str | None:
    """What names the patient of a case where the source says; ids mean nothing across sources."""
    patient = item.case.patient_id
    return None if patient is None else f"PATIENT:{item.case.source}:{patient}"


def tied_groups(cases: Sequence[LabelledCase], duplicates: Sequence[Duplicate]) -> list[list[int]]:
    """Positions of cases that no split may part, in any chain of ties.

    A disease, a patient, or a near-duplicate text ties two cases.
    """
    sets: DisjointSets[int | str] = DisjointSets()
    for position, item in enumerate(cases):
        patient = patient_key(item)
        sets.union([position, *disease_keys(item), *([patient] if patient else [])])
    return _positions(sets, duplicates)


def same_disease(cases: Sequence[LabelledCase]) -> list[list[int]]:
    """Positions of cases of one disease: what a split by disease alone would keep together."""
    sets: DisjointSets[int | str] = DisjointSets()
    for position, item in enumerate(cases):
        sets.union([position, *disease_keys(item)])
    return _positions(sets, ())


def _positions(sets: DisjointSets[int | str], duplicates: Sequence[Duplicate]) -> list[list[int]]:
    for pair in duplicates:
        sets.union([pair.first, pair.second])
    groups = [
        [member for member in members if isinstance(member, int)]
        for members in sets.sets().values()
    ]
    return sorted(sorted(group) for group in groups)


def rendered(cases: Sequence[LabelledCase]) -> list[str]:
    """The texts that models read, in the order of ``cases``."""
    return [render(item.case) for item in cases]


def count_leaks(
    cases: Sequence[LabelledCase], parts: Sequence[str], duplicates: Sequence[Duplicate]
) -> dict[str, int]:
    """What stands on two sides of a split: diseases by any key, patients, near-duplicate pairs.

    ``parts`` has shape ``(n_cases,)``; a case that is set aside stands on no side.
    """
    diseases: dict[str, set[str]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    for item, part in zip(cases, parts, strict=True):
        if part == SET_ASIDE:
            continue
        for key in disease_keys(item):
            diseases[key].add(part)
        if patient := patient_key(item):
            patients[patient].add(part)
    return {
        "diseases_on_two_sides": sum(len(seen) > 1 for seen in diseases.values()),
        "near_duplicate_pairs_on_two_sides": sum(
            parts[pair.first] != parts[pair.second]
            and SET_ASIDE not in (parts[pair.first], parts[pair.second])
            for pair in duplicates
        ),
        "patients_on_two_sides": sum(len(seen) > 1 for seen in patients.values()),
    }


def cases_to_move(groups: Sequence[Sequence[int]], parts: Sequence[str]) -> int:
    """How many cases must change sides until ``parts`` cuts none of ``groups``: the fewest."""
    return sum(
        len(group) - Counter(parts[position] for position in group).most_common(1)[0][1]
        for group in groups
    )
