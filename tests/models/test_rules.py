"""Hard rules on a catalogue of four items."""

import numpy as np
import pyarrow as pa
import pytest

from models.recommend.rules import RULES_VERSION, blocked_items
from shortlist.api import Filters
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import ITEMS, TIMESTAMP


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a", "b", "c", "d"],
                "title": ["A", "B", "C", "D"],
                "description": pa.nulls(4, pa.string()),
                "categories": [["Comedy"], ["Comedy", "War"], [], ["Drama"]],
                "brand": pa.nulls(4, pa.string()),
                "price": [1.0, 20.0, None, 5.0],
                "published_at": pa.array([100 * DAY, 200 * DAY, None, 300 * DAY], pa.int64()).cast(
                    TIMESTAMP
                ),
                "available": [True, True, True, False],
                "image": pa.nulls(4, pa.string()),
                "attributes": pa.nulls(4, ITEMS.field("attributes").type),
                "updated_at": pa.nulls(4, TIMESTAMP),
            },
            schema=ITEMS,
        )
    )


def allowed(catalogue: Catalogue, **rules) -> str:
    """The item ids that may be shown, as one word."""
    blocked = blocked_items(catalogue, **rules)
    assert blocked.shape == (5,)
    assert blocked.dtype == bool
    assert blocked[0]
    return "".join(catalogue.vocab.decode(np.flatnonzero(~blocked)))


def test_unavailable_items_are_never_shown(catalogue):
    assert allowed(catalogue) == "abc"
    assert allowed(catalogue, filters=Filters(categories=["Drama"])) == ""


@pytest.mark.parametrize(
    ("filters", "want"),
    [
        (Filters(categories=["War"]), "b"),
        (Filters(categories=["Comedy", "War"]), "ab"),
        (Filters(categories=["No such"]), ""),
        (Filters(categories=[]), "abc"),
        (Filters(exclude_categories=["War"]), "ac"),
        (Filters(exclude_categories=["No such"]), "abc"),
        (Filters(categories=["Comedy"], exclude_categories=["War"]), "a"),
        (Filters(max_price=1.0), "a"),
        (Filters(max_price=0.5), ""),
        (Filters(published_after=150 * DAY), "b"),
        (Filters(published_after=200 * DAY), "b"),
        (Filters(published_after=201 * DAY), ""),
        (Filters(categories=["Comedy"], max_price=30.0, published_after=50 * DAY), "ab"),
    ],
)
def test_filters(catalogue, filters, want):
    assert allowed(catalogue, filters=filters) == want


def test_exclude_by_id_and_seen_by_index(catalogue):
    assert allowed(catalogue, exclude=["a", "nobody knows it"]) == "bc"
    assert allowed(catalogue, seen=np.array([1, 3, 3])) == "b"
    assert allowed(catalogue, seen=np.array([], dtype=np.int64)) == "abc"


def test_the_mask_is_the_callers(catalogue):
    blocked_items(catalogue)[:] = True
    assert allowed(catalogue) == "abc"


def test_a_catalogue_without_categories_or_prices():
    bare = Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a"],
                "categories": pa.array([[]], pa.list_(pa.string())),
                "available": [True],
            }
        )
    )
    assert not blocked_items(bare)[1]
    assert blocked_items(bare, filters=Filters(categories=["War"]))[1]
    assert not blocked_items(bare, filters=Filters(exclude_categories=["War"]))[1]
    assert blocked_items(bare, filters=Filters(max_price=1.0))[1]
    assert blocked_items(bare, filters=Filters(published_after=DAY))[1]


def test_the_version_is_a_short_hash():
    assert len(RULES_VERSION) == 8
    assert int(RULES_VERSION, 16) >= 0
