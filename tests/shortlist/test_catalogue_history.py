"""Prices and availability as of any time, compared with stored copies of the whole catalogue."""

import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.items.catalogue import Catalogue
from shortlist.items.catalogue_history import COLUMNS, CatalogueHistory
from shortlist.lake import Lake
from tests.examples import examples

IDS = ("a", "b", "c")
Offer = tuple[float | None, bool]
"""Price and availability."""


def table(offers: dict[str, Offer]) -> pa.Table:
    rows = [
        {c.ITEM_ID: id_, c.TITLE: id_, c.CATEGORIES: ["x"], c.PRICE: price, c.AVAILABLE: there}
        for id_, (price, there) in offers.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def offers_of(catalogue: Catalogue) -> dict[str, Offer]:
    rows = catalogue.items.select([c.ITEM_ID, c.PRICE, c.AVAILABLE]).to_pylist()
    assert [row[c.ITEM_ID] for row in rows] == catalogue.vocab.ids
    prices = [None if np.isnan(x) else float(np.expm1(x)) for x in catalogue.log_price[1:]]
    assert prices == pytest.approx([row[c.PRICE] for row in rows], abs=1e-5)
    assert catalogue.available[1:].tolist() == [row[c.AVAILABLE] for row in rows]
    return {row[c.ITEM_ID]: (row[c.PRICE], row[c.AVAILABLE]) for row in rows}


batches = st.lists(
    st.tuples(
        st.integers(0, 3),  # days since the previous batch
        st.dictionaries(
            st.sampled_from(IDS),
            st.tuples(st.sampled_from([None, 1.0, 2.0]), st.booleans()),
            min_size=1,
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=examples(25), deadline=None)
@given(batches=batches)
def test_every_moment_has_the_catalogue_that_was_known_then(
    batches: list[tuple[int, dict[str, Offer]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, now = Lake(Path(folder)), 100 * DAY
        then: list[tuple[int, dict[str, Offer]]] = []  # (valid from, offers of the whole catalogue)
        for number, (days, offers) in enumerate(batches):
            # Batches never arrive at the same time, because their order would be undefined.
            now += days * DAY + DAY // 2
            events = INTERACTIONS.empty_table()
            lake.publish(str(number), events, table(offers), USERS.empty_table(), arrived=now)
            then.append((now if then else 0, (then[-1][1] if then else {}) | offers))
        newest = Catalogue.from_items(lake.items())
        versions = lake.item_versions(COLUMNS)
        history = CatalogueHistory(newest, versions)
        edges = {since + d for since, _ in then for d in (-1, 0, 1)}
        for at in sorted({max(edge, 0) for edge in edges}):
            known = [offers for since, offers in then if since <= at][-1]
            want = {id_: known.get(id_, (None, False)) for id_ in newest.vocab.ids}
            (moment,) = history.moments(np.array([at])).tolist()
            assert moment <= at
            assert offers_of(history.as_of(moment)) == want
            assert asof_join(versions, newest.vocab.ids, at) == {
                id_: known.get(id_) for id_ in newest.vocab.ids
            }
        assert offers_of(history.as_of(now)) == offers_of(newest)


def asof_join(versions: pa.Table, ids: list[str], at: int) -> dict[str, Offer | None]:
    """Return the offers at a time by DuckDB's point-in-time join of the same table."""
    with duckdb.connect() as connection:
        connection.register("versions", versions)
        connection.register("asked", pa.table({c.ITEM_ID: ids, "at": [at] * len(ids)}))
        rows = connection.execute(
            "SELECT a.item_id, v.price, v.available, v.known_at FROM asked a"
            " ASOF LEFT JOIN versions v ON a.item_id = v.item_id AND a.at >= v.known_at"
        ).fetchall()
    return {
        id_: None if known is None else (price, available) for id_, price, available, known in rows
    }


def history_of(*rows: tuple[str, int, float, bool], first: dict[str, int]) -> CatalogueHistory:
    newest = Catalogue.from_items(table({id_: (price, there) for id_, _, price, there in rows}))
    versions = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    first_event = np.full(newest.num_items + 1, np.iinfo(np.int64).max)
    for id_, time in first.items():
        first_event[newest.vocab.idx(id_)] = time
    return CatalogueHistory(newest, versions, first_event=first_event)


def test_an_item_with_imported_history_was_there_since_ever() -> None:
    """A first version holds from the start if the item's first event is long before it."""
    rows = (("new", 30 * DAY, 1.0, True), ("old", 30 * DAY, 2.0, True))
    history = history_of(*rows, first={"new": 29 * DAY, "old": 20 * DAY})
    assert offers_of(history.as_of(0)) == {"new": (None, False), "old": (2.0, True)}
    assert history.changes.tolist() == [30 * DAY]


def test_a_catalogue_that_never_changed_is_itself_and_what_never_changes_is_shared() -> None:
    """Catalogues of earlier times share their unchanged arrays with the newest one."""
    still = history_of(("a", 0, 1.0, True), first={})
    assert still.as_of(5) is still.newest
    assert still.moments(np.array([3, 9])).tolist() == [0, 0]
    history = history_of(("a", 7, 1.0, True), ("b", 0, 2.0, True), first={})
    before = history.as_of(0)
    assert before.category_matrix is history.newest.category_matrix
    assert before.vocab is history.newest.vocab
    assert history.as_of(0) is before
