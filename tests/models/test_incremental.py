"""Incremental training: trained sources learn new events and items, and keep what they knew."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import registry
from models.content.config import ContentFeatures
from models.data import TrainingData, Validation
from models.incremental import Increment, grown_rows
from models.retrieval import two_tower
from models.sequence.fit import target_times
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import SourceError
from shortlist.items.catalogue import Catalogue
from tests.models.small_data import START, catalogue_of, queries_of, state_of, training_data
from tests.models.source_configs import KINDS, LIGR, TRAINED, small_config

OLD, ALL, USERS, KNOWN = 24, 30, 60, 10
MINUTE = 60_000_000
SINCE = START + KNOWN * MINUTE
"""Each user has KNOWN events before it."""


def parity(items: int) -> list[list[str]]:
    return [["even" if i % 2 else "odd"] for i in range(items)]


class Growing:
    """Even users consume even items, odd users odd items; later also the items after OLD."""

    def __init__(self, *, categories: bool = True):
        rng = np.random.default_rng(0)
        names = parity(ALL) if categories else [[] for _ in range(ALL)]
        self.before = catalogue_of(names[:OLD])
        self.after = self.before.with_current(catalogue_of(names).items)
        items = np.arange(1, ALL + 1)
        known, later, self.relevant, self.first_relevant = [], [], [], []
        for user in range(USERS):
            own = rng.permutation(items[items % 2 == user % 2])
            known.append(own[own <= OLD][:KNOWN].tolist())
            self.first_relevant.append(own[own <= OLD][KNOWN:])
            new = own[own > OLD]
            later.append([*known[-1], *new[:2].tolist()])
            self.relevant.append(new[2:])
        self.old_data = training_data(self.before, known)
        self.data = training_data(self.after, later)
        self.queries = queries_of(later)
        self.old_queries = queries_of(known)

    def judge(self, source, data: TrainingData) -> float:
        """Return nDCG@10: does the source find each user's last new item?"""
        ticks = [(self.queries, state_of(data.item_counts), self.relevant)]
        return Validation(ticks).ndcg(source)

    def fit(self, kind: str, options: TrainingOptions):
        items = state_of(self.old_data.item_counts)
        validation = Validation([(self.old_queries, items, self.first_relevant)])
        config = small_config(kind)
        source = registry.fit(config, self.old_data, validation, options)
        return config, source


def advanced(growing: Growing, kind: str, options: TrainingOptions, folder, **changes):
    """Fit a source, save and load it, and advance it; return both."""
    config, source = growing.fit(kind, options)
    source.save(folder)
    loaded = registry.load(config.kind, folder, growing.before)
    increment = Increment(since=SINCE, **changes)
    frozen = registry.frozen(source)
    done = registry.advance(
        loaded, config, growing.data, options, frozen=frozen, increment=increment
    )
    return loaded, done


@pytest.fixture(scope="module")
def growing() -> Growing:
    return Growing()


@pytest.fixture
def options(tmp_path) -> TrainingOptions:
    return TrainingOptions(seed=3, num_threads=1, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", [*KINDS, LIGR])
def test_every_source_finds_items_that_it_did_not_know(kind, growing, options, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    _, done = advanced(growing, kind, options, folder, epochs=6, learning_rate=1.0)
    found = growing.judge(done, growing.data)
    popular = growing.judge(
        registry.fit(small_config("popularity"), growing.data, Validation([]), options),
        growing.data,
    )
    assert found > popular or kind in ("popularity", "recent_popularity", "personal")
    again = tmp_path / "again"
    again.mkdir()
    done.save(again)
    reloaded = registry.load(small_config(kind).kind, again, growing.after)
    items = state_of(growing.data.item_counts)
    one, other = (each.retrieve(growing.queries, items, k=5) for each in (done, reloaded))
    np.testing.assert_array_equal(one.item_idx, other.item_idx)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-5)


@pytest.mark.parametrize("kind", TRAINED)
def test_old_items_move_little_and_new_ones_start_where_they_were_served(
    kind, growing, options, tmp_path
):
    before, done = advanced(growing, kind, options, tmp_path, epochs=1, learning_rate=1e-6)
    old, new = before.item_vectors[1 : OLD + 1], done.item_vectors[1 : OLD + 1]
    np.testing.assert_allclose(new, old, atol=1e-3)
    # Without an id, an item has the vector of its categories: the same for both items of a parity.
    added = done.item_vectors[OLD + 1 :]
    np.testing.assert_allclose(added[0], added[2], atol=1e-3 if kind != "content" else 1)


@pytest.mark.parametrize("kind", ["two_tower", "gru"])
def test_with_the_defaults_old_items_keep_their_neighbours(kind, growing, options, tmp_path):
    before, done = advanced(growing, kind, options, tmp_path)
    for source in (before, done):
        near = source.similar(np.arange(1, OLD + 1), 5).item_idx
        same = near % 2 == np.arange(1, OLD + 1)[:, None] % 2
        assert same.mean() > 0.9


def test_a_catalogue_may_get_its_first_and_further_categories(options, tmp_path):
    growing = Growing(categories=False)
    plain = growing.after.items
    more = catalogue_of([["late"] if i >= OLD else [] for i in range(ALL)])
    growing.after = growing.before.with_current(more.items)
    assert plain.num_rows == growing.after.num_items
    growing.data = training_data(growing.after, [h.tolist() for h in _histories(growing.data)])
    before, done = advanced(growing, "gru", options, tmp_path, epochs=1, learning_rate=1e-6)
    np.testing.assert_allclose(done.item_vectors[1:5], before.item_vectors[1:5], atol=1e-3)


def test_a_tower_that_reads_content_encodes_the_content_of_new_items(growing, options, tmp_path):
    content = ContentFeatures(text="tfidf", text_dim=8)
    config = small_config("two_tower", content=content)
    source = registry.fit(config, growing.old_data, Validation([]), options)
    source.save(tmp_path)
    loaded = registry.load("two_tower", tmp_path, growing.before)
    increment = Increment(since=SINCE)
    done = registry.advance(loaded, config, growing.data, options, frozen={}, increment=increment)
    features = done.model.embed.content
    assert features.shape[0] == ALL + 1
    np.testing.assert_array_equal(features[: OLD + 1], loaded.model.embed.content)
    assert features[OLD + 1 :].any(1).all()
    assert growing.judge(done, growing.data) > 0.5
    loaded.model.encoder = None
    with pytest.raises(SourceError, match="without the encoder of its content; run a full train"):
        registry.advance(loaded, config, growing.data, options, frozen={}, increment=increment)


def _histories(data: TrainingData) -> list[np.ndarray]:
    return np.split(data.item_idx, data.offsets[1:-1])


@given(
    times=st.lists(st.integers(0, 20), max_size=60).map(np.array),
    since=st.integers(0, 20),
    replay=st.floats(0, 3),
    seed=st.integers(0, 9),
)
def test_an_epoch_has_all_new_examples_and_a_sample_of_the_old(times, since, replay, seed):
    increment = Increment(since=since, replay=replay)
    chosen = increment.examples(times, np.random.default_rng(seed))
    assert len(np.unique(chosen)) == len(chosen)
    new = np.flatnonzero(times >= since)
    assert set(new) <= set(chosen)
    old = len(times) - len(new)
    assert len(chosen) - len(new) == min(old, round(replay * len(new)))


@pytest.mark.parametrize("kind", ["two_tower", "gru"])
def test_without_a_new_example_a_source_only_gets_the_new_items(kind, growing, options, tmp_path):
    """Two new purchases, e.g., of users without another event, or both a repeat."""
    config, source = growing.fit(kind, options)
    increment = Increment(since=int(growing.data.time.max()) + 1)
    frozen = registry.frozen(source)
    source.save(tmp_path)
    loaded = registry.load(kind, tmp_path, growing.before)
    done = registry.advance(
        loaded, config, growing.data, options, frozen=frozen, increment=increment
    )
    np.testing.assert_array_equal(done.item_vectors[: OLD + 1], loaded.item_vectors)
    assert done.item_vectors[OLD + 1 :].any(1).all()
    assert registry.how_advanced(kind, done) == registry.EXTENDED
    seen = np.nan_to_num(done.query_vectors(growing.old_queries))
    np.testing.assert_allclose(seen, loaded.query_vectors(growing.old_queries), atol=1e-6)


@pytest.mark.parametrize("learn_start", [True, False])
def test_the_events_that_states_predict_are_those_with_an_earlier_moment(growing, learn_start):
    histories = [[1, 2, 3], [4], [5, 6]]
    data = training_data(growing.after, histories)
    data = dataclasses.replace(data, time=np.array([1, 1, 2, 9, 3, 3]))
    expected = [1, 2, 2, 9, 3] if learn_start else [2, 2]
    assert target_times(data, learn_start=learn_start).tolist() == expected


def test_an_increment_has_no_warm_up():
    config = OptimiserConfig(learning_rate=0.1, warmup_steps=50, schedule="cosine")
    gentle = Increment(since=0).optimiser(config)
    assert gentle.rate(step=1, epoch=0) == gentle.rate(step=99, epoch=1) == 0.1 * 0.5


def test_a_two_tower_gets_its_first_weights_on_its_device(growing, options, tmp_path, monkeypatch):
    """The device `meta` stands for a GPU, whose random generator can't fill weights elsewhere."""
    config, source = growing.fit("two_tower", options)
    source.save(tmp_path)
    loaded = registry.load("two_tower", tmp_path, growing.before)
    devices = []

    class Reached(Exception):
        pass

    def prepare(model, generator):
        devices.extend(parameter.device.type for parameter in model.parameters())
        raise Reached

    monkeypatch.setattr(two_tower, "prepare", prepare)
    monkeypatch.setattr(TrainingOptions, "generator", lambda *_: None)
    on_meta = dataclasses.replace(options, device="meta")
    increment = Increment(since=SINCE)
    with pytest.raises(Reached):
        registry.advance(loaded, config, growing.data, on_meta, frozen={}, increment=increment)
    assert set(devices) == {"meta"}


def test_grown_rows_end_with_zeros():
    assert grown_rows(np.ones((2, 3)), num_rows=4).tolist() == [[1] * 3] * 2 + [[0] * 3] * 2


def test_a_saved_catalogue_keeps_order_and_categories(tmp_path):
    before = catalogue_of([["b"], ["a"]])
    items = catalogue_of([["b"], ["a"], ["0"]]).items
    ids = ["i002", "i009", "i001"]  # the new item's id comes first
    items = items.set_column(0, items.schema.field(0), [ids])
    first = before.with_current(items.slice(0, 2)).with_current(items)
    first.save(tmp_path / "items.parquet")
    again = Catalogue.load(tmp_path / "items.parquet")
    assert again.vocab.ids == first.vocab.ids
    assert again.category_names == first.category_names
