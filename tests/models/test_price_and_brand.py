"""Price and brand features by hand; zeros for a catalogue without prices or brands."""

import math

import numpy as np
import pyarrow as pa
import pytest

from models.queries import Queries
from models.ranking.features.histories import HISTORY, history_features
from shortlist.contracts import ITEMS
from shortlist.features.finalize import CONTEXT_FEATURES, USER_FEATURES
from shortlist.features.searches import NO_SEARCHES
from shortlist.items.catalogue import Catalogue


def catalogue(prices: list[float | None], brands: list[str | None]) -> Catalogue:
    n = len(prices)
    rows = {
        "item_id": [f"i{k}" for k in range(n)],
        "categories": [[]] * n,
        "available": [True] * n,
        "price": prices,
        "brand": brands,
    }
    return Catalogue.from_items(
        pa.table([pa.array(rows.get(f.name, [None] * n), f.type) for f in ITEMS], schema=ITEMS)
    )


def features(history: list[list[int]], given: Catalogue) -> dict[str, np.ndarray]:
    """Return features by name; all items are candidates of each history (item_idx, 0: padding)."""
    n = len(history)
    padded = np.array(history)
    queries = Queries(
        user_ids=["u"] * n,
        at=np.zeros(n, dtype=np.int64),
        history=padded,
        history_time=np.zeros_like(padded),
        history_value=np.zeros(padded.shape, dtype=np.float32),
        history_type=np.zeros_like(padded),
        seen=[np.empty(0, dtype=np.int64)] * n,
        user=np.zeros((n, len(USER_FEATURES)), dtype=np.float32),
        context=np.zeros((n, len(CONTEXT_FEATURES)), dtype=np.float32),
        profile=np.zeros((n, 0), dtype=np.int64),
        searches=[NO_SEARCHES] * n,
    )
    candidates = np.tile(np.arange(1, given.num_items + 1), (n, 1))
    values = history_features(queries, given, candidates)
    assert np.isfinite(values).all()
    return {name: values[..., k] for k, name in enumerate(HISTORY)}


def test_prices_and_brands_by_hand() -> None:
    shop = catalogue([0.0, math.e - 1, None, math.e**3 - 1], ["ada", "bo", None, "ada"])
    found = features([[2, 4, 3], [1, 0, 0], [0, 0, 0]], shop)
    assert found["price_log"] == pytest.approx(np.tile([0, 1, 0, 3], (3, 1)), abs=1e-6)
    # The first history has log prices 1 and 3 and an unknown one, so the usual log price is 2.
    assert found["price_usual"][:, 0] == pytest.approx([2, 0, 0])
    assert not found["price_usual_trend"].any()
    assert found["price_from_history"][0] == pytest.approx([-2, -1, 0, 1], abs=1e-6)
    assert found["price_from_history"][1] == pytest.approx([0, 1, 0, 3], abs=1e-6)
    assert not found["price_from_history"][2].any()
    np.testing.assert_array_equal(found["price_from_last_10"], found["price_from_history"])
    # The first history has the brands bo, ada and unknown. An unknown last brand matches none.
    assert found["brand_share_50"][0] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert found["brand_share_50"][1].tolist() == [1, 0, 0, 1]
    assert found["brand_is_last"].tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_the_trend_of_prices_is_what_the_last_ten_cost_above_the_usual() -> None:
    shop = catalogue([math.e**2 - 1, math.e**5 - 1], [None, None])
    found = features([[1] * 5 + [2] * 10, [2] * 5 + [1] * 5 + [0] * 5], shop)
    assert found["price_usual"] == pytest.approx(np.array([[4, 4], [3.5, 3.5]]))
    assert found["price_usual_trend"] == pytest.approx(np.array([[1, 1], [0, 0]]), abs=1e-6)


def test_unknown_prices_and_brands_give_zeros() -> None:
    found = features([[1, 2]], catalogue([None, None], [None, ""]))
    for name in list(HISTORY)[-7:]:
        assert not found[name].any(), name
