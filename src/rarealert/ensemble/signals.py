"""The teachers' answers as arrays: one row a case, one column a teacher, gaps where none answered.

Arrays, because a national panel of 1.6 million answers as objects would not fit into memory.
Nothing here is fitted on cases or labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from rarealert.errors import BadInputError
from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.mondo import load_mondo
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import load_rare_profiles
from rarealert.teachers.teacher_answer import SCHEMA, AnswerRow, graded_risk

PLACES = 5  # of a differential and of the insights, as the answer's schema has it
_BATCH = 20_000  # rows read at a time; one such batch as Python objects takes about 100 MB


@dataclass(frozen=True)
class Signals:
    """Answers of ``t`` teachers to ``n`` cases; failed and missing ones are gaps.

    ``risk`` has shape ``(n, t)``, 0 to 1 with ties broken as ``graded_risk`` does, NaN where a
    teacher did not answer. ``named``, ``(n, t, 5)``, are numbers of diseases, most likely first,
    each once, 0 for an empty place. ``orphanet`` is whether each is an Orphanet disorder,
    ``systems`` the organ systems it affects, one bit each, and ``rarity`` the log odds of
    ``rarity_of``, NaN at an empty place. ``reasons``, ``(n, t, 5)``, are numbers of insights;
    ``attention``, ``(n, t, 3)``, is entropy, concentration and largest weight of them.
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

    def answered(self) -> NDArray[np.bool_]:
        """Whether each teacher answered each case, shape ``(n, t)``."""
        return ~np.isnan(self.risk)

    def rows(self, chosen: NDArray[Any]) -> "Signals":
        """Select the cases at ``chosen``: a mask of shape ``(n,)`` or positions."""
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        case_ids = tuple(self.case_ids[place] for place in positions)
        return replace(self, case_ids=case_ids, **self._arrays(lambda array: array[positions]))

    def among(self, case_ids: Iterable[str]) -> "Signals":
        """Select the cases that are in ``case_ids``."""
        wanted = set(case_ids)
        return self.rows(np.asarray([one in wanted for one in self.case_ids], dtype=bool))

    def of(self, teachers: Sequence[str]) -> "Signals":
        """Select exactly ``teachers``, cases in the order of their ids.

        An unknown teacher has gaps; a case that none of them answered is left out.
        """
        arrays = _gaps(len(self.case_ids), len(teachers))
        places = [self.teachers.index(name) if name in self.teachers else None for name in teachers]
        for name, array in arrays.items():
            for column, place in enumerate(places):
                if place is not None:
                    array[:, column] = getattr(self, name)[:, place]
        chosen = Signals(self.case_ids, tuple(teachers), **arrays)
        answered = np.flatnonzero(chosen.answered().any(axis=1))
        in_order = sorted(answered, key=lambda row: self.case_ids[row])
        return chosen.rows(np.asarray(in_order, dtype=int))

    def columns(self, chosen: slice) -> "Signals":
        """Select teachers and keep all cases, answered or not."""
        arrays = self._arrays(lambda array: array[:, chosen])
        return replace(self, teachers=self.teachers[chosen], **arrays)

    def permuted(self, teacher: str, order: NDArray[np.intp]) -> "Signals":
        """Give case ``i`` the answer of ``teacher`` to case ``order[i]``."""
        column = self.teachers.index(teacher)

        def permute(array: NDArray[Any]) -> NDArray[Any]:
            permuted = array.copy()
            permuted[:, column] = array[order, column]
            return permuted

        return replace(self, **self._arrays(permute))

    def without(self, gaps: NDArray[np.bool_]) -> "Signals":
        """Remove the answers at ``gaps``, shape ``(n, t)``."""
        empty = _gaps(1, 1)

        def remove(name: str, array: NDArray[Any]) -> NDArray[Any]:
            shape = gaps.shape + (1,) * (array.ndim - 2)
            return np.where(gaps.reshape(shape), empty[name][0, 0], array)

        changed: dict[str, Any] = {name: remove(name, getattr(self, name)) for name in empty}
        return replace(self, **changed)

    def without_teacher(self, teacher: str) -> "Signals":
        """Remove all answers of ``teacher``; its column stays, as gaps."""
        gaps = np.zeros_like(self.answered())
        gaps[:, self.teachers.index(teacher)] = True
        return self.without(gaps)

    def _arrays(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
        return {
            field.name: change(getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("case_ids", "teachers")
        }


def signals_of(answers: Iterable[AnswerRow]) -> Signals:
    """Convert the successful ones of ``answers``; cases and teachers are in alphabetical order."""
    given = [(item, item.answer) for item in answers if item.answer is not None]
    builder = _Builder(
        sorted({item.case_id for item, _ in given}), sorted({item.teacher for item, _ in given})
    )
    for item, answer in given:
        builder.add({"case_id": item.case_id, "teacher": item.teacher, **answer.model_dump()})
    return builder.build()


def read_signals(path: Path, case_ids: Iterable[str]) -> Signals:
    """Read the answers to ``case_ids`` from a file that ``write_answers`` made, batch by batch.

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
        builder = _Builder(sorted(set(case_ids)), teachers)
        for row in _rows(path, builder.case_ids):
            builder.add(row)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInputError(
            f"{path} can't be read as an answers file; delete it and run dvc repro."
        ) from error
    return builder.build()


def _rows(path: Path, case_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The successful answers to ``case_ids``; no other row becomes an object."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(case_ids, pa.string())
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            given = pc.equal(batch["status"], "ok")
            known = pc.is_in(batch["case_id"], value_set=wanted)
            yield from batch.filter(pc.and_(given, known)).to_pylist()


def _gaps(cases: int, teachers: int) -> dict[str, NDArray[Any]]:
    """The arrays of ``Signals`` without any answer."""
    shape = (cases, teachers)
    return {
        "risk": np.full(shape, np.nan),
        "named": np.zeros((*shape, PLACES), dtype=np.int32),
        "orphanet": np.zeros((*shape, PLACES), dtype=bool),
        "systems": np.zeros((*shape, PLACES), dtype=np.uint32),
        "rarity": np.full((*shape, PLACES), np.nan, dtype=np.float32),
        "reasons": np.zeros((*shape, PLACES), dtype=np.int32),
        "attention": np.full((*shape, 3), np.nan),
    }


class _Builder:
    """Fills the arrays answer by answer; the rarity of names is looked up once, at the end."""

    def __init__(self, case_ids: Sequence[str], teachers: Sequence[str]) -> None:
        self.case_ids, self.teachers = tuple(case_ids), tuple(teachers)
        self._row_of = {name: row for row, name in enumerate(case_ids)}
        self._column_of = {name: column for column, name in enumerate(teachers)}
        self._number_of: dict[str, int] = {}
        self._arrays = _gaps(len(case_ids), len(teachers))
        self._spelling_of: dict[str, int] = {}
        self._spelling = np.full(self._arrays["named"].shape, -1, dtype=np.int32)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Enter one answer, a row of the answers file."""
        at = self._row_of[answer["case_id"]], self._column_of[answer["teacher"]]
        arrays = self._arrays
        arrays["risk"][at] = graded_risk(answer["risk"], answer["expected_risk"])
        diseases: dict[str, tuple[str | None, str]] = {}
        for item in answer["differential"]:
            spelling = _key(item["name"])
            diseases.setdefault(item["orpha_code"] or spelling, (item["orpha_code"], spelling))
        for place, (key, (code, spelling)) in enumerate(islice(diseases.items(), PLACES)):
            arrays["named"][(*at, place)] = self._number(key)
            arrays["orphanet"][(*at, place)] = code is not None
            number = self._spelling_of.setdefault(spelling, len(self._spelling_of))
            self._spelling[(*at, place)] = number
            if code is not None:
                arrays["systems"][(*at, place)] = _systems_of_disorders().get(code, 0)
        if answer["insights"]:
            reasons = dict.fromkeys(_key(item["name"]) for item in answer["insights"])
            for place, key in enumerate(islice(reasons, PLACES)):
                arrays["reasons"][(*at, place)] = self._number(key)
            weights = np.asarray([item["weight"] for item in answer["insights"]])
            arrays["attention"][at] = _attention(weights)

    def build(self) -> Signals:
        """The signals of the cases with at least one answer."""
        known = self._spelling >= 0
        self._arrays["rarity"][known] = rarity_of(list(self._spelling_of))[self._spelling[known]]
        found = Signals(self.case_ids, self.teachers, **self._arrays)
        return found.rows(np.flatnonzero(found.answered().any(axis=1)))

    def _number(self, key: str) -> int:
        return self._number_of.setdefault(key, len(self._number_of) + 1)


@lru_cache(maxsize=200_000)
def _key(name: str) -> str:
    return normalise_name(name)


def _attention(weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """Normalised Shannon entropy, Herfindahl index and largest of the weights, each 0 to 1."""
    positive = weights[weights > 0]
    most = np.log(len(weights))
    entropy = float(-(positive * np.log(positive)).sum() / most) if most else 0.0
    return entropy, float(weights @ weights), float(weights.max())


@lru_cache(maxsize=1)
def _systems_of_disorders() -> Mapping[str, int]:
    """The organ systems that each Orphanet disorder's findings belong to, one bit each."""
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


_NAME_PIECES = (2, 4)  # characters of the pieces that a name is cut into
_FEWEST_NAMES = 3  # that must contain a piece for it to be used
_NAME_C = 3.0  # inverse penalty


def rarity_of(names: Sequence[str]) -> NDArray[np.float32]:
    """Log odds, shape ``(n_names,)``, that a disease of this name is one of Orphanet's.

    A language model's diagnosis is free text, and a name that no table resolves need not be
    common: "malignant spindle cell tumour of the palate" is in no table, yet reads like a rare
    disease. The classifier is fitted on MONDO's 22,000 names, those with an Orphanet code against
    those without, in a second or two at the first call. The classes weigh alike, so 0 is a name
    that could be either.

    Raises:
        BadInputError: MONDO is not installed.
    """
    if not names:
        return np.empty(0, dtype=np.float32)
    log_odds: Any = _rarity_model().decision_function([normalise_name(name) for name in names])
    return np.asarray(log_odds, dtype=np.float32)


@lru_cache(maxsize=1)
def _rarity_model() -> Pipeline:
    """A logistic regression on the pieces of each name."""
    listed: dict[str, bool] = {}
    for term in load_mondo().terms.values():
        name = normalise_name(term.name)
        listed[name] = listed.get(name, False) or "Orphanet" in term.codes
    names = sorted(listed)
    model = make_pipeline(
        TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=_NAME_PIECES,
            min_df=_FEWEST_NAMES,
            sublinear_tf=True,
            dtype=np.float32,
        ),
        LogisticRegression(C=_NAME_C, class_weight="balanced", solver="liblinear", random_state=0),
    )
    return model.fit(names, np.asarray([listed[name] for name in names]))
