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


def test_only_texts_that_are_not_in_the_cache_are_encoded(vectors, cache, monkeypatch):
    encoded = []

    def note(texts, *, device, encoder):
        encoded.extend(texts)
        return np.eye(len(texts), TEXT_DIM, dtype=np.float32)

    monkeypatch.setattr(text, "_encode", note)
    np.testing.assert_array_equal(text_vectors(TEXTS, cache=cache), vectors)
    np.testing.assert_array_equal(text_vectors(TEXTS[2:4], cache=cache), vectors[2:4])
    assert encoded == []
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    more = text_vectors(["a new one", *TEXTS[1:3], "a new one"], cache=cache)
    assert encoded == ["a new one"]
    np.testing.assert_array_equal(more[1:3], vectors[1:3])
    text_vectors(["a new one"], cache=cache)
    assert len(encoded) == 1


def test_a_damaged_cache_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_encode", lambda texts, **_: np.ones((len(texts), 2), np.float32))
    text_vectors(["a", "b"], cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"not safetensors")
    assert text_vectors(["a"], cache=tmp_path).tolist() == [[1, 1]]
    assert len(file.read_bytes()) > 50


def test_a_text_of_a_megabyte_is_cut(monkeypatch):
    seen = []
    monkeypatch.setattr(
        text, "_encode", lambda texts, **_: seen.extend(texts) or np.ones((len(texts), 2))
    )
    text_vectors(["word " * 200_000, "\ud800 lone surrogate"], cache=None)
    assert [len(one) <= text.MAX_CHARACTERS for one in seen] == [True, True]


def test_an_encoder_that_is_nowhere_is_named(tmp_path):
    with pytest.raises(TextEncoderError, match=r"text encoder '.*' can't be loaded.*tfidf"):
        text_vectors(["a"], cache=None, encoder=str(tmp_path))


def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(text, "PACKAGE", "no_such_encoder")
    with pytest.raises(TextEncoderError, match="want package no-such-encoder"):
        text.encoder_folder()
