"""Text vectors: the real encoder finds similar texts, and the cache returns what was stored."""

import numpy as np
import pytest

from models.content import text
from models.content.text import TEXT_DIM, TextEncoderError, text_vectors

TEXTS = [
    "",
    "Star Wars (1977). Action, Adventure, Sci-Fi",
    "The Empire Strikes Back (1980). Action, Adventure, Sci-Fi",
    "Pride and Prejudice (1995). Drama, Romance",
    "Sense and Sensibility (1995). Drama, Romance",
    "Star Wars (1977). Action, Adventure, Sci-Fi",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def vectors(cache):
    return text_vectors(TEXTS, cache=cache)


def test_alike_texts_have_alike_vectors(vectors):
    assert vectors.shape == (6, TEXT_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], 0)
    np.testing.assert_array_equal(vectors[1], vectors[5])
    similar = vectors @ vectors.T
    assert similar[1, 2] > similar[1, 3] + 0.2
    assert similar[3, 4] > similar[2, 4] + 0.2


def test_the_cache_is_read_for_the_same_texts_only(vectors, cache, monkeypatch):
    def refuse(texts, *, device):
        raise AssertionError(f"encodes {len(texts)} texts again")

    monkeypatch.setattr(text, "_encode", refuse)
    np.testing.assert_array_equal(text_vectors(TEXTS, cache=cache), vectors)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    with pytest.raises(AssertionError, match="encodes 5 texts again"):
        text_vectors(TEXTS[:5], cache=cache)


def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(text, "PACKAGE", "no_such_encoder")
    with pytest.raises(TextEncoderError, match="want package no-such-encoder"):
        text.encoder_folder()
