"""Orphanet disorders, and the disorder that a name or a sentence means.

Names come from the ORPHA rows of ``phenotype.hpoa``, from MONDO and from the packaged synonyms. A
folder with Orphadata's tables, as published and gzipped, adds Orphanet's own heads and prevalence
classes.
"""

import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rarealert.errors import BadInputError
from rarealert.knowledge import packaged_rows
from rarealert.knowledge.heads import HEADS, head_above, load_derived_heads
from rarealert.knowledge.mondo import Mondo, MondoTerm, load_mondo
from rarealert.knowledge.names import name_words, normalise_name, word_set
from rarealert.knowledge.profiles import load_common_conditions, load_rare_profiles

LINEARISATION = "linearisation_of_rare_diseases.csv.gz"
"""Orphadata's table of disorders and their classification heads."""

_EPIDEMIOLOGY = "epidemiology_of_rare_diseases.csv.gz"
_HISTORY = "natural_history_of_rare_diseases.csv.gz"
_COMMON_CLASSES = frozenset((">1 / 1000", "6-9 / 10 000"))
_POPULATION_MEASURES = frozenset(("Point prevalence", "Prevalence at birth"))
_GROUP = "Group of disorders"
_GROUP_SIZE = 3  # Orphanet entries below a MONDO term that make it a group of disorders
_SUFFIXES = word_set("disease syndrome disorder")
_PARENTHESES = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_LONGEST_NAME = 12  # words; a longer n-gram of a sentence is no name
_MIN_SINGLE_WORD = 6  # letters; a shorter single word in a sentence is no disease
_NOT_AFFECTED = word_set("trait carrier exposure")  # not the disease itself
_EPONYMS_OF_TWO = word_set("cushing meckel")  # the syndrome and the disease are different things
_FORMS = word_set("genetic familial hereditary inherited congenital neonatal fetal")
_GENERIC = word_set(
    "fever cancer tumor infection anemia allergy asthma obesity glaucoma epilepsy dementia cataract"
)


@dataclass(frozen=True, slots=True)
class Disorder:
    """An active Orphanet disorder; ``head`` is ``None`` if no table or rule gives one.

    ``head_derived`` marks a head from ``load_derived_heads``, not from Orphanet. ``common`` marks
    a disorder whose prevalence is above Europe's bound for a rare disease, 5 in 10,000: it is in
    Orphanet, but not rare.
    """

    orpha_code: str
    name: str
    head: str | None = None
    common: bool = False
    head_derived: bool = False


@dataclass(frozen=True, slots=True)
class Nomenclature:
    """Disorders, the codes of groups of disorders, and the codes of unknown kind.

    ``complete`` if it has every active disorder, so that any other code has been withdrawn.
    """

    disorders: tuple[Disorder, ...]
    groups: frozenset[str]
    doubtful: frozenset[str]
    complete: bool


def read_tables(folder: Path) -> Nomenclature:
    """Read the three tables of ``folder``.

    The linearisation table contains groups too; the other tables identify them.

    Raises:
        BadInputError: a table is missing or is not what Orphadata publishes.
    """
    disorders: dict[str, Disorder] = {}
    for row in _rows(folder / LINEARISATION, ("orpha_code", "name", "target_disorder_code")):
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
    kept = tuple(d for d in disorders.values() if kinds.get(d.orpha_code) != _GROUP)
    return Nomenclature(
        kept,
        groups=frozenset(code for code, kind in kinds.items() if kind == _GROUP),
        doubtful=frozenset(d.orpha_code for d in kept if d.orpha_code not in kinds),
        complete=True,
    )


def _is_common(row: Mapping[str, str]) -> bool:
    return (
        row["prevalence_class"] in _COMMON_CLASSES
        and row["prevalence_type"] in _POPULATION_MEASURES
    )


def load_names(folder: Path) -> dict[str, Disorder]:
    """Load the disorders by normalised name from the linearisation table in ``folder``.

    HPO's annotations add names that they still use for a disorder.

    Raises:
        BadInputError: the table is missing or is not what Orphadata publishes.
    """
    by_name: dict[str, Disorder] = {}
    for row in _rows(folder / LINEARISATION, ("orpha_code", "name", "target_disorder_name")):
        head = row["target_disorder_name"] or None
        disorder = Disorder(f"ORPHA:{row['orpha_code']}", row["name"], head)
        by_name.setdefault(normalise_name(disorder.name), disorder)
    heads = {disorder.orpha_code: disorder.head for disorder in by_name.values()}
    for code, name in sorted((item.disease_id, item.name) for item in load_rare_profiles()):
        by_name.setdefault(normalise_name(name), Disorder(code, name, heads.get(code)))
    return by_name


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    again = "import Orphadata's tables again: rarealert data import orphanet PATH."
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInputError(f"{path} has no column {missing[0]}; {again}")
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise BadInputError(
                        f"{path}: the record that ends on line {reader.line_num} has too few "
                        f"cells; {again}"
                    )
                yield row
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing; {again}") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} is not a readable gzip CSV; {again}") from error


class OrphanetIndex:
    """Resolves names to disorders; build it with ``load_index``."""

    def __init__(
        self,
        nomenclature: Nomenclature,
        synonyms: Mapping[str, str],
        whole_names: Iterable[tuple[str, str]] = (),
        elsewhere: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """Index the names of ``nomenclature``.

        ``synonyms`` maps more names to ORPHA codes; unknown codes are ignored. ``whole_names`` are
        pairs of a name and a code that match a whole text only, without its brackets; the names of
        doubtful codes are not searched for in sentences either. ``elsewhere`` has the normal forms
        of names of diseases that Orphanet does not list, each with the ORPHA codes of the
        disorders that it is a form of.
        """
        self._elsewhere = elsewhere or {}
        self.by_code = {disorder.orpha_code: disorder for disorder in nomenclature.disorders}
        self.groups, self.complete = nomenclature.groups, nomenclature.complete
        self.doubtful = nomenclature.doubtful
        self._by_name: dict[str, str] = {}
        names = [(disorder.name, code) for code, disorder in self.by_code.items()]
        extra = [(name, code) for name, code in synonyms.items() if code in self.by_code]
        for name, code in (*names, *extra):
            self._by_name.setdefault(normalise_name(name), code)
        self._own_names = dict(self._by_name)
        self._inside_names = {
            name: code
            for name, code in self._own_names.items()
            if code not in nomenclature.doubtful
        }
        self._whole_names: dict[str, str] = {}
        for name, code in whole_names:
            if code in self.by_code:
                self._whole_names.setdefault(normalise_name(name), code)
        for name, code in (*names, *extra):
            for key in name_variants(name):
                self._by_name.setdefault(key, code)

    def resolve(self, text: str) -> Disorder | None:
        """The disorder that ``text`` names: a name, a variant, or a sentence that contains one.

        The whole text is tried first, then the longest run of words that is a name. The name of a
        disease that Orphanet does not list never means another disorder with the same synonym, a
        similar name, or a name within it, unless it is a form of that disorder.
        """
        key = normalise_name(without_brackets(text))
        own = self._own_names.get(normalise_name(text)) or self._own_names.get(key)
        if own:
            return self.by_code[own]
        found = self.resolve_whole(text) or self._inside(name_words(text))
        above = self._elsewhere.get(key)
        return found if found is None or above is None or found.orpha_code in above else None

    def resolve_official(self, text: str) -> Disorder | None:
        """The disorder that Orphanet, its annotations or a packaged synonym calls ``text``."""
        code = self._own_names.get(normalise_name(text))
        return self.by_code[code] if code else None

    def resolve_whole(self, text: str) -> Disorder | None:
        """The disorder with the name ``text``, except for spelling, brackets and suffix.

        The unchanged name is tried in every table before any variant of it.
        """
        plain = without_brackets(text)
        lookups = (
            (self._by_name, normalise_name(text)),
            (self._whole_names, normalise_name(plain)),
            *((self._by_name, key) for key in name_variants(text)),
            *((self._whole_names, key) for key in name_variants(plain)),
        )
        code = next((names[key] for names, key in lookups if key in names), None)
        return self.by_code[code] if code else None

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


def without_brackets(name: str) -> str:
    """The name without parentheses, square brackets and their content."""
    return _PARENTHESES.sub(" ", name)


def name_variants(name: str) -> Iterator[str]:
    """Normal forms of a name: unchanged, without or from its parentheses, without its suffix."""
    yield normalise_name(name)
    outside = without_brackets(name)
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

    With tables, the installed names are synonyms.

    Raises:
        BadInputError: a table of ``folder`` is missing or is not what Orphadata publishes, or an
            installed data file is missing.
    """
    mondo = load_mondo()
    synonyms = {profile.name: profile.disease_id for profile in load_rare_profiles()}
    synonyms |= {row["synonym"]: row["orpha_code"] for row in packaged_rows("disease_synonyms.tsv")}
    known = read_tables(folder) if folder else _installed(mondo)
    return index_over(known, synonyms, mondo)


def index_over(known: Nomenclature, synonyms: Mapping[str, str], mondo: Mondo) -> OrphanetIndex:
    """The index over ``known``, ``synonyms`` by ORPHA code, and the names in ``mondo``."""
    official = {disorder.orpha_code: disorder.name for disorder in known.disorders}
    names = _mondo_names(mondo, official)
    return OrphanetIndex(known, synonyms, names, _names_elsewhere(mondo))


def _installed(mondo: Mondo) -> Nomenclature:
    """Disorders with annotations and those that only MONDO names, with derived heads.

    MONDO marks neither groups nor withdrawn disorders among its Orphanet entries. An entry without
    annotation counts as a group if several Orphanet entries are below it, and as withdrawn if the
    Genetic and Rare Diseases Information Center does not list it (docs/results.md: accuracy of
    both rules). No installed package has prevalences: ``common_orphanet.tsv`` lists the disorders
    that are not rare in a general population or where they are endemic.
    """
    by_code, heads = mondo.by_code("Orphanet"), load_derived_heads()
    profiles = {profile.disease_id: profile.name for profile in load_rare_profiles()}
    found = {code: Disorder(code, name, heads.get(code)) for code, name in profiles.items()}
    sizes = _orphanet_entries_below(mondo)
    groups = set()
    for number, terms in by_code.items():
        code, term = f"ORPHA:{number}", mondo.terms[terms[0]]
        if code in profiles:
            continue
        if max(sizes.get(mondo_id, 0) for mondo_id in terms) >= _GROUP_SIZE:
            groups.add(code)
        elif "GARD" in term.codes and not any(
            f"ORPHA:{other}" in profiles for other in term.codes["Orphanet"]
        ):
            found[code] = Disorder(code, term.name, head_above(terms, mondo))
    common = {row["orpha_code"] for row in packaged_rows("common_orphanet.tsv")}
    return Nomenclature(
        tuple(
            replace(disorder, head_derived=bool(disorder.head), common=code in common)
            for code, disorder in found.items()
        ),
        frozenset(groups),
        doubtful=frozenset(found).difference(profiles),
        complete=False,
    )


def _orphanet_entries_below(mondo: Mondo) -> dict[str, int]:
    counts: dict[str, int] = {}
    for term in mondo.terms.values():
        if "Orphanet" in term.codes:
            for above in mondo.ancestors(term.id) - {term.id}:
                counts[above] = counts.get(above, 0) + 1
    return counts


def _mondo_names(mondo: Mondo, official: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every name of a MONDO term with its ORPHA code; preferred names before synonyms.

    A term that is broader than the Orphanet entry with its code contributes no name.
    """
    terms = [term for term in mondo.terms.values() if "Orphanet" in term.codes]
    codes_of = []
    for term in terms:
        codes = [f"ORPHA:{code}" for code in term.codes["Orphanet"]]
        codes_of.append([code for code in codes if not _is_broader(term, official.get(code, ""))])
    for names in ([(term.name,) for term in terms], [term.synonyms for term in terms]):
        for codes, own in zip(codes_of, names, strict=True):
            yield from ((name, code) for name in own for code in codes)


def _is_broader(term: MondoTerm, official: str) -> bool:
    """Whether Orphanet's entry is the inherited or congenital form of what the term means.

    Orphanet's name then has a word for that beside a name of the term, and no name of the term
    has: "Genetic nephrotic syndrome" has the code that MONDO gives to "nephrotic syndrome".
    """
    entry = set(name_words(official))
    if not entry & _FORMS:
        return False
    names = [set(name_words(name)) for name in (term.name, *term.synonyms)]
    return not any(name & _FORMS for name in names) and any(name <= entry for name in names)


def _names_elsewhere(mondo: Mondo) -> dict[str, frozenset[str]]:
    """Names of the terms without an ORPHA code, each with the codes above every such term.

    Preferred names of terms with an ORPHA code are left out.
    """
    found: dict[str, frozenset[str]] = {}
    listed = {normalise_name(t.name) for t in mondo.terms.values() if "Orphanet" in t.codes}
    for term in mondo.terms.values():
        if "Orphanet" in term.codes:
            continue
        above = frozenset(
            f"ORPHA:{code}"
            for one in mondo.ancestors(term.id)
            for code in mondo.terms[one].codes.get("Orphanet", ())
        )
        for name in {normalise_name(name) for name in (term.name, *term.synonyms)} - listed:
            found[name] = found.get(name, above) & above
    return found


@lru_cache(maxsize=1)
def _common_names() -> frozenset[str]:
    return frozenset(
        key
        for name in (
            *(condition.profile.name for condition in load_common_conditions()),
            *(
                row["name"]
                for row in packaged_rows("reviewed_names.tsv")
                if row["label"] == "nonrare"
            ),
        )
        for key in name_variants(name)
        if key
    )


def looks_common(text: str) -> bool:
    """Whether ``text`` is, except for spelling, a packaged name of a common condition."""
    return any(key in _common_names() for key in name_variants(text))
