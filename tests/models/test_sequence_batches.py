"""In training batches, targets are later than all events that the model reads for them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import TrainingData
from models.queries import newest
from models.retrieval.requests import RequestExamples
from models.sequence.batches import SequenceBatch, SequenceData, next_sets
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.feature_store.online.user_state import FeatureEvent, UserState, update_user_state
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    USER_FEATURES,
    USER_STATE,
    decay,
    value_trend,
)
from tests.models.small_data import START, catalogue_of, training_data


def data_with_times(histories: list[list[int]], moments: list[list[int]]) -> TrainingData:
    """Return training data of users with these items at these times (in days)."""
    num_items = max((item for items in histories for item in items), default=1)
    data = training_data(catalogue_of([["all"]] * num_items), histories)
    time = [START + m * MICROSECONDS_PER_DAY for user in moments for m in user]
    return replace(data, time=np.array(time, dtype=np.int64))


def random_data(rng: np.random.Generator, *, users: int = 9) -> TrainingData:
    """Draw histories of 1 to 40 items, in which about half of the events have equal times.

    Each user has separate items (1 to 40, 41 to 80, ...), so that an item identifies its user.
    """
    histories, moments = [], []
    for user in range(users):
        n = int(rng.integers(1, 41))
        histories.append((rng.permutation(40)[:n] + 1 + 40 * user).tolist())
        moments.append(np.cumsum(rng.random(n) < 0.5).tolist())
    return data_with_times(histories, moments)


def test_next_sets_by_hand():
    # One user has the sets {1, 2}, {3}, {4, 5} of equal times, another user has {6}.
    data = data_with_times([[1, 2, 3, 4, 5], [6]], [[0, 0, 1, 2, 2], [0]])
    low, high = next_sets(data)
    ranges = list(zip(low.tolist(), high.tolist(), strict=True))
    assert ranges[0] == (0, 2)  # no item seen, so the first set is next
    assert ranges[1] == (2, 3)  # item 1 seen; 2 is in its set, so 3 is next
    assert ranges[2] == (2, 3)
    assert ranges[3] == (3, 5)
    assert ranges[4][0] == ranges[4][1]  # item 4 seen; no later set
    assert ranges[5] == (5, 6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_targets_are_of_the_first_later_set(seed, max_history):
    data = random_data(np.random.default_rng(seed))
    sequences = SequenceData(data, max_history=max_history, rng=np.random.default_rng(seed))
    when = dict(zip(data.item_idx.tolist(), data.time.tolist(), strict=True))
    seen_events = 0
    for batch in sequences.batches(4):
        for items, wanted in histories_of(batch):
            seen_events += len(items)
            owner = (max(items + wanted) - 1) // 40
            times = data.time[(data.item_idx - 1) // 40 == owner]
            for i in np.flatnonzero(wanted):
                assert (wanted[i] - 1) // 40 == owner
                target_time = when[int(wanted[i])]
                if i == 0:
                    assert target_time == times[0]
                else:
                    now = when[int(items[i - 1])]
                    assert target_time == times[times > now].min()
    assert seen_events == len(data.item_idx) - data.num_users  # all but the last event of each user


def histories_of(batch: SequenceBatch) -> list[tuple[list[int], list[int]]]:
    """Unpack a batch into (L items, L + 1 targets) per history; fail if its layout is invalid."""
    segment, position = batch.layout.segment.numpy(), batch.layout.position.numpy()
    items, targets = batch.items.numpy(), batch.targets.numpy()
    assert (items[position == 0] == 0).all()
    assert (items[position > 0] > 0).all()
    assert (targets[segment == 0] == 0).all()
    out = []
    for row, numbers in enumerate(segment):
        for number in range(1, numbers.max() + 1):
            own = np.flatnonzero(numbers == number)
            assert own.tolist() == list(range(own[0], own[-1] + 1))
            assert position[row, own].tolist() == list(range(len(own)))
            out.append((items[row, own[1:]].tolist(), targets[row, own].tolist()))
    return out


def test_an_epoch_repeats_with_the_seed_and_differs_from_the_next():
    """Batches are reproducible by the seed and differ between epochs."""
    data = random_data(np.random.default_rng(5))

    def epochs(seed: int) -> list[list]:
        sequences = SequenceData(data, max_history=7, rng=np.random.default_rng(seed))
        return [[b.items.tolist() for b in sequences.batches(4)] for _ in range(2)]

    first, second = epochs(1)
    assert epochs(1) == [first, second]
    assert first != second


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_training_request_sees_only_what_was_strictly_before(seed):
    data = random_data(np.random.default_rng(seed))
    examples = RequestExamples(data, max_history=6, rng=np.random.default_rng(seed))
    positives = []
    for batch in examples.batches(5):
        queries = batch.queries
        for row in range(len(queries)):
            user = data.user_ids.index(queries.user_ids[row])
            own = data.user_row == user
            before = data.item_idx[own & (data.time < queries.at[row])]
            n = min(len(before), 6)
            assert queries.history[row, :n].tolist() == before[len(before) - n :].tolist()
            assert (queries.history[row, n:] == 0).all()
            assert queries.seen[row].tolist() == before.tolist()
            at = set(data.item_idx[own & (data.time == queries.at[row])].tolist())
            assert set(batch.positives[batch.row == row].tolist()) == at
        positives += batch.positives.tolist()
    assert sorted(positives) == sorted(data.item_idx.tolist())


def test_user_features_of_training_requests_by_hand():
    data = data_with_times([[1, 2, 3, 4]], [[0, 0, 7, 7]])
    data = replace(data, value=np.array([4, np.nan, 5, 1], dtype=np.float32))
    examples = RequestExamples(data, max_history=6, rng=np.random.default_rng(0))
    queries = examples.queries(np.arange(2))
    user = {name: queries.user[:, i] for i, name in enumerate(USER_FEATURES)}
    np.testing.assert_allclose(user["user_events_log"], np.log1p([0, 2]), rtol=1e-6)
    # Seven days are one half-life, so two events count as one.
    np.testing.assert_allclose(user["user_recent_activity"], np.log1p([0, 1]), rtol=1e-6)
    np.testing.assert_allclose(user["user_hours_since_last_log"], np.log1p([0, 168]), rtol=1e-6)
    np.testing.assert_allclose(user["user_days_since_first_log"], np.log1p([0, 7]), rtol=1e-6)
    np.testing.assert_allclose(user["user_mean_value"], [0, 4], rtol=1e-6)
    np.testing.assert_allclose(user["user_session_depth_log"], [0, 0])
    hour = (START % MICROSECONDS_PER_DAY) / MICROSECONDS_PER_DAY * 2 * np.pi
    sine = queries.context[:, CONTEXT_FEATURES.index("hour_sin")]
    np.testing.assert_allclose(sine, [np.sin(hour)] * 2, rtol=1e-5)


@pytest.mark.parametrize("max_history", [1, 2, 3, 8])
def test_newest_keeps_the_end_of_each_history(max_history):
    history = np.array([[1, 2, 3, 0], [0, 0, 0, 0], [4, 0, 0, 0], [5, 6, 7, 8]])
    out = newest(history, max_history=max_history)
    for row, kept in zip(history, out, strict=True):
        real = row[row > 0][-max_history:]
        assert kept[kept > 0].tolist() == real.tolist()
        assert (kept[len(real) :] == 0).all()


def test_a_training_request_has_the_features_that_pushed_events_give():
    rng = np.random.default_rng(3)
    data = random_data(rng)
    data = replace(data, value=rng.choice([np.nan, 0, 1, 4], len(data.time)).astype(np.float32))
    examples = RequestExamples(data, max_history=50, rng=rng)
    names = ("user_events_log", "user_recent_activity", "user_mean_value", "user_value_trend")
    for r, begin in enumerate(examples.begin):
        state = UserState()
        for e in range(data.offsets[examples.user_row[r]], begin):
            event = FeatureEvent(
                "u", str(data.item_idx[e]), int(data.time[e]), float(data.value[e])
            )
            state = update_user_state(state, event)
        columns = {name: np.array([float(state.columns()[name])]) for name in USER_STATE}
        found = dict(zip(USER_FEATURES, examples.user_features[r], strict=True))
        at, last = examples.at[r], columns["user_last_time"]
        wanted = (
            np.log1p(columns["user_events"]),
            np.log1p(decay(columns["user_decayed"], at - last)),
            columns["user_value_sum"] / np.maximum(columns["user_value_count"], 1),
            value_trend("user", columns, examples.at[r : r + 1]),
        )
        assert [found[name] for name in names] == pytest.approx([w[0] for w in wanted], abs=1e-5)
