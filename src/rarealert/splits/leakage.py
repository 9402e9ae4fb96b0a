"""Leakage between the parts of a split: near-duplicate texts, diseases and patients in two parts.

Cases of one disease or patient, and cases with near-duplicate texts, are tied: a split that
separates them would let a model recognise the test part.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from rarealert.knowledge.names import normalise_name
from rarealert.visits.case import LabelledCase

SET_ASIDE = "set_aside"
"""The part of a case that belongs to neither train, valid nor test."""

_SHINGLE_WORDS = 5
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that the order of words counts modulo 2^64
_MASK = (1 << 64) - 1
_MIN_RECALL = 0.995  # of pairs exactly at the threshold; those above it are found more surely
_Shingles = NDArray[np.uint64]


@dataclass(frozen=True)
class Duplicate:
    """Two cases, as positions in a list, and the Jaccard similarity of their texts."""

    first: int
    second: int
    jaccard: float


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def hashed_runs(words: Sequence[str], length: int, word_hash: Callable[[str], int]) -> _Shingles:
    """Hash every run of ``length`` consecutive words, in order; a shorter text is one run.

    Returns:
        64-bit hashes, shape ``(n_runs,)``; empty for no words.
    """
    hashed = np.fromiter((word_hash(word) & _MASK for word in words), np.uint64, len(words))
    width = min(length, len(hashed))
    runs = np.zeros(len(hashed) - width + 1 if width else 0, dtype=np.uint64)
    for offset in range(width):
        weight = np.uint64(pow(_MULTIPLIER, offset + 1, 1 << 64))
        runs += hashed[offset : offset + len(runs)] * weight
    return runs


def shingles(text: str) -> _Shingles:
    """The sorted, distinct hashes of every five consecutive words of ``text``.

    Broder 1997, "On the resemblance and containment of documents".
    """
    return np.unique(hashed_runs(text.casefold().split(), _SHINGLE_WORDS, _word_hash))


def jaccard(first: _Shingles, second: _Shingles) -> float:
    """Shared shingles over all shingles of two texts, 0 to 1; two empty texts give 0."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 0.0


def near_duplicates(
    texts: Sequence[str], threshold: float, permutations: int, seed: int
) -> list[Duplicate]:
    """Find pairs of texts whose exact Jaccard similarity is at least ``threshold``.

    MinHash with locality-sensitive hashing proposes candidates (Broder 1997; Indyk and Motwani
    1998); each is verified exactly. Pairs that other pairs already connect are left out, so ``n``
    notes of one template give ``n - 1`` pairs. ``permutations`` must be at least 2.
    """
    from datasketch import MinHash, MinHashLSH

    sets = [shingles(text) for text in texts]
    same: dict[bytes, list[int]] = defaultdict(list)
    for position, hashes in enumerate(sets):
        if len(hashes):
            same[hashes.tobytes()].append(position)
    pairs = [
        Duplicate(first, second, 1.0)
        for positions in same.values()
        for first, second in pairwise(positions)
    ]
    empty = MinHash(num_perm=permutations, seed=seed, hashfunc=int)
    index = MinHashLSH(num_perm=permutations, params=_bands(threshold, permutations))
    tied = DisjointSet(positions[0] for positions in same.values())
    for position in tied:
        sketch = empty.copy()
        sketch.update_batch((sets[position] >> np.uint64(32)).tolist())
        for other in sorted(index.query(sketch)):
            if tied.connected(other, position):
                continue
            similarity = jaccard(sets[other], sets[position])
            if similarity >= threshold:
                tied.merge(other, position)
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


def disease_keys(item: LabelledCase) -> list[str]:
    """Every key of a case's disease: group, ORPHA code and normalised name.

    Two sources can file one disease under different keys; a shared key ties their cases.
    """
    label = item.label
    name = normalise_name(label.disease_name)
    keys = (label.disease_id, label.orpha_code, f"NAME:{name}" if name else None)
    return [key for key in keys if key]


def patient_keys(item: LabelledCase) -> list[str]:
    """The patient's key if the source gives one; ids are unique within a source only."""
    patient = item.case.patient_id
    return [] if patient is None else [f"PATIENT:{item.case.source}:{patient}"]


def tied_groups(cases: Sequence[LabelledCase], duplicates: Sequence[Duplicate]) -> list[list[int]]:
    """Group the positions of cases that no split may separate.

    A disease, a patient or a near-duplicate text ties two cases, directly or through others.
    """
    return _groups(cases, lambda item: disease_keys(item) + patient_keys(item), duplicates)


def same_disease(cases: Sequence[LabelledCase]) -> list[list[int]]:
    """Group the positions of cases by disease alone."""
    return _groups(cases, disease_keys, ())


def _groups(
    cases: Sequence[LabelledCase],
    keys_of: Callable[[LabelledCase], Iterable[str]],
    duplicates: Iterable[Duplicate],
) -> list[list[int]]:
    sets = DisjointSet(range(len(cases)))
    for position, item in enumerate(cases):
        for key in keys_of(item):
            sets.add(key)
            sets.merge(position, key)
    for pair in duplicates:
        sets.merge(pair.first, pair.second)
    groups = ([item for item in members if isinstance(item, int)] for members in sets.subsets())
    return sorted(sorted(group) for group in groups)


def count_leaks(
    cases: Sequence[LabelledCase], parts: Sequence[str], duplicates: Sequence[Duplicate]
) -> dict[str, int]:
    """Count disease keys, patients and near-duplicate pairs that are in two parts.

    ``parts`` has shape ``(n_cases,)``; a case that is set aside is in no part.
    """

    def in_two_parts(keys_of: Callable[[LabelledCase], Iterable[str]]) -> int:
        found = {
            (key, part)
            for item, part in zip(cases, parts, strict=True)
            if part != SET_ASIDE
            for key in keys_of(item)
        }
        return sum(count > 1 for count in Counter(key for key, _ in found).values())

    return {
        "diseases_on_two_sides": in_two_parts(disease_keys),
        "near_duplicate_pairs_on_two_sides": sum(
            parts[pair.first] != parts[pair.second]
            and SET_ASIDE not in (parts[pair.first], parts[pair.second])
            for pair in duplicates
        ),
        "patients_on_two_sides": in_two_parts(patient_keys),
    }


def cases_to_move(groups: Sequence[Sequence[int]], parts: Sequence[str]) -> int:
    """The smallest number of cases to move until ``parts`` separates none of ``groups``."""
    return sum(
        len(group) - Counter(parts[position] for position in group).most_common(1)[0][1]
        for group in groups
    )
