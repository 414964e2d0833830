"""Positions kept for new items: how often, which items, and exact propensities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.recommend.cold_start.new_positions import NewItemsConfig, offset_of, place_new

ORDER = np.arange(60)
NEW_RANK = np.where(ORDER >= 40, ORDER - 39, 0)
"""The last 20 of 60 candidates are new; the first of them is the best."""


def place(u: float, *, k: int = 12, rate: float = 0.25, first: int = 9, ranks=NEW_RANK):
    return place_new(ORDER, ranks, k=k, rate=rate, first=first, u=u)


def test_one_of_four_positions_from_the_ninth_on_holds_the_next_new_item():
    lists = [place(u, k=16).places.tolist() for u in (0.9, 0.6, 0.4, 0.1)]
    assert lists[0] == [*range(8), 40, 8, 9, 10, 41, 11, 12, 13]
    assert [each.index(40) + 1 for each in lists] == [9, 10, 11, 12]


def test_propensities_are_the_probabilities_of_the_lists():
    uniform = (np.arange(1000) + 0.5) / 1000
    drawn: dict[tuple[int, ...], list[float]] = {}
    for u in uniform:
        done = place(u)
        drawn.setdefault(tuple(done.places), []).append(float(np.prod(done.propensity)))
    assert len(drawn) == 4
    for chances in drawn.values():
        assert chances == pytest.approx([len(chances) / 1000] * len(chances))


def test_the_ninth_item_has_the_propensity_of_its_position():
    assert place(0.9).propensity[8] == pytest.approx(0.25)
    # Not due at 9 (3/4), due at 10: a third of the remaining three quarters.
    assert place(0.6).propensity[8:10] == pytest.approx([0.75, 1 / 3])


@given(
    u=st.floats(0, 1, exclude_max=True),
    rate=st.floats(0.01, 1),
    first=st.integers(1, 12),
    new=st.lists(st.integers(0, 59), max_size=20, unique=True),
)
def test_a_longer_list_starts_with_the_shorter_one_and_shows_each_item_once(u, rate, first, new):
    ranks = np.zeros(60, dtype=np.int64)
    ranks[new] = np.arange(1, len(new) + 1)
    short = place(u, k=10, rate=rate, first=first, ranks=ranks)
    long = place(u, k=60, rate=rate, first=first, ranks=ranks)
    assert long.places[:10].tolist() == short.places.tolist()
    assert long.propensity[:10] == pytest.approx(short.propensity)
    assert sorted(long.places) == list(range(60))
    assert np.all((long.propensity > 0) & (long.propensity <= 1 + 1e-9))
    assert short.places[: min(first - 1, 10)].tolist() == list(range(min(first - 1, 10)))


def test_a_new_item_that_the_ranker_puts_first_counts():
    ranks = np.zeros(60, dtype=np.int64)
    ranks[[2, 50]] = [2, 1]
    done = place_new(ORDER, ranks, k=10, rate=0.25, first=9, u=0.9)
    assert done.places.tolist() == list(range(10))  # the third item is new: none is due before 13
    assert done.propensity.tolist() == [1.0] * 10


def test_without_new_items_the_order_stays():
    done = place(0.9, ranks=np.zeros(60, dtype=np.int64))
    assert done.places.tolist() == list(range(12))
    assert done.propensity.tolist() == [1.0] * 12


def test_fewer_new_items_get_fewer_positions():
    config = NewItemsConfig(share=0.2)
    assert config.rate(new=50, every=100) == pytest.approx(0.2)
    assert config.rate(new=5, every=100) == pytest.approx(0.2 * 5 / 10)
    assert config.rate(new=0, every=0) == 0


def test_the_number_of_a_request_is_fixed_and_spread_evenly():
    assert offset_of("u1", 5) == offset_of("u1", 5)
    drawn = [offset_of(f"u{i}", 5) for i in range(2000)]
    assert np.histogram(drawn, bins=4, range=(0, 1))[0] == pytest.approx([500] * 4, abs=90)
