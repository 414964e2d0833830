"""The setting `repeats` (may a seen item be shown again), and items that a user refused."""

from dataclasses import replace

import numpy as np
import pytest

from models.baselines.personal import Personal, PersonalConfig, fit_personal
from models.data import Validation
from models.ranking.features.repeats import REPEAT, repeat_features
from models.recommend.hydrate import empty_rows
from models.recommend.queries import build_queries
from models.training import TrainingOptions
from shortlist.behaviour.refusals import MAX_REFUSED, NO_REFUSALS, Refusals, refuses
from shortlist.behaviour.repeats import may_be_found, repeat_after, too_soon
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.features.finalize import RequestRows
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.splits import draw_requests
from tests.models.small_data import catalogue_of, state_of, training_data
from tests.shortlist.conftest import event_table

START = 10_000 * DAY


def rows_of(items: list[str], days: list[float], *, at: float) -> RequestRows:
    """Return one request of a user with events of `items` at `days` (days since START)."""
    now = START + int(at * DAY)
    return replace(
        empty_rows(["u"], ["web|unknown|00"], np.array([now])),
        history_items=[items],
        history_times=[np.array([START + int(day * DAY) for day in days], dtype=np.int64)],
        history_values=[np.full(len(items), np.nan)],
        history_types=[np.zeros(len(items), dtype=np.int64)],
    )


@pytest.mark.parametrize(
    ("said", "microseconds"),
    [
        ("exclude", None),
        ("allow", 0),
        ("after 7 days", 7 * DAY),
        ("after 1 day", DAY),
        ("after 36 hours", 36 * HOUR),
        ("after 2 weeks", 14 * DAY),
    ],
)
def test_settings_are_read(said: str, microseconds: int | None) -> None:
    assert repeat_after(said) == microseconds


@pytest.mark.parametrize("said", ["", "always", "after 0 days", "after a week", "7 days", "Allow"])
def test_other_settings_are_refused(said: str) -> None:
    with pytest.raises(ValueError, match='want "exclude", "allow"'):
        repeat_after(said)


def test_what_is_left_out_and_what_may_be_found_are_two_sides_of_one_rule() -> None:
    """An item of the history is either filtered from lists or counted as relevant, never both."""
    at = START + 30 * DAY
    times = START + np.array([0, 22, 23, 24, 29]) * DAY
    for after in (None, 0, DAY, 7 * DAY, 100 * DAY):
        np.testing.assert_array_equal(
            too_soon(times, at, after=after), ~may_be_found(times, at, after=after)
        )
    assert too_soon(times, at, after=7 * DAY).tolist() == [False, False, False, True, True]
    assert may_be_found(np.array([-1]), at, after=None).all()


@pytest.mark.parametrize("after", [None, 0, DAY, 2 * DAY, 4 * DAY])
def test_a_request_is_judged_by_what_its_list_could_have_had(after: int | None) -> None:
    """Relevant items are only those that the setting allows in a list."""
    events = [("a", 0.0), ("b", 0.0), ("a", 0.5), ("b", 1.0), ("c", 1.0), ("a", 5.0), ("c", 5.5)]
    at_of = [(item, START + int(day * DAY)) for item, day in events]
    window = (START + DAY // 4, START + 6 * DAY)
    drawn = draw_requests(
        event_table([("u", item, at) for item, at in at_of]),
        window,
        rng=np.random.default_rng(0),
        repeat_after=after,
    )
    wanted = {}
    for at in sorted({at for _, at in at_of if at >= window[0]}):
        for item in "abc":
            last = max((t for i, t in at_of if i == item and t < at), default=None)
            come = any(i == item and at <= t < at + DAY for i, t in at_of)
            if come and (last is None or (after is not None and last <= at - after)):
                wanted.setdefault(at, set()).add(item)
    assert dict(zip(drawn.at.tolist(), map(set, drawn.relevant), strict=True)) == wanted
    pairs = sum(len(items) for items in wanted.values())
    assert pairs == {None: 2, 0: 8, DAY: 6, 2 * DAY: 5, 4 * DAY: 5}[after]


def test_an_item_of_the_history_comes_back_when_it_may_and_a_refused_one_never() -> None:
    catalogue = catalogue_of([[]] * 4)
    rows = rows_of(["i001", "i002", "i001"], [0, 1, 5], at=6)
    rows.refusals[0] = Refusals(("i003", "gone"), (START, START))
    profiles = ProfileEncoder.fit([{}])

    def left_out(after: int | None) -> set[int]:
        made = build_queries(rows, catalogue=catalogue, profiles=profiles, repeat_after=after)
        assert made.history[0].tolist() == [1, 2, 1]
        return {*made.seen[0].tolist()}

    assert left_out(None) == {1, 2, 3}
    assert left_out(0) == {3}
    assert left_out(2 * DAY) == {1, 3}
    assert left_out(5 * DAY + 1) == {1, 2, 3}


def queries_of(items: list[str], days: list[float], *, at: float):
    return build_queries(
        rows_of(items, days, at=at),
        catalogue=catalogue_of([[]] * 4),
        profiles=ProfileEncoder.fit([{}]),
        repeat_after=0,
    )


def counts_of(*counts: int) -> ItemState:
    """Return item states with these all-time event counts, from item index 1 on."""
    return state_of(np.array([0, *counts]))


def test_personal_ranks_by_how_often_and_how_lately() -> None:
    made, items = (
        queries_of(["i001", "i001", "i001", "i002"], [0, 1, 2, 9], at=10),
        counts_of(3, 1, 5, 9),
    )
    often, lately = (Personal("personal", half_life=days) for days in (3650, 1))
    assert often.retrieve(made, items, k=4).item_idx[0].tolist() == [1, 2, 4, 3]
    assert lately.retrieve(made, items, k=4).item_idx[0].tolist() == [2, 1, 4, 3]
    scores = Personal("personal", half_life=2).score(made, items, np.array([[1, 2, 3, 4]]))[0]
    own = [0.5 ** (8 / 2) + 0.5 ** (9 / 2) + 0.5 ** (10 / 2), 0.5 ** (1 / 2)]
    np.testing.assert_allclose(scores, [1 + own[0], 1 + own[1], 0.5, 0.9], rtol=1e-5)


def test_personal_shows_strangers_what_is_popular_and_is_saved(tmp_path) -> None:
    made, items = queries_of([], [], at=1), counts_of(3, 1, 5, 9)
    config = PersonalConfig(half_lives=(7.0,))
    source = fit_personal(
        config,
        training_data(catalogue_of([[]] * 4), [[1]]),
        Validation([]),
        TrainingOptions(seed=0),
    )
    assert source.retrieve(made, items, k=3).item_idx[0].tolist() == [4, 3, 1]
    source.save(tmp_path)
    again = Personal.load(tmp_path, catalogue_of([[]] * 4))
    assert vars(again) == vars(source) == {"name": "personal", "half_life": 7.0}


def test_repeat_features_say_how_a_candidate_stands_in_the_history() -> None:
    made = queries_of(["i002", "i001", "i002", "i002"], [0, 3, 4, 8], at=10)
    values = repeat_features(made, np.array([[2, 1, 3, 0]]))[0]
    of = dict(zip(REPEAT, values.T, strict=True))
    np.testing.assert_allclose(of["own_events_log"], np.log1p([3, 1, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(of["own_days_since_last_log"], np.log1p([2, 7, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(of["own_due_log"], np.log1p([2 / 4, 0, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(of["own_share"], [0.75, 0.25, 0, 0], rtol=1e-6)


def test_what_refuses_and_what_takes_back() -> None:
    """Events refuse an item (True), cancel a refusal (False), or do neither (None)."""
    for event_type in ("hide", "dislike", "return"):
        assert refuses(event_type, None, low_rating=None) is True
    for event_type in ("like", "purchase", "add_to_cart"):
        assert refuses(event_type, 1.0, low_rating=2.0) is False
    for event_type in ("view", "click", "impression", "watch", "search"):
        assert refuses(event_type, 1.0, low_rating=2.0) is None
    assert refuses("rating", 1.0, low_rating=None) is None
    assert refuses("rating", 2.0, low_rating=2.0) is True
    assert refuses("rating", 2.5, low_rating=2.0) is False
    assert refuses("rating", float("nan"), low_rating=2.0) is None


def test_refusals_hold_the_newest_and_are_cut_at_the_request() -> None:
    state = NO_REFUSALS
    for number in range(MAX_REFUSED + 3):
        state = state.with_event(f"i{number}", refused=True, timestamp=START + number)
    assert len(state.items) == MAX_REFUSED
    assert state.items[0] == "i3"
    assert state.before(START + 5).items == ("i3", "i4")
    assert state.with_event("i4", refused=False, timestamp=START).items[:2] == ("i3", "i5")
    assert state.with_event("unknown", refused=False, timestamp=START) is state
