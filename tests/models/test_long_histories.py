"""Serving uses histories as long as in training, up to the length that the state stores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from models import registry
from models.baselines.dense import history_weights
from models.content.fusion import ContentConfig
from models.data import TrainingData, Validation
from models.queries import Queries, Source
from models.ranking.features.histories import RECENT, history_features
from models.recommend.hydrate import empty_rows
from models.recommend.queries import build_queries
from models.retrieval.two_tower import TwoTowerConfig
from models.sequence.sasrec import SasrecConfig
from models.training import TrainingOptions
from shortlist.features.finalize import MAX_HISTORY
from shortlist.features.profiles import ProfileEncoder
from tests.models.small_data import START, catalogue_of, state_of, training_data

ITEMS, LENGTH = 240, 150
CONFIGS = (
    {"kind": "item_knn", "decay": [0.99]},
    {"kind": "ease", "l2": [10.0], "decay": [0.99]},
    {"kind": "ials", "embedding_dim": 8, "num_iterations": 2, "decay": [0.99]},
    {
        "kind": "sasrec",
        "embedding_dim": 8,
        "max_history": 200,
        "optimiser": {"num_epochs": 1},
    },
)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """60 users, 100 to 120 events each: even users use only even items, odd users only odd ones."""
    rng = np.random.default_rng(0)
    every = np.arange(1, ITEMS + 1)
    histories = [
        rng.permutation(every[every % 2 == user % 2])[: rng.integers(100, 121)].tolist()
        for user in range(60)
    ]
    return training_data(catalogue_of([[]] * ITEMS), histories)


@pytest.fixture(scope="module")
def queries(data: TrainingData) -> Queries:
    """Queries of two users with 150 events: the newest 60 are equal, the older 90 differ."""
    rng = np.random.default_rng(1)
    every = np.arange(1, ITEMS + 1)
    newest = every[every % 4 == 1]
    even, odd = every[every % 2 == 0][:90], rng.permutation(every[every % 2 == 0])[-90:]
    rows = empty_rows(["a", "b"], ["", ""], np.full(2, START))
    histories = [[*old, *newest] for old in (even, odd)]
    assert [len(items) for items in histories] == [LENGTH] * 2
    times = START - 1_000_000 * np.arange(LENGTH, 0, -1)
    rows = replace(
        rows,
        history_items=[data.catalogue.vocab.decode(items) for items in histories],
        history_times=[times, times],
        history_values=[np.full(LENGTH, 4.0)] * 2,
        history_types=[np.zeros(LENGTH, dtype=np.int64)] * 2,
    )
    return build_queries(rows, catalogue=data.catalogue, profiles=ProfileEncoder.fit([{}]))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["kind"])
def test_events_beyond_the_newest_fifty_count(config, data, queries):
    parsed = registry.parse_source(json.dumps(config))
    options = TrainingOptions(seed=0, num_threads=1)
    source: Source = registry.fit(parsed, data, Validation([]), replace(options, epochs=1))
    items = state_of(data.item_counts)
    every = np.tile(np.arange(1, ITEMS + 1), (2, 1))
    first, second = source.score(queries, items, every)
    assert np.abs(first - second).max() > 1e-3
    found = source.retrieve(queries, items, k=100).item_idx
    for shown, own in zip(found, queries.history, strict=True):
        assert not {*shown.tolist()} & {*own.tolist()}


def test_a_short_history_costs_no_long_padding(data):
    """Histories are padded only to the longest one in the batch."""
    rows = empty_rows(["a"], [""], np.array([START]))
    queries = build_queries(rows, catalogue=data.catalogue, profiles=ProfileEncoder.fit([{}]))
    assert queries.history.shape == (1, 1)


def test_ranking_features_look_at_the_newest_fifty(data, queries):
    cut = replace(
        queries,
        history=queries.history[:, -RECENT:],
        history_value=queries.history_value[:, -RECENT:],
    )
    candidates = np.tile(np.arange(1, 20), (2, 1))
    np.testing.assert_array_equal(
        history_features(queries, data.catalogue, candidates),
        history_features(cut, data.catalogue, candidates),
    )


@pytest.mark.parametrize("config", [SasrecConfig, TwoTowerConfig, ContentConfig])
def test_no_model_reads_more_than_the_state_holds(config):
    assert config(max_history=MAX_HISTORY).max_history == MAX_HISTORY
    with pytest.raises(ValidationError, match=str(MAX_HISTORY)):
        config(max_history=MAX_HISTORY + 1)


def test_events_with_negligible_weight_are_left_out(queries):
    """24 events have weights above 2^-24; older ones are left out."""
    weights = history_weights(queries, decay=0.5, num_items=ITEMS)
    assert np.diff(weights.indptr).tolist() == [24, 24]
    assert weights.sum(1) == pytest.approx([2.0, 2.0], rel=1e-6)
