"""How much a disease's name reads like one that Orphanet lists, whether or not it is known.

A language model's diagnosis is free text, and what no table resolves need not be common: "malignant
spindle cell tumour of the palate" names nothing that Orphanet lists, yet reads like it. The names
of MONDO teach the difference, those with an Orphanet code against those without. No case and no
label of a case takes part, so nothing here can know one.

How an explanation is worded, in numbers: hedged, certain, negated, long, about what.

The words are general English and medicine, none of a certain teacher, and the embedding is a
fixed hash: nothing here is fitted, so nothing can know a label.

Who said what, as arrays: one row a case, one column a teacher, gaps where nobody answered.

Arrays, because a national panel of 1.6 million answers as objects would not fit into memory.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from rarealert.errors import BadInputError
from rarealert.knowledge.mondo import load_mondo
from rarealert.knowledge.names import normalise_name
from rarealert.teachers.answer import SCHEMA, AnswerRow, graded_risk

_LENGTHS = (2, 4)  # characters of the pieces that a name is cut into
_FEWEST_NAMES = 3  # that must hold a piece, for it to be learnt from
_C = 3.0


def rarity_of(names: Sequence[str]) -> NDArray[np.float32]:
    """Log odds, shape ``(n_names,)``, that a disease of this name is one of Orphanet's.

    The classes weigh alike, so 0 is a name that could be either. The first call learns from some
    22,000 names, which takes a second or two.

    Raises:
        BadInputError: MONDO is not installed.
    """
    if not names:
        return np.empty(0, dtype=np.float32)
    told: Any = _model().decision_function([normalise_name(name) for name in names])
    return np.asarray(told, dtype=np.float32)


@lru_cache(maxsize=1)
def _model() -> Pipeline:
    """A logistic regression on the pieces of each name."""
    listed: dict[str, bool] = {}
    for term in load_mondo().terms.values():
        name = normalise_name(term.name)
        listed[name] = listed.get(name, False) or "Orphanet" in term.codes
    names = sorted(listed)
    model = make_pipeline(
        TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=_LENGTHS,
            min_df=_FEWEST_NAMES,
            sublinear_tf=True,
            dtype=np.float32,
        ),
        LogisticRegression(C=_C, class_weight="balanced", solver="liblinear", random_state=0),
    )
    return model.fit(names, np.asarray([listed[name] for name in names]))


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_HEDGES = _words(
    """
    may might could possible possibly perhaps likely unlikely suggest suggests suggesting
    consider considered appears seems suspected uncertain unclear probable probably
    """
)
_CERTAINTIES = _words(
    """
    definite definitely certain certainly clearly diagnostic pathognomonic classic classical
    typical characteristic confirms confirmed always strongly
    """
)
_NEGATIONS = _words(
    """
    no not without absent absence denies denied negative never neither nor nobody none
    """
)
_RARE = _words(
    """
    rare rarely uncommon orphanet genetic inherited hereditary congenital familial syndrome
    mutation dysplasia autosomal recessive dominant
    """
)
_VOCABULARIES = (_HEDGES, _CERTAINTIES, _NEGATIONS, _RARE)
_DIMENSIONS = 8  # of the embedding; every column is paid for in each cell of the screening
_WORD = re.compile(r"[a-z]+")

WORDING = (
    "hedging",
    "certainty",
    "negation",
    "rarity",
    "log_words",
    *(f"embedding_{n}" for n in range(_DIMENSIONS)),
)
"""What ``wording_of`` counts, in order."""


def wording_of(text: str) -> list[float]:
    """Shares of hedging, certain, negating and rarity words, log of the length, an embedding.

    The embedding is the mean over words of a signed hash (Weinberger et al., Feature hashing for
    large scale multitask learning, ICML 2009), scaled to length 1; all 0 for a text without words.
    """
    words = _WORD.findall(text.lower())
    shares = [
        sum(word in vocabulary for word in words) / max(1, len(words))
        for vocabulary in _VOCABULARIES
    ]
    embedding = [0.0] * _DIMENSIONS
    for word in words:
        place, sign = _bucket(word)
        embedding[place] += sign
    length = math.hypot(*embedding) or 1.0
    return [*shares, math.log1p(len(words)), *(value / length for value in embedding)]


@lru_cache(maxsize=100_000)
def _bucket(word: str) -> tuple[int, float]:
    digest = crc32(word.encode())
    return digest % _DIMENSIONS, 1.0 if digest & 1 << 16 else -1.0


PLACES = 5  # of a differential and of the insights, as the answer's schema has it
_BATCH = 20_000  # rows read at a time; one such batch as Python objects takes about 100 MB


@dataclass(frozen=True)
class Panel:
    """Answers of ``t`` teachers to ``n`` cases; failed and missing ones are gaps.

    ``risk`` has shape ``(n, t)``, 0 to 1 with ties broken as ``graded_risk`` does, NaN where a
    teacher is silent. ``named``, ``(n, t, 5)``, are numbers of diseases, most likely first, each
    once, 0 for an empty place; ``orphanet`` says whether each is an Orphanet disorder, ``systems``
    which organ systems it affects, a bit each, and ``rarity`` what ``rarity_of`` makes of its
    name, NaN at an empty place. ``reasons``, ``(n, t, 5)``, are numbers of insights;
    ``attention``, ``(n, t, 3)``, is entropy, concentration and largest weight of them;
    ``wording``, ``(n, t, 13)``, is what ``wording_of`` counts in the explanation.
    """

    case_ids: tuple[str, ...]
    teachers: tuple[str, ...]
    risk: NDArray[np.float64]
    named: NDArray[np.int32]
    orphanet: NDArray[np.bool_]
    systems: NDArray[np.uint32]
    rarity: NDArray[np.float32]
    reasons: NDArray[np.int32]
    attention: NDArray[np.float64]
    wording: NDArray[np.float64]

    def answered(self) -> NDArray[np.bool_]:
        """Whether each teacher answered each case, shape ``(n, t)``."""
        return ~np.isnan(self.risk)

    def rows(self, chosen: NDArray[Any]) -> "Panel":
        """The cases at ``chosen``: a mask of shape ``(n,)`` or positions."""
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        case_ids = tuple(self.case_ids[place] for place in positions)
        return replace(self, case_ids=case_ids, **self._arrays(lambda array: array[positions]))

    def among(self, case_ids: Iterable[str]) -> "Panel":
        """The cases that are in ``case_ids``."""
        wanted = set(case_ids)
        return self.rows(np.asarray([one in wanted for one in self.case_ids], dtype=bool))

    def of(self, teachers: Sequence[str]) -> "Panel":
        """The panel of exactly ``teachers``, by case id; one it does not know stays silent.

        A case that none of them answered is left out.
        """
        silent = _empty(len(self.case_ids), len(teachers))
        places = [self.teachers.index(name) if name in self.teachers else None for name in teachers]
        for name, array in silent.items():
            for column, place in enumerate(places):
                if place is not None:
                    array[:, column] = getattr(self, name)[:, place]
        chosen = Panel(self.case_ids, tuple(teachers), **silent)
        heard = np.flatnonzero(chosen.answered().any(axis=1))
        return chosen.rows(np.asarray(sorted(heard, key=lambda row: self.case_ids[row]), dtype=int))

    def columns(self, chosen: slice) -> "Panel":
        """All cases with the chosen teachers, answered or not."""
        return replace(
            self,
            teachers=self.teachers[chosen],
            **self._arrays(lambda array: array[:, chosen]),
        )

    def dealt(self, teacher: str, order: NDArray[np.intp]) -> "Panel":
        """The panel in which ``teacher`` says of case ``i`` what it said of case ``order[i]``."""
        column = self.teachers.index(teacher)

        def deal(array: NDArray[Any]) -> NDArray[Any]:
            dealt = array.copy()
            dealt[:, column] = array[order, column]
            return dealt

        return replace(self, **self._arrays(deal))

    def silenced(self, gaps: NDArray[np.bool_]) -> "Panel":
        """The panel without the answers at ``gaps``, shape ``(n, t)``."""
        nothing = _empty(1, 1)

        def silence(name: str, array: NDArray[Any]) -> NDArray[Any]:
            shape = gaps.shape + (1,) * (array.ndim - 2)
            return np.where(gaps.reshape(shape), nothing[name][0, 0], array)

        changed: dict[str, Any] = {name: silence(name, getattr(self, name)) for name in nothing}
        return replace(self, **changed)

    def _arrays(self, change: Any) -> dict[str, Any]:
        return {
            field.name: change(getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("case_ids", "teachers")
        }


def panel_of(answers: Iterable[AnswerRow]) -> Panel:
    """The given answers of ``answers``, cases and teachers in the order of their names."""
    given = [item for item in answers if item.answer is not None]
    panel = _Builder(
        sorted({item.case_id for item in given}), sorted({item.teacher for item in given})
    )
    for item in given:
        panel.add({**item.model_dump(include={"case_id", "teacher"}), **_said(item)})
    return panel.done()


def read_panel(path: Path, case_ids: Iterable[str]) -> Panel:
    """The answers to ``case_ids`` in a file that ``write_answers`` made; a part at a time.

    Raises:
        BadInputError: the file is missing or not an answers file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadInputError(f"{path} is missing; run the rationales stage (dvc repro rationales).")
    try:
        if pq.read_schema(path).remove_metadata() != SCHEMA:
            raise pa.ArrowInvalid("other columns")
        keys = pq.read_table(path, columns=["teacher", "status"]).to_pandas()
        teachers = sorted(keys.loc[keys["status"] == "ok", "teacher"].unique())
        panel = _Builder(sorted(set(case_ids)), teachers)
        for row in _rows(path, panel.case_ids):
            panel.add(row)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            f"{path} can't be read as an answers file; delete it and run dvc repro."
        ) from error
    return panel.done()


def _rows(path: Path, case_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The given answers to ``case_ids``; a row that is not wanted never becomes an object."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    asked = pa.array(case_ids, pa.string())
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            given = pc.equal(batch["status"], "ok")
            known = pc.is_in(batch["case_id"], value_set=asked)
            yield from batch.filter(pc.and_(given, known)).to_pylist()


def _said(item: AnswerRow) -> dict[str, Any]:
    return item.answer.model_dump() if item.answer else {}


def _empty(cases: int, teachers: int) -> dict[str, NDArray[Any]]:
    """Arrays of a panel in which nobody says anything."""
    shape = (cases, teachers)
    return {
        "risk": np.full(shape, np.nan),
        "named": np.zeros((*shape, PLACES), dtype=np.int32),
        "orphanet": np.zeros((*shape, PLACES), dtype=bool),
        "systems": np.zeros((*shape, PLACES), dtype=np.uint32),
        "rarity": np.full((*shape, PLACES), np.nan, dtype=np.float32),
        "reasons": np.zeros((*shape, PLACES), dtype=np.int32),
        "attention": np.full((*shape, 3), np.nan),
        "wording": np.full((*shape, len(WORDING)), np.nan),
    }


class _Builder:
    """Fills a panel answer by answer."""

    def __init__(self, case_ids: Sequence[str], teachers: Sequence[str]) -> None:
        self.case_ids, self.teachers = tuple(case_ids), tuple(teachers)
        self.row_of = {name: row for row, name in enumerate(case_ids)}
        self._column_of = {name: column for column, name in enumerate(teachers)}
        self._number_of: dict[str, int] = {}
        self._arrays = _empty(len(case_ids), len(teachers))
        self._spelling_of: dict[str, int] = {}
        self._spelt = np.full(self._arrays["named"].shape, -1, dtype=np.int32)

    def add(self, said: Mapping[str, Any]) -> None:
        """Enter one answer, a row of the answers file."""
        at = self.row_of[said["case_id"]], self._column_of[said["teacher"]]
        arrays = self._arrays
        arrays["risk"][at] = graded_risk(said["risk"], said["expected_risk"])
        diseases: dict[str, tuple[str | None, str]] = {}
        for item in said["differential"]:
            spelling = _key(item["name"])
            diseases.setdefault(item["orpha_code"] or spelling, (item["orpha_code"], spelling))
        for place, (key, (code, spelling)) in enumerate(islice(diseases.items(), PLACES)):
            arrays["named"][(*at, place)] = self._number(key)
            arrays["orphanet"][(*at, place)] = code is not None
            self._spelt[(*at, place)] = self._spelling_of.setdefault(
                spelling, len(self._spelling_of)
            )
            if code is not None:
                arrays["systems"][(*at, place)] = systems_of_disorders().get(code, 0)
        if said["insights"]:
            reasons = dict.fromkeys(_key(item["name"]) for item in said["insights"])
            for place, key in enumerate(islice(reasons, PLACES)):
                arrays["reasons"][(*at, place)] = self._number(key)
            arrays["attention"][at] = _attention([item["weight"] for item in said["insights"]])
        arrays["wording"][at] = wording_of(said["explanation"])

    def done(self) -> Panel:
        """The panel of the cases that someone answered."""
        known = self._spelt >= 0
        self._arrays["rarity"][known] = rarity_of(list(self._spelling_of))[self._spelt[known]]
        panel = Panel(self.case_ids, self.teachers, **self._arrays)
        return panel.rows(np.flatnonzero(panel.answered().any(axis=1)))

    def _number(self, key: str) -> int:
        return self._number_of.setdefault(key, len(self._number_of) + 1)


@lru_cache(maxsize=200_000)
def _key(name: str) -> str:
    return normalise_name(name)


def _attention(given: Sequence[float]) -> tuple[float, float, float]:
    """Normalised Shannon entropy, Herfindahl index and largest of the weights, each 0 to 1."""
    weights = np.asarray(given)
    told = weights[weights > 0]
    most = np.log(len(weights))
    entropy = float(-(told * np.log(told)).sum() / most) if most else 0.0
    return entropy, float(weights @ weights), float(weights.max())


@lru_cache(maxsize=1)
def systems_of_disorders() -> Mapping[str, int]:
    """The organ systems that each Orphanet disorder's findings belong to, a bit each."""
    from rarealert.knowledge.hpo import load_ontology
    from rarealert.knowledge.profiles import load_rare_profiles

    ontology = load_ontology()
    bit_of: dict[str, int] = {}
    found = {}
    for profile in load_rare_profiles():
        bits = 0
        for finding in profile.findings:
            if not finding.excluded:
                for system in sorted(ontology.organ_systems(finding.hpo_id)):
                    bits |= 1 << bit_of.setdefault(system, len(bit_of))
        found[profile.disease_id] = bits
    return found
