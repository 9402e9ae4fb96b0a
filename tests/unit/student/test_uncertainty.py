"""The packaged uncertainty of a student."""

import json

import numpy as np
import pytest

from rarealert.calibration.conformal import fit_cuts
from rarealert.calibration.familiarity import fit_familiarity
from rarealert.calibration.venn_abers import fit_venn_abers
from rarealert.errors import BadInputError
from rarealert.student.uncertainty import Uncertainty, load_uncertainty


def fitted(features):
    random = np.random.default_rng(2)
    log_odds = random.normal(0, 2, 50).round(1)
    rare = random.random(50) < 1 / (1 + np.exp(-log_odds))
    return Uncertainty(
        coverage=0.8,
        cuts=fit_cuts(rare, log_odds, 0.8),
        venn_abers=fit_venn_abers(log_odds, rare),
        familiar_share=0.98,
        distance_threshold=2.0,
        neutral=0.0,
        familiarity=fit_familiarity(features),
    )


def test_the_loaded_uncertainty_is_the_saved_one(tmp_path):
    features = np.random.default_rng(2).normal(size=(40, 6))
    saved = fitted(features)
    saved.save(tmp_path)
    loaded = load_uncertainty(tmp_path)
    asked = np.linspace(-5, 5, 21)
    assert loaded.venn_abers == saved.venn_abers
    assert (loaded.abstains(asked) == saved.abstains(asked)).all()
    np.testing.assert_allclose(loaded.ood_score(features), saved.ood_score(features), rtol=1e-4)
    assert "familiarity" not in json.loads((tmp_path / "uncertainty.json").read_text())


@pytest.mark.parametrize("file", ["familiar.safetensors", "uncertainty.json"])
@pytest.mark.parametrize("content", [b"cut", b"\xff\xfe", b"[]", b'{"coverage": "much"}'])
def test_a_damaged_file_is_refused_by_name(tmp_path, file, content):
    fitted(np.random.default_rng(2).normal(size=(40, 6))).save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BadInputError, match="damaged"):
        load_uncertainty(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(BadInputError, match=file.replace(".", r"\.")):
        load_uncertainty(tmp_path)
