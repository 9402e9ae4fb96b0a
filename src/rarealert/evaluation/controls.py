"""Negative controls: logistic regressions on aspects of a visit that contain no medicine.

A risk model that does not beat them may have learnt how notes are written, not who is ill. Each
control is fitted on the training part and predicts other parts.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rarealert.errors import BadInputError
from rarealert.evaluation.metrics import FloatArray
from rarealert.visits.case import TEXT_FIELDS, Case
from rarealert.visits.reading import render

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

MISSING_PREFIX = "missing_"

_MARKS = {
    # how records are blanked: ___, [**Name**], <NAME>, XXX, [redacted], blocks
    "redactions": r"_{2,}|\[\*\*|<[A-Z][A-Z _-]+>|\bX{2,}\b|\[[^\]\n]{1,40}\]|\u2588+|(?i:redact)",
    "commas": r",",
    "full_stops": r"\.",
    "semicolons": r";",
    "colons": r":",
    "dashes": r"[-\u2013\u2014]",
    "brackets": r"[()]",
    "quotes": r"[\"'\u2018\u2019\u201c\u201d]",
    "slashes": r"/",
    "questions": r"[?!]",
    "digits": r"\d",
    "capitals": r"[A-Z]",
    "beyond_ascii": r"[^\x00-\x7F]",
}
"""Marks counted per 100 words; none of them is a word."""

_MAX_WORDS = 20_000  # distinct words and pairs; more only memorises


def control_frame(cases: Sequence[Case]) -> "pd.DataFrame":
    """What controls are fitted on and predict from: one row a case, without labels."""
    import pandas as pd

    fields = ("age_years", "sex", *TEXT_FIELDS, "findings_present", "findings_excluded")
    rows = [
        {
            "case_id": case.case_id,
            "source": case.source,
            "text": render(case),
            "age_years": case.age_years,
            "sex": case.sex,
            **{f"{MISSING_PREFIX}{name}": getattr(case, name) is None for name in fields},
        }
        for case in cases
    ]
    return pd.DataFrame(rows).astype({"age_years": float})


def fit_controls(train: "pd.DataFrame", labels: ArrayLike, seed: int) -> dict[str, "Control"]:
    """Every control by its id, fitted on the training part.

    ``train`` is a ``control_frame`` or a frame with the same columns; ``labels``, shape ``(n,)``,
    are 1 for rare and 0 for non-rare cases.

    Raises:
        BadInputError: the labels hold one class only.
    """
    truth = np.asarray(labels, dtype=np.intp)
    if np.unique(truth).size < 2:
        raise BadInputError("The training part holds one label only; controls need both.")
    return {name: Control(prepare, train, truth, seed) for name, prepare in _PREPARE.items()}


class Control:
    """One control: a logistic regression on one aspect of the visit."""

    def __init__(
        self,
        prepare: Callable[["pd.DataFrame"], "pd.DataFrame | pd.Series[str]"],
        train: "pd.DataFrame",
        labels: ArrayLike,
        seed: int,
    ) -> None:
        self._prepare = prepare
        features = prepare(train)
        self._model = _pipeline(text=features.ndim == 1, seed=seed)
        self._model.fit(features, labels)

    def predict(self, frame: "pd.DataFrame") -> FloatArray:
        """Risk of each row of a ``control_frame``, shape ``(n,)``, 0 to 1."""
        if frame.empty:
            return np.empty(0)
        features = self._prepare(frame)
        return np.asarray(self._model.predict_proba(features)[:, 1], dtype=np.float64)


def _source(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame[["source"]].astype(object)


def _length(frame: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    words = frame["text"].str.count(r"\s+") + 1
    sentences = frame["text"].str.count(r"[.;\n]").clip(lower=1)
    log_words, log_sentences = np.log(words), np.log(sentences)
    return pd.DataFrame(
        {
            "log_words": log_words,
            "log_words_squared": log_words**2,
            "log_sentences": log_sentences,
            "words_a_sentence": words / sentences,
        }
    )


def _missingness(frame: "pd.DataFrame") -> "pd.DataFrame":
    flags = [name for name in frame.columns if name.startswith(MISSING_PREFIX)]
    return frame[sorted(flags)].astype(float)


def _demographics(frame: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    bands = pd.cut(frame["age_years"], [-1, 1, 5, 12, 18, 30, 45, 60, 75, np.inf], labels=False)
    return pd.DataFrame(
        {
            "age_band": bands.map(lambda band: "unknown" if pd.isna(band) else f"band {band:.0f}"),
            "sex": frame["sex"].fillna("unknown"),
        }
    ).astype(object)


def _punctuation(frame: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    text = frame["text"]
    # not per character: long words are medicine
    words = text.str.count(r"\s+") + 1
    marks = {name: text.str.count(pattern) for name, pattern in _MARKS.items()}
    return pd.DataFrame({name: 100 * count / words for name, count in marks.items()})


def _text(frame: "pd.DataFrame") -> "pd.Series[str]":
    return frame["text"]


_PREPARE: dict[str, Callable[["pd.DataFrame"], "pd.DataFrame | pd.Series[str]"]] = {
    "source": _source,
    "length": _length,
    "missingness": _missingness,
    "demographics": _demographics,
    "punctuation": _punctuation,
    "tfidf": _text,
}

CONTROLS = tuple(_PREPARE)
"""Ids of the controls: five use no medicine, the sixth uses words without their meaning."""

WORDS = "tfidf"
"""The control that uses words. Some of them are medicine, so it is not only a shortcut."""


def _pipeline(text: bool, seed: int) -> "Pipeline":
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fit = LogisticRegression(C=10.0 if text else 1.0, max_iter=2000, random_state=seed)
    if text:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=_MAX_WORDS)
        return make_pipeline(words, fit)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
        (StandardScaler(), make_column_selector(dtype_include=float)),
    )
    return make_pipeline(columns, fit)
