"""The protocol of candidate sources, for each source in the registry."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import registry
from models.data import Validation
from models.index.config import IndexConfig
from models.queries import Queries, Source
from models.sequence.batches import pack_queries
from models.sequence.model import SequenceConfig
from models.training import TrainingOptions
from models.vector_source import SourceError, VectorSource
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data
from tests.models.source_configs import KINDS, LIGR, TRAINED, small_config

SEQUENCES = tuple(
    kind
    for kind in KINDS
    if issubclass(type(registry.parse_source(f'{{"kind": "{kind}"}}')), SequenceConfig)
)
COLD = ("two_tower", "content", *SEQUENCES)
UNTAUGHT = ("popularity", "recent_popularity", "personal")  # don't learn tastes for unseen items
LEARNING = tuple(kind for kind in KINDS if kind not in UNTAUGHT)


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> TrainingOptions:
    return TrainingOptions(seed=3, num_threads=1, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def fitted(checkerboard, options) -> dict[str, Source]:
    data, validation = checkerboard
    return {
        kind: registry.fit(small_config(kind), data, validation, options) for kind in (*KINDS, LIGR)
    }


@pytest.fixture(scope="module")
def world(checkerboard):
    """Queries and item states of the checkerboard data."""
    queries, items, _ = checkerboard[1].ticks[0]
    return queries, items


@pytest.fixture(scope="module")
def cold_fitted(options) -> dict[str, VectorSource]:
    """Sources fitted on checkerboard data of 32 items; items 31 and 32 have no events."""
    rng = np.random.default_rng(1)
    catalogue = catalogue_of([["even" if i % 2 else "odd"] for i in range(32)])
    histories = []
    for user in range(60):
        own = np.arange(1, 31)
        histories.append(rng.permutation(own[own % 2 == user % 2]).tolist())
    data = training_data(catalogue, histories)
    # Early stopping predicts the rest of each history from its first eight items.
    checks = queries_of([h[:8] for h in histories])
    relevant = [np.array(h[8:]) for h in histories]
    validation = Validation([(checks, state_of(data.item_counts), relevant)])
    return {kind: registry.fit(small_config(kind), data, validation, options) for kind in COLD}


def all_scores(source: Source, queries: Queries, items) -> np.ndarray:
    """Return (B, N) scores of the whole catalogue."""
    num_items = len(items.state["item_events"]) - 1
    every = np.tile(np.arange(1, num_items + 1), (len(queries), 1))
    return source.score(queries, items, every)


def take(queries: Queries, rows: list[int]) -> Queries:
    fields = {
        name: value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows]
        for name, value in vars(queries).items()
        if value is not None and name != "blocked"
    }
    return Queries(**fields)


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_protocol_and_is_called_by_its_kind(fitted, kind):
    assert isinstance(fitted[kind], Source)
    assert fitted[kind].name == kind


@pytest.mark.parametrize("kind", [*LEARNING, LIGR])
def test_learns_the_checkerboard(fitted, checkerboard, kind):
    # The relevant items are the last two of the user's parity. Popularity doesn't know the parity.
    assert checkerboard[1].ndcg(fitted[kind], k=2) > 0.95


@pytest.mark.parametrize("kind", [*TRAINED, LIGR])
def test_loss_falls(fitted, kind):
    losses = fitted[kind].history.losses
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_retrieves_what_scores_best(fitted, world, kind):
    found = fitted[kind].retrieve(*world, k=10)
    np.testing.assert_allclose(
        fitted[kind].score(*world, found.item_idx), found.score, rtol=1e-4, atol=1e-5
    )
    unseen = all_scores(fitted[kind], *world)
    for row, seen in enumerate(world[0].seen):
        unseen[row, seen - 1] = -np.inf
    np.testing.assert_allclose(found.score[:, 0], unseen.max(axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TRAINED)
def test_similar_items_have_the_nearest_direction(fitted, kind):
    source = fitted[kind]
    vectors = source.item_vectors
    found = source.similar(np.array([3]), 4)
    cosine = [
        v @ vectors[3] / (np.linalg.norm(v) * np.linalg.norm(vectors[3])) if i not in (0, 3) else -2
        for i, v in enumerate(vectors)
    ]
    assert found.item_idx[0].tolist() == np.argsort(-np.array(cosine))[:4].tolist()
    assert found.score[0] == pytest.approx(np.sort(cosine)[::-1][:4], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_seen_items_are_left_out_and_places_run_out_as_padding(fitted, world, kind):
    found = fitted[kind].retrieve(*world, k=30)
    for row, seen in enumerate(world[0].seen):
        real = found.item_idx[row] > 0
        assert not set(found.item_idx[row][real]) & set(seen.tolist())
        assert real.sum() <= 30 - len(seen)
        assert np.isneginf(found.score[row][~real]).all()


@pytest.mark.parametrize("kind", [*KINDS, LIGR])
def test_a_query_alone_scores_as_in_a_batch(fitted, world, kind):
    queries, items = world
    together = all_scores(fitted[kind], queries, items)
    for row in (0, 7, 31):
        alone = all_scores(fitted[kind], take(queries, [row]), items)
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, LIGR])
def test_padding_changes_nothing(fitted, world, kind):
    queries, items = world
    wider = replace(
        queries,
        history=np.pad(queries.history, ((0, 0), (0, 9))),
        history_time=np.pad(queries.history_time, ((0, 0), (0, 9))),
        history_value=np.pad(queries.history_value, ((0, 0), (0, 9))),
        history_type=np.pad(queries.history_type, ((0, 0), (0, 9))),
    )
    np.testing.assert_allclose(
        all_scores(fitted[kind], wider, items),
        all_scores(fitted[kind], queries, items),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_and_an_unknown_user_get_an_answer(fitted, world, kind):
    stranger = replace(queries_of([[]], users=["nobody"]), profile=np.zeros((1, 1), dtype=int))
    assert np.isfinite(all_scores(fitted[kind], stranger, world[1])).all()
    found = fitted[kind].retrieve(stranger, world[1], k=5)
    if kind in TRAINED or kind in UNTAUGHT:
        assert (found.item_idx > 0).all()


@pytest.mark.parametrize("kind", [*KINDS, LIGR])
def test_loads_as_it_was_saved(fitted, world, checkerboard, kind, tmp_path):
    fitted[kind].save(tmp_path)
    loaded = registry.load(fitted[kind].name, tmp_path, checkerboard[0].catalogue)
    assert loaded.name == fitted[kind].name
    np.testing.assert_array_equal(all_scores(loaded, *world), all_scores(fitted[kind], *world))
    before, after = fitted[kind].retrieve(*world, k=7), loaded.retrieve(*world, k=7)
    np.testing.assert_array_equal(before.item_idx, after.item_idx)
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes <= {".json", ".safetensors", ".faiss"}


def test_the_index_is_of_the_configured_type(checkerboard, options, tmp_path):
    data, validation = checkerboard
    options = replace(options, index=IndexConfig(kind="hnsw", scan_up_to=0.0))
    source = registry.fit(small_config("average"), data, validation, options)
    source.save(tmp_path)
    loaded = registry.load("average", tmp_path, data.catalogue)
    for index in (source.index, loaded.index):
        assert (index.kind, index.config) == ("hnsw", options.index)


@pytest.mark.parametrize("kind", TRAINED)
def test_refuses_another_catalogue(fitted, kind, tmp_path):
    fitted[kind].save(tmp_path)
    with pytest.raises(SourceError, match="trained on 30 items, this catalogue has 2"):
        registry.load(kind, tmp_path, catalogue_of([["odd"], ["even"]]))


@pytest.mark.parametrize("kind", [*SEQUENCES, LIGR])
def test_the_future_never_changes_a_state_of_the_past(fitted, kind):
    model = fitted[kind].model
    history = np.arange(1, 13)

    def states(items: np.ndarray) -> torch.Tensor:
        batch, _ = pack_queries(queries_of([items.tolist()]), max_history=50)
        with torch.no_grad():
            return model.states(batch)[0]

    before = states(history)
    for cut in range(12):
        changed = history.copy()
        changed[cut:] = np.arange(30, 30 - (12 - cut), -1)
        after = states(changed)
        torch.testing.assert_close(after[: cut + 1], before[: cut + 1])
        assert not torch.allclose(after[cut + 1], before[cut + 1])


@pytest.mark.parametrize("kind", [*SEQUENCES, LIGR])
def test_histories_in_one_row_do_not_see_each_other(fitted, world, kind):
    """A history has the same states in a packed row as alone."""
    histories = [list(range(1, n + 1)) for n in (3, 1, 11, 7, 2)] + [[]]
    together, last = pack_queries(queries_of(histories), max_history=50)
    assert len(together.items) < len(histories)
    with torch.no_grad():
        states = fitted[kind].model.states(together).flatten(0, 1)[last]
        for row, history in enumerate(histories):
            alone, end = pack_queries(queries_of([history]), max_history=50)
            own = fitted[kind].model.states(alone).flatten(0, 1)[end][0]
            torch.testing.assert_close(states[row], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*TRAINED, LIGR])
def test_only_the_newest_events_are_read(fitted, world, kind):
    """Only the newest `max_history` events have an effect."""
    newest = np.resize(np.arange(1, 31), 50)
    short = queries_of([newest.tolist()])
    long = replace(
        short,
        history=np.concatenate([[[5, 9, 5]], short.history], axis=1),
        history_time=np.concatenate([[[1, 2, 3]], short.history_time], axis=1),
        history_value=np.concatenate([np.ones((1, 3)), short.history_value], axis=1),
        history_type=np.concatenate([[[1, 0, 2]], short.history_type], axis=1),
    )
    np.testing.assert_allclose(
        all_scores(fitted[kind], long, world[1]),
        all_scores(fitted[kind], short, world[1]),
        rtol=1e-5,
    )


@pytest.mark.parametrize("kind", COLD)
def test_a_cold_item_lies_with_its_kind(cold_fitted, kind):
    vectors = cold_fitted[kind].item_vectors
    assert np.isfinite(vectors).all()
    odd, even = queries_of([[1, 3, 5, 7, 9, 11]]), queries_of([[2, 4, 6, 8, 10, 12]])
    items = state_of(np.zeros(33, dtype=int))
    pair = np.array([[31, 32]])  # item 31 is odd, item 32 even, neither has an event
    odd_scores = cold_fitted[kind].score(odd, items, pair)[0]
    even_scores = cold_fitted[kind].score(even, items, pair)[0]
    assert odd_scores[0] > odd_scores[1] + 0.03
    assert even_scores[1] > even_scores[0] + 0.03
    assert 31 in cold_fitted[kind].retrieve(odd, items, k=12).item_idx


def test_the_same_seed_gives_the_same_model_even_in_parallel(fitted, checkerboard, world, options):
    """Models don't use torch's global generator, which parallel trainings would share."""
    data, validation = checkerboard
    torch.manual_seed(99)
    with ThreadPoolExecutor(3) as pool:
        again = dict(
            zip(
                TRAINED,
                pool.map(
                    lambda kind: registry.fit(small_config(kind), data, validation, options),
                    TRAINED,
                ),
                strict=True,
            )
        )
    for kind in TRAINED:
        np.testing.assert_array_equal(
            all_scores(again[kind], *world), all_scores(fitted[kind], *world), err_msg=kind
        )


def test_names_the_kinds_when_asked_for_another(tmp_path, checkerboard):
    with pytest.raises(ValueError, match="no source of kind 'word2vec', want one of popularity"):
        registry.load("word2vec", tmp_path, checkerboard[0].catalogue)
    with pytest.raises(ValueError, match="word2vec"):
        registry.parse_source('{"kind": "word2vec"}')
