"""TF-IDF vectors: alike texts are near, new texts are encoded, the state is saved."""

import numpy as np
import torch

from models.content.tfidf import Tfidf

TEXTS = ["", "green tea pot", "iron tea kettle", "trail shoes for running", "race belt, running"]


def fitted(texts: list[str] = TEXTS, *, dim: int = 3) -> Tfidf:
    return Tfidf.fit(texts, dim=dim, rng=np.random.default_rng(0))


def test_texts_with_common_words_are_near():
    vectors = fitted(dim=2).encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-5)
    assert not vectors[0].any()
    similar = vectors @ vectors.T
    assert similar[1, 2] > 0.9
    assert similar[3, 4] > 0.9
    assert abs(similar[1, 3]) < 0.1


def test_a_new_text_lies_by_its_known_words_and_others_are_zeros():
    model = fitted(dim=2)
    new, none = model.encode(["A TEA cosy", "completely else"])
    assert new @ model.encode(["green tea pot"])[0] > 0.9
    assert not none.any()


def test_the_state_is_whole_in_its_buffers():
    model = fitted()
    other = Tfidf(**model.sizes())
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.encode(TEXTS), model.encode(TEXTS))


def test_few_and_empty_texts_give_narrow_vectors():
    assert fitted([""]).encode(["a", ""]).shape == (2, 0)
    assert fitted([]).encode(["a"]).shape == (1, 0)
    assert fitted(["one word", "two words"], dim=64).encode(["word"]).shape == (1, 1)


def test_is_the_same_for_the_same_seed():
    assert torch.equal(fitted().components, fitted().components)
