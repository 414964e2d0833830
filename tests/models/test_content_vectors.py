"""Content vectors in sequence models: no effect before training, then vectors for new items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import registry
from models.content.text import TEXT_DIM
from models.content.vectors import (
    ContentError,
    content_vectors,
    given_vectors,
    vectors_of_items,
)
from models.data import TrainingData
from models.layers import ItemEmbedding
from models.sequence.fit import ARCHITECTURES, load_sequence, train_sequence
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource
from shortlist.items.catalogue import Catalogue
from tests.models.small_data import catalogue_of, queries_of, training_data

OPTIONS = TrainingOptions(seed=3, num_threads=1)
EVENTFUL, ITEMS = 30, 34
"""Items 1 to 30 have events, items 31 to 34 have none. No history has odd and even items."""


@pytest.fixture(scope="module")
def colours() -> tuple[TrainingData, np.ndarray]:
    """Training data and content vectors of all items.

    Items have two colours, odd and even. A history has items of one colour, and a content vector
    shows the colour.
    """
    rng = np.random.default_rng(0)
    own = np.arange(1, EVENTFUL + 1)
    histories = [rng.permutation(own[own % 2 == user % 2]).tolist() for user in range(80)]
    content = rng.normal(scale=0.1, size=(ITEMS + 1, 6)).astype(np.float32)
    content[np.arange(ITEMS + 1), np.arange(ITEMS + 1) % 2] += 1
    content[0] = 0
    return training_data(catalogue_of([[]] * ITEMS), histories), content


def fit(
    kind: str,
    colours: tuple[TrainingData, np.ndarray],
    *,
    options: TrainingOptions = OPTIONS,
    content: bool | None = None,
    validate=lambda model: float("nan"),
    **optimiser,
) -> VectorSource:
    config = ARCHITECTURES[kind][0].model_validate(
        {
            "embedding_dim": 16,
            "batch_size": 16,
            "dropout": 0.1,
            "unknown_item_rate": 0.2,
            "content": content,
            "optimiser": {"learning_rate": 1e-2, "warmup_steps": 0, "num_epochs": 12} | optimiser,
        }
    )
    data, vectors = colours
    model, history = train_sequence(
        config, data, validate=validate, options=options, content=vectors
    )
    return VectorSource.build(kind, config=model.config, model=model, history=history)


@pytest.fixture(scope="module")
def fitted(colours) -> dict[str, VectorSource]:
    return {kind: fit(kind, colours) for kind in ARCHITECTURES}


def test_an_embedding_by_hand():
    content = np.array([[0, 0], [1, 0], [1, 2]], dtype=np.float32)
    known = np.array([False, True, False])
    embed = ItemEmbedding(np.zeros((3, 0), dtype=np.float32), known=known, dim=2, content=content)
    embed.id.weight.data = torch.tensor([[5.0, 6.0], [1.0, 2.0], [8.0, 9.0]])
    assert embed.of_content is not None
    items = torch.tensor([0, 1, 2])
    assert embed(items).tolist() == [[5, 6], [1, 2], [5, 6]]  # content weights start at zero
    embed.of_content.data = torch.tensor([[10.0, 0.0], [0.0, 100.0]])
    assert embed(items).tolist() == [[5, 6], [1 + 10, 2], [5 + 10, 6 + 200]]
    forgotten = embed(items, drop_id=torch.tensor([False, True, False]))
    assert forgotten.tolist() == [[5, 6], [5 + 10, 6], [5 + 10, 6 + 200]]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_training_begins_as_without_content(colours, kind):
    queries = queries_of([[1, 3, 5], [2], []])
    still = {"learning_rate": 0, "num_epochs": 1}
    one, other = (fit(kind, colours, content=given, **still) for given in (None, False))
    assert (one.config.content, other.config.content) == (True, False)
    np.testing.assert_array_equal(one.query_vectors(queries), other.query_vectors(queries))
    np.testing.assert_array_equal(one.item_vectors, other.item_vectors)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_new_item_lies_where_its_content_puts_it(fitted, colours, kind):
    source = fitted[kind]
    new = source.item_vectors[EVENTFUL + 1 :]
    blind = fit(kind, colours, content=False).item_vectors[EVENTFUL + 1 :]
    assert np.ptp(blind, axis=0).max() == 0  # all have the vector of the unknown item
    assert np.ptp(new, axis=0).max() > 0.1
    for row, colour in ((0, [1, 3, 5, 7, 9]), (1, [2, 4, 6, 8, 10])):
        state = source.query_vectors(queries_of([colour]))[0]
        score = source.item_vectors[EVENTFUL + 1 :] @ state
        assert score[row::2].min() > score[1 - row :: 2].max()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_new_item_in_the_history_affects_the_query_by_content(fitted, kind):
    state = fitted[kind].query_vectors(queries_of([[31, 33], [32, 34]]))
    score = state @ fitted[kind].item_vectors[1 : EVENTFUL + 1].T
    odd, even = score[:, ::2].mean(axis=1), score[:, 1::2].mean(axis=1)
    assert odd[0] > even[0]
    assert even[1] > odd[1]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_loads_with_its_content_as_it_was_saved(fitted, colours, kind, tmp_path):
    source = fitted[kind]
    source.save(tmp_path)
    loaded = load_sequence(kind, tmp_path, colours[0].catalogue)
    assert loaded.config.content is True
    np.testing.assert_array_equal(loaded.model.embed.content.numpy(), colours[1])
    queries = queries_of([[1, 31, 5], [2, 4], []])
    np.testing.assert_array_equal(loaded.query_vectors(queries), source.query_vectors(queries))
    np.testing.assert_array_equal(loaded.model.item_vectors().detach()[1:], source.item_vectors[1:])


class CutOff(Exception):
    """Raised to simulate a killed process."""


def test_a_resumed_training_with_content_equals_an_uninterrupted_one(colours, tmp_path: Path):
    rng = np.random.default_rng(1)
    data = replace(colours[0], type_code=rng.integers(1, 4, size=len(colours[0].time)))
    begun = []

    def third_is_cut(model) -> float:
        begun.append(model)
        if len(begun) == 3:
            raise CutOff
        return float("nan")

    whole = fit("sasrec", (data, colours[1]), num_epochs=4)
    options = replace(OPTIONS, checkpoints=tmp_path)
    with pytest.raises(CutOff):
        fit("sasrec", (data, colours[1]), options=options, validate=third_is_cut, num_epochs=4)
    resumed = fit("sasrec", (data, colours[1]), options=options, num_epochs=4)
    weights, again = whole.model.state_dict(), resumed.model.state_dict()
    assert {"embed.content", "embed.of_content", "types.gain"} <= weights.keys()
    assert weights["embed.of_content"].any()
    for name, own in weights.items():
        assert torch.equal(own, again[name]), name


def with_vectors(**columns: list) -> Catalogue:
    """Return a catalogue with one item per vector, in the given `vector_<modality>` columns."""
    items = catalogue_of([["film"]] * len(next(iter(columns.values())))).items
    for name, rows in columns.items():
        items = items.append_column(name, pa.array(rows, pa.list_(pa.float32())))
    return Catalogue.from_items(items)


def test_given_vectors_get_unit_length_and_missing_ones_are_zeros():
    catalogue = with_vectors(vector_image=[[3, 4], None, [0, 0], []])
    expected = [[0, 0], [0.6, 0.8], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(given_vectors(catalogue, "vector_image"), expected, rtol=1e-6)
    assert given_vectors(with_vectors(vector_image=[None]), "vector_image").shape == (2, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[1], [1, 2], [3, 4], [5]] + [[7, 8]] * 4,
            r"vectors of \[1, 2\] numbers, want one length; most items have 2,"
            r" item i001, i004 differ",
        ),
        ([[1, 2], [np.nan, 2]], r"vector_image of item i002 has NaN, null or infinite numbers"),
        ([[1, None], [1, 2]], r"vector_image of item i001 has NaN, null or infinite numbers"),
        ([[np.inf, 2]] * 5, r"item i001, i002, i003 and 2 more has NaN"),
        ([[1e30, 0], [1, 2]], r"vector_image of item i001 is longer than 1e\+06"),
    ],
)
def test_a_vector_that_cannot_be_right_is_named(rows, message):
    with pytest.raises(ContentError, match=message):
        given_vectors(with_vectors(vector_image=rows), "vector_image")


def test_wrong_vectors_of_new_items_count_as_missing():
    rows = [[3, 4], [1], None, [np.nan, 1], [np.inf, 0], [0, 2]]
    catalogue = with_vectors(vector_image=rows)
    found = vectors_of_items(catalogue, "vector_image", np.array([1, 2, 3, 4, 5, 6]), dim=2)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0, 0], [0, 0], [0, 0], [0, 1]])
    assert vectors_of_items(catalogue, "vector_audio", np.array([1]), dim=3).tolist() == [[0] * 3]


def test_a_source_that_asks_for_content_reads_text_and_given_vectors(small_world, tmp_path):
    data, validation = small_world
    kinds = np.arange(data.num_items) % 4
    catalogue = with_vectors(vector_image=np.eye(4)[kinds].tolist(), vector_audio=[[1.0]] * 80)
    data = replace(data, catalogue=catalogue)
    config = registry.parse_source('{"kind": "average", "content": true, "embedding_dim": 8}')
    config = config.model_copy(update={"optimiser": OptimiserConfig(num_epochs=1)})
    options = replace(OPTIONS, cache=tmp_path / "cache")
    source = registry.fit(config, data, validation, options)
    vectors = content_vectors(catalogue, options=options)
    assert vectors.shape == (81, TEXT_DIM + 1 + 4)
    np.testing.assert_array_equal(
        vectors[:, TEXT_DIM + 1 :], np.vstack([[0] * 4, np.eye(4)[kinds]])
    )
    np.testing.assert_allclose(np.linalg.norm(vectors[1:, :TEXT_DIM], axis=1), 1, rtol=1e-5)
    assert isinstance(source, VectorSource)
    np.testing.assert_array_equal(source.model.embed.content.numpy(), vectors)
    (tmp_path / "saved").mkdir()
    source.save(tmp_path / "saved")
    loaded = registry.load("average", tmp_path / "saved", catalogue)
    queries = validation.ticks[0][0]
    np.testing.assert_array_equal(loaded.query_vectors(queries), source.query_vectors(queries))


def test_content_that_is_asked_for_must_be_given(colours):
    with pytest.raises(ValueError, match="no content vectors are given"):
        fit("average", (colours[0], None), content=True)
