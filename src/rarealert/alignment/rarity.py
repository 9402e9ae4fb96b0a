"""How much a disease's name reads like one that Orphanet lists, whether or not it is known.

A language model's diagnosis is free text, and what no table resolves need not be common: "malignant
spindle cell tumour of the palate" names nothing that Orphanet lists, yet reads like it. The names
of MONDO teach the difference, those with an Orphanet code against those without. No case and no
label of a case takes part, so nothing here can know one.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from rarealert.knowledge.mondo import load_mondo
from rarealert.knowledge.names import normalise_name

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
