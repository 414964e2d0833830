"""Event types in histories: they have no effect before training, and models learn to use them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models import registry
from models.data import TrainingData, Validation
from models.layers import EventTypes
from models.queries import Queries
from models.recommend.hydrate import empty_rows
from models.recommend.queries import build_queries
from models.sequence.batches import SequenceData, pack_queries
from models.sequence.fit import ARCHITECTURES, train_sequence
from models.sequence.sasrec import SasrecConfig
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource
from shortlist.contracts import EVENT_CODE
from shortlist.features.profiles import ProfileEncoder
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data

BOUGHT, DISLIKED = EVENT_CODE["purchase"], EVENT_CODE["dislike"]
ITEMS = 40
OPTIONS = TrainingOptions(seed=3, num_threads=1)


def people(rng: np.random.Generator, n: int) -> tuple[list[list[int]], list[list[int]], np.ndarray]:
    """Draw histories of 10 items, their event types, and each user's taste.

    A taste is for even (0) or odd (1) items. All users first try three even and three odd items in
    random order. They buy those of their taste and dislike the others. Then they buy four more of
    their taste. In the first six events, only the event types depend on the taste.
    """
    histories, types = [], []
    taste = rng.integers(2, size=n)
    for own in taste:
        items = rng.permutation(np.arange(1, ITEMS + 1))
        wanted = [*rng.permutation([True] * 3 + [False] * 3), *[True] * 4]
        mine, others = iter(items[items % 2 == own]), iter(items[items % 2 != own])
        histories.append([int(next(mine if yes else others)) for yes in wanted])
        types.append(np.where(wanted, BOUGHT, DISLIKED).tolist())
    return histories, types, taste


def typed(queries: Queries, types: list[list[int]]) -> Queries:
    codes = np.zeros_like(queries.history)
    for row, own in enumerate(types):
        codes[row, : len(own)] = own
    return replace(queries, history_type=codes)


@pytest.fixture(scope="module")
def shop() -> tuple[TrainingData, Validation]:
    """400 users for training, and 100 users for validation who have tried six items.

    The relevant items of the latter are all other items of their taste.
    """
    rng = np.random.default_rng(0)
    catalogue = catalogue_of([[]] * ITEMS)
    histories, types, _ = people(rng, 400)
    data = replace(
        training_data(catalogue, histories), type_code=np.array([t for own in types for t in own])
    )
    asked, types, taste = people(rng, 100)
    asked, types = [items[:6] for items in asked], [own[:6] for own in types]
    every = np.arange(1, ITEMS + 1)
    relevant = [
        np.setdiff1d(every[every % 2 == own], items)
        for items, own in zip(asked, taste, strict=True)
    ]
    queries = typed(queries_of(asked), types)
    return data, Validation([(queries, state_of(data.item_counts), relevant)])


def small_config(kind: str, **changes):
    return ARCHITECTURES[kind][0].model_validate(
        {
            "embedding_dim": 16,
            "batch_size": 16,
            "dropout": 0.1,
            "optimiser": OptimiserConfig(
                learning_rate=1e-2, warmup_steps=0, num_epochs=10, patience=3
            ),
        }
        | changes
    )


@pytest.fixture(scope="module")
def fitted(shop) -> dict[str, VectorSource]:
    return {kind: registry.fit(small_config(kind), *shop, OPTIONS) for kind in ARCHITECTURES}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_types_are_used_where_they_say_something(fitted, shop, kind):
    data, validation = shop
    blind = registry.fit(small_config(kind, event_types=False), data, validation, OPTIONS)
    assert validation.ndcg(blind) < 0.6  # without types, half of the items are of the wrong taste
    assert validation.ndcg(fitted[kind]) > 0.85


def test_a_layer_of_types_by_hand_and_at_its_start():
    """The layer starts as the identity, and then scales and shifts vectors by event type."""
    x = torch.randn(3, 4, 2)
    layer = EventTypes(2)
    types = torch.tensor([[0, 1, 2, 1]] * 3)
    assert torch.equal(layer(x, types), x)
    layer.gain.data[1] = torch.tensor([1.0, -2.0])
    layer.shift.data[1] = torch.tensor([0.5, 0.0])
    one = layer(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
    assert one.tolist() == [[3 * (1 + 1) + 0.5, 4 * (1 - 2)]]
    layer(x, types).sum().backward()
    assert layer.gain.grad is not None
    assert layer.gain.grad[0].tolist() == layer.gain.grad[3].tolist() == [0, 0]
    assert layer.gain.grad[1].all()
    assert layer.gain.grad[2].all()


def test_a_model_with_types_begins_as_one_without(shop):
    """Before training, states with and without types are equal bit for bit (same seed)."""
    queries = shop[1].ticks[0][0]
    states = []
    for with_types in (True, False):
        config = small_config("sasrec", event_types=with_types)
        config = config.model_copy(
            update={"optimiser": OptimiserConfig(learning_rate=0, num_epochs=1)}
        )
        source = registry.fit(config, *shop, OPTIONS)
        states.append(source.query_vectors(queries))
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_types_give_another_answer_and_unknown_ones_an_answer(fitted, shop, kind):
    queries = shop[1].ticks[0][0]
    before = fitted[kind].query_vectors(queries)
    swapped = {BOUGHT: DISLIKED, DISLIKED: BOUGHT, 0: 0}
    other = replace(queries, history_type=np.vectorize(swapped.get)(queries.history_type))
    changed = np.abs(fitted[kind].query_vectors(other) - before).max(axis=1)
    assert (changed > 1e-3).all()
    unknown = replace(queries, history_type=np.zeros_like(queries.history_type))
    assert np.isfinite(fitted[kind].query_vectors(unknown)).all()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_type_of_an_event_changes_no_earlier_state(fitted, kind):
    model = fitted[kind].model
    items = list(range(1, 9))

    def states(types: list[int]) -> torch.Tensor:
        batch, _ = pack_queries(typed(queries_of([items]), [types]), max_history=50)
        with torch.no_grad():
            return model.states(batch)[0]

    before = states([BOUGHT] * 8)
    for cut in range(8):
        after = states([BOUGHT] * cut + [DISLIKED] * (8 - cut))
        torch.testing.assert_close(after[: cut + 1], before[: cut + 1])
        assert not torch.allclose(after[cut + 1], before[cut + 1])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_types_stay_with_their_events_alone_packed_and_padded(fitted, shop, kind):
    """Query vectors are the same alone and in a packed batch with other event types."""
    rng = np.random.default_rng(1)
    histories = [list(range(1, n + 1)) for n in (3, 1, 11, 7, 2)]
    types = [rng.choice([BOUGHT, DISLIKED], len(items)).tolist() for items in histories]
    together = typed(queries_of(histories, length=30), types)
    vectors = fitted[kind].query_vectors(together)
    for row in range(len(histories)):
        alone = typed(queries_of([histories[row]], length=11), [types[row]])
        own = fitted[kind].query_vectors(alone)[0]
        np.testing.assert_allclose(vectors[row], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_loads_with_its_types_as_it_was_saved(fitted, shop, kind, tmp_path):
    queries = shop[1].ticks[0][0]
    fitted[kind].save(tmp_path)
    loaded = registry.load(kind, tmp_path, shop[0].catalogue)
    assert loaded.config.event_types is True
    np.testing.assert_array_equal(
        loaded.query_vectors(queries), fitted[kind].query_vectors(queries)
    )


def test_training_batches_carry_the_types_of_their_items(shop):
    data = shop[0]
    sequences = SequenceData(data, max_history=5, rng=np.random.default_rng(0))
    pairs = set()
    for batch in sequences.batches(32):
        assert torch.equal(batch.types > 0, batch.items > 0)
        real = batch.items > 0
        pairs |= set(zip(batch.items[real].tolist(), batch.types[real].tolist(), strict=True))
    assert pairs <= set(zip(data.item_idx.tolist(), data.type_code.tolist(), strict=True))
    assert {code for _, code in pairs} == {BOUGHT, DISLIKED}


def test_one_type_or_none_is_trained_as_before(shop):
    """Types are read only if there is more than one; otherwise training is unchanged."""
    data = shop[0]
    weights = []
    for codes in (np.zeros_like(data.type_code), np.full_like(data.type_code, BOUGHT)):
        config = SasrecConfig(embedding_dim=8, optimiser=OptimiserConfig(num_epochs=1))
        model, _ = train_sequence(
            config,
            replace(data, type_code=codes),
            validate=lambda model: float("nan"),
            options=OPTIONS,
        )
        assert model.config.event_types is False
        weights.append(model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert not [name for name in weights[0] if "types" in name]
    for name, own in weights[0].items():
        assert torch.equal(own, weights[1][name]), name


def test_a_request_keeps_types_with_their_items_and_a_visitors_are_unknown():
    """Items outside the catalogue are removed with their types; `recent_items` have type 0."""
    rows = empty_rows(["u"], ["web|phone|20"], np.array([10]))
    rows = replace(
        rows,
        history_items=[["i002", "gone", "i001"]],
        history_times=[np.array([1, 2, 3])],
        history_values=[np.full(3, np.nan)],
        history_types=[np.array([BOUGHT, EVENT_CODE["click"], DISLIKED])],
    )
    queries = build_queries(
        rows,
        catalogue=catalogue_of([[]] * 3),
        profiles=ProfileEncoder.fit([{}]),
        recent_items=[["i003"]],
    )
    assert queries.history[0].tolist() == [2, 1, 3]
    assert queries.history_type[0].tolist() == [BOUGHT, DISLIKED, 0]
