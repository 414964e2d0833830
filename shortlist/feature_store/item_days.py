"""Day counts of items: at each stored tick the counts of the DAY_BUCKETS days before it.

A tick is stored only when something new became known; a reader shifts the newest row's counts to
its own tick. So a day costs a row for each item with events, not one for each item and tick.
"""

import numpy as np
import pyarrow as pa

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.features import DAY_BUCKETS

ENTRIES = f"""
    SELECT item_id, t // {DAY} AS day, (m + {DAY - 1}) // {DAY} AS tick, count(*) AS n
    FROM events GROUP BY ALL
"""
"""How many events of a day were known by a tick (both in days since 1970) and not before it."""


def carried_entries(path: str) -> str:
    """ENTRIES of the newest stored rows of the items that have new events."""
    return f"""
        SELECT item_id, item_tick_time // {DAY} - {DAY_BUCKETS} + place - 1 AS day,
            item_tick_time // {DAY} AS tick, n
        FROM (
            SELECT item_id, item_tick_time, unnest(item_day_counts) AS n,
                generate_subscripts(item_day_counts, 1) AS place
            FROM read_parquet('{path}') WHERE item_id IN (SELECT item_id FROM events)
        ) WHERE n > 0
    """


def day_counts(entries: pa.Table, rows: pa.Table) -> pa.Array:
    """(R,) lists of DAY_BUCKETS counts, newest day last, for rows of (item_id, tick_day).

    Args:
        entries: item_id, day, tick, n; sorted by (item_id, tick).
        rows: item_id, tick_day; sorted alike. Each is the tick of at least one entry.
    """
    if rows.num_rows == 0:
        return pa.array([], pa.list_(pa.int64()))
    chunks = [*entries.column("item_id").chunks, *rows.column("item_id").chunks]
    code = pa.chunked_array(chunks).combine_chunks().dictionary_encode().indices.to_numpy()
    n = entries.num_rows
    item, row_item = code[:n], code[n:]
    day, tick, count = (entries.column(name).to_numpy() for name in ("day", "tick", "n"))
    row_tick = rows.column("tick_day").to_numpy()
    out = np.zeros((rows.num_rows, DAY_BUCKETS), dtype=np.int64)
    # The last entry of each row: keys are unique pairs, sorted as (item in order of coming, tick).
    low = int(tick.min(initial=0))
    span = int(max(tick.max(initial=0), row_tick.max(initial=0))) - low + 1
    rank = _rank_of_first(item, row_item)
    last = (
        np.searchsorted(
            rank[item] * span + tick - low, rank[row_item] * span + row_tick - low, side="right"
        )
        - 1
    )
    alive = np.arange(rows.num_rows)
    back = 0
    while len(alive):
        at = last[alive] - back
        # An entry that was known DAY_BUCKETS ticks ago holds only days that have left the window.
        same = (
            (at >= 0) & (item[at] == row_item[alive]) & (row_tick[alive] - tick[at] < DAY_BUCKETS)
        )
        alive, at = alive[same], at[same]
        age = row_tick[alive] - day[at]
        near = (age >= 1) & (age <= DAY_BUCKETS)
        np.add.at(out, (alive[near], DAY_BUCKETS - age[near]), count[at[near]])
        back += 1
    offsets = np.arange(rows.num_rows + 1, dtype=np.int32) * DAY_BUCKETS
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(out.ravel()))


def _rank_of_first(item: np.ndarray, row_item: np.ndarray) -> np.ndarray:
    """For each code its place in the order in which entries are sorted."""
    rank = np.zeros(int(max(item.max(initial=0), row_item.max(initial=0))) + 1, dtype=np.int64)
    if len(item):
        change = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
        rank[item[change]] = np.arange(len(change))
    return rank


def shift_day_counts(counts: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Counts (..., DAY_BUCKETS) as they look `days` (...) later: the oldest days have left."""
    source = np.arange(DAY_BUCKETS) + np.maximum(days, 0)[..., None]
    moved = np.take_along_axis(counts, np.minimum(source, DAY_BUCKETS - 1), axis=-1)
    return np.where(source < DAY_BUCKETS, moved, 0)
