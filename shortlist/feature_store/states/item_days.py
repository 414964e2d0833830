"""Daily event counts of items over the last DAY_BUCKETS days before a tick.

Ticks are the times, for example each full hour, at which item features change (shortlist/ticks.py).
A row is stored only for ticks at which an item has new events. Readers shift an item's newest row
to a later tick. Stored counts are by calendar day (UTC), and the last day ends at the tick. Readers
convert them to 24-hour windows that end at the tick.

Shapes: R rows, E entries.
"""

import numpy as np
import pyarrow as pa

from shortlist.features.finalize import DAY_BUCKETS
from shortlist.ticks import DAILY, last_day

BLOCK = 16_384
"""Rows whose counts are computed together; their arrays fit the processor's cache."""


def entries(tick: int) -> str:
    """Return the SQL of the number of events per item, day and first tick at which they were known.

    Columns: item_id, day (days since 1970), tick (number since 1970), n.
    """
    return f"""
        SELECT item_id, t // {DAILY} AS day, (m + {tick - 1}) // {tick} AS tick, count(*) AS n
        FROM events WHERE item_id IS NOT NULL GROUP BY ALL
    """


def carried_entries(path: str, tick: int) -> str:
    """Return the SQL of `entries` from the newest stored rows of items with new events."""
    return f"""
        SELECT item_id, (item_tick_time - 1) // {DAILY} - {DAY_BUCKETS} + place AS day,
            item_tick_time // {tick} AS tick, n
        FROM (
            SELECT item_id, item_tick_time, unnest(item_day_counts) AS n,
                generate_subscripts(item_day_counts, 1) AS place
            FROM read_parquet('{path}') WHERE item_id IN (SELECT item_id FROM events)
        ) WHERE n > 0
    """


def day_counts(entries: pa.Table, rows: pa.Table, *, tick: int) -> pa.Array:
    """Return R lists of DAY_BUCKETS daily counts for rows of (item_id, tick_time).

    The last count of a list is that of the tick's day.

    Args:
        entries: E rows of item_id, day, tick, n; sorted by (item_id, day, tick).
        rows: R rows of item_id, tick_time (microseconds); sorted by both.
        tick: tick length in microseconds.
    """
    if rows.num_rows == 0:
        return pa.array([], pa.list_(pa.int64()))
    chunks = [*entries.column("item_id").chunks, *rows.column("item_id").chunks]
    code = pa.chunked_array(chunks).combine_chunks().dictionary_encode().indices.to_numpy()
    item, row_item = code[: entries.num_rows], code[entries.num_rows :]
    day, number, count = (entries.column(name).to_numpy() for name in ("day", "tick", "n"))
    tick_time = rows.column("tick_time").to_numpy()
    row_day, row_number = last_day(tick_time), tick_time // tick
    # Encode (item, day, tick) as one sorted number: two binary searches give a daily count. Days
    # without an entry of the item are recognised by the entry before `end` and need no search.
    first_day, first_number = day.min(), number.min()
    days = max(int(day.max()), int(row_day.max())) - first_day + 1
    numbers = max(int(number.max()), int(row_number.max())) - first_number + 1
    key = (item * days + day - first_day) * numbers + number - first_number
    known = np.r_[0, np.cumsum(count)]
    out = np.zeros((rows.num_rows, DAY_BUCKETS), dtype=np.int64)
    starts = (row_item * days + row_day - first_day) * numbers
    for first in range(0, rows.num_rows, BLOCK):
        block = slice(first, first + BLOCK)
        start, until = starts[block], row_number[block] - first_number
        end = np.searchsorted(key, start + numbers)  # entries up to the row's day
        for age in range(DAY_BUCKETS):
            dated = (row_day[block] - age >= first_day) & (end > 0) & (key[end - 1] >= start)
            some = np.flatnonzero(dated)
            low = np.searchsorted(key, start[some])
            high = np.searchsorted(key, start[some] + until[some], side="right")
            out[first + some, -1 - age] = known[high] - known[low]
            end[some] = low
            start = start - numbers
    offsets = np.arange(rows.num_rows + 1, dtype=np.int32) * DAY_BUCKETS
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(out.ravel()))


def shift_day_counts(counts: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Shift daily counts (..., DAY_BUCKETS) by `days` (...): the oldest days are dropped and zeros
    are added for the newest days.
    """
    source = np.arange(DAY_BUCKETS) + np.maximum(days, 0)[..., None]
    moved = np.take_along_axis(counts, np.minimum(source, DAY_BUCKETS - 1), axis=-1)
    return np.where(source < DAY_BUCKETS, moved, 0)


def last_24_hours(counts: np.ndarray, tick_time: np.ndarray) -> np.ndarray:
    """Convert counts by calendar day (..., DAY_BUCKETS) to 24-hour windows that end at `tick_time`.

    Events are assumed to be spread evenly over each day. At midnight both counts are equal.
    """
    share = ((np.asarray(tick_time) - 1) % DAILY + 1)[
        ..., None
    ] / DAILY  # share of the last calendar day that has passed at the tick
    before = np.zeros(counts.shape)
    before[..., 1:] = counts[..., :-1]
    windows = share * counts + (1 - share) * before
    windows[..., -1] = counts[..., -1] + (1 - share[..., 0]) * before[..., -1]
    return windows
