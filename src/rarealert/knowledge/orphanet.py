"""From the name of a diagnosis to the Orphanet disorder it means, or to none.

Names come from the ORPHA rows of ``phenotype.hpoa``, from the packaged synonyms, and from
Orphadata's tables where a folder with them is given: only these know the classification heads,
which entities are groups, and which disorders are common.
"""

import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge.heads import HEADS
from rarealert.knowledge.names import name_words, normalise_name, word_set
from rarealert.knowledge.profiles import (
    load_common_conditions,
    load_rare_profiles,
    packaged_rows,
)

_LINEARISATION = "linearisation_of_rare_diseases.csv.gz"
_EPIDEMIOLOGY = "epidemiology_of_rare_diseases.csv.gz"
_HISTORY = "natural_history_of_rare_diseases.csv.gz"
_SYNONYMS = "disease_synonyms.tsv"
_COMMON_CLASSES = frozenset((">1 / 1000", "6-9 / 10 000"))
_POPULATION_MEASURES = frozenset(("Point prevalence", "Prevalence at birth"))
_SUFFIXES = word_set("disease syndrome disorder")
_PARENTHESES = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_LONGEST_NAME = 12  # words; a longer n-gram of a sentence is no name
_MIN_SINGLE_WORD = 6  # letters; shorter single words in a sentence name something else
_NOT_AFFECTED = word_set("trait carrier exposure")  # they name a disease the patient has not
_EPONYMS_OF_TWO = word_set("cushing meckel")  # the syndrome and the disease are different things
_GENERIC = word_set(
    "fever cancer tumor infection anemia allergy asthma obesity glaucoma epilepsy dementia cataract"
)


@dataclass(frozen=True, slots=True)
class Disorder:
    """An active Orphanet disorder. ``head`` is ``None`` where no table says it.

    ``common`` marks a disorder whose prevalence is above Europe's bound for a rare disease,
    5 in 10,000: it is in Orphanet, but not rare.
    """

    orpha_code: str
    name: str
    head: str | None = None
    common: bool = False


class OrphanetIndex:
    """Resolves names to disorders; build it with ``load_index``."""

    def __init__(
        self,
        disorders: Iterable[Disorder],
        synonyms: Mapping[str, str],
        whole_only: frozenset[str] = frozenset(),
    ) -> None:
        """``synonyms`` maps more names to ORPHA codes; unknown codes are ignored.

        The names of ``whole_only`` codes are not looked for inside a sentence.
        """
        self.by_code = {disorder.orpha_code: disorder for disorder in disorders}
        self._by_name: dict[str, str] = {}
        names = [(disorder.name, code) for code, disorder in self.by_code.items()]
        extra = [(name, code) for name, code in synonyms.items() if code in self.by_code]
        for name, code in (*names, *extra):
            self._by_name.setdefault(normalise_name(name), code)
        self._inside_names = {
            name: code for name, code in self._by_name.items() if code not in whole_only
        }
        for name, code in (*names, *extra):
            for key in _variants(name):
                self._by_name.setdefault(key, code)

    def resolve(self, text: str) -> Disorder | None:
        """The disorder that ``text`` names, be it a name, a variant, or a sentence holding one.

        The whole text is tried first, then the longest run of words that is a name.
        """
        for key in _variants(text):
            if code := self._by_name.get(key):
                return self.by_code[code]
        return self._inside(name_words(text))

    def _inside(self, words: tuple[str, ...]) -> Disorder | None:
        if _NOT_AFFECTED.intersection(words):
            return None
        for length in range(min(_LONGEST_NAME, len(words)), 0, -1):
            for start in range(len(words) - length + 1):
                run = words[start : start + length]
                if length == 1 and (len(run[0]) < _MIN_SINGLE_WORD or run[0] in _GENERIC):
                    continue
                if code := self._inside_names.get(" ".join(run)):
                    return self.by_code[code]
        return None


def _variants(name: str) -> Iterator[str]:
    """Normal forms of a name: as it is, without or from its parentheses, without its suffix."""
    yield normalise_name(name)
    outside = _PARENTHESES.sub(" ", name)
    inner = [first or second for first, second in _PARENTHESES.findall(name)]
    for part in (outside, *inner):
        words = name_words(part)
        if words and (part is outside or len(part) > 2):
            yield " ".join(words)
    words = name_words(outside)
    if not words or words[0] in _EPONYMS_OF_TWO:
        return
    if len(words) > 1 and words[-1] in _SUFFIXES:
        yield " ".join(words[:-1])
        yield from (" ".join((*words[:-1], suffix)) for suffix in sorted(_SUFFIXES))
    else:
        yield from (" ".join((*words, suffix)) for suffix in sorted(_SUFFIXES))


@lru_cache(maxsize=4)
def load_index(folder: Path | None = None) -> OrphanetIndex:
    """The index over the installed names, or over Orphadata's tables in ``folder``.

    With tables, the names of the packaged annotations still serve as synonyms.

    Raises:
        BadInputError: a table of ``folder`` is missing or is not what Orphadata publishes.
    """
    packaged = [Disorder(profile.disease_id, profile.name) for profile in load_rare_profiles()]
    synonyms = {disorder.name: disorder.orpha_code for disorder in packaged}
    synonyms |= {row["synonym"]: row["orpha_code"] for row in packaged_rows(_SYNONYMS)}
    if folder is None:
        return OrphanetIndex(packaged, synonyms)
    disorders, doubtful = _read_tables(folder)
    return OrphanetIndex(disorders, synonyms, doubtful)


def _read_tables(folder: Path) -> tuple[list[Disorder], frozenset[str]]:
    """Disorders of the tables, and the codes that no table calls a disorder or a subtype.

    The linearisation table mixes groups in; those that the other tables name are left out.
    """
    disorders: dict[str, Disorder] = {}
    for row in _rows(folder / _LINEARISATION, ("orpha_code", "name", "target_disorder_code")):
        if row["target_disorder_code"] and not row["name"].startswith("Rare "):
            head = HEADS.get(f"ORPHA:{row['target_disorder_code']}")
            code = f"ORPHA:{row['orpha_code']}"
            disorders.setdefault(code, Disorder(code, row["name"], head))
    kinds: dict[str, str] = {}
    for row in _rows(folder / _HISTORY, ("orpha_code", "disorder_group")):
        kinds[f"ORPHA:{row['orpha_code']}"] = row["disorder_group"]
    wanted = ("orpha_code", "disorder_group", "prevalence_type", "prevalence_class")
    for row in _rows(folder / _EPIDEMIOLOGY, wanted):
        code = f"ORPHA:{row['orpha_code']}"
        kinds[code] = row["disorder_group"]
        if code in disorders and _is_common(row):
            disorders[code] = replace(disorders[code], common=True)
    kept = [d for d in disorders.values() if kinds.get(d.orpha_code) != "Group of disorders"]
    return kept, frozenset(d.orpha_code for d in kept if d.orpha_code not in kinds)


def _is_common(row: Mapping[str, str]) -> bool:
    return (
        row["prevalence_class"] in _COMMON_CLASSES
        and row["prevalence_type"] in _POPULATION_MEASURES
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInputError(
                    f"{path}: column {missing[0]} is missing; export the table again."
                )
            yield from reader
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; put Orphadata's tables there.") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"{path} is not a readable gzip CSV; export the table from Orphadata again."
        ) from error


@lru_cache(maxsize=1)
def _common_names() -> frozenset[str]:
    return frozenset(
        key
        for condition in load_common_conditions()
        for key in _variants(condition.profile.name)
        if key
    )


def looks_common(text: str) -> bool:
    """Whether ``text`` is, but for spelling, the name of a packaged common condition."""
    return any(key in _common_names() for key in _variants(text))
