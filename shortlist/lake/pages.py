"""Finds the time of the page request that led to an event."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import microseconds
from shortlist.lake.engine import connect, parquet

PAGE_LIFE = 30 * 60 * 1_000_000
"""Microseconds. An event that is later than this after its page counts as a separate request."""


def asked_at(files: list[Path], events: pa.Table, *, temporary: Path) -> np.ndarray:
    """Return (E,) time in microseconds of the page request of each event.

    This is the time of the first event (usually an impression) with the same user and `request_id`.
    Without a `request_id`, or if that event is more than PAGE_LIFE earlier, it is the event's own
    time.

    Args:
        files: all interaction files of the lake.
        events: INTERACTIONS contract.
        temporary: folder for DuckDB's spill files.
    """
    time = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
    wanted = pa.table(
        {
            "row": np.arange(events.num_rows),
            "user_id": events.column(c.USER_ID),
            "request_id": events.column(c.REQUEST_ID),
        }
    ).filter(pc.fill_null(pc.not_equal(events.column(c.REQUEST_ID), ""), False))
    if not files or wanted.num_rows == 0:
        return time
    with connect(temporary) as connection:
        connection.register("wanted", wanted)
        found = connection.execute(
            f"""
            WITH pages AS (
                SELECT user_id, request_id, min(epoch_us(event_timestamp)) AS asked
                FROM {parquet(files)}
                SEMI JOIN wanted USING (user_id, request_id)
                GROUP BY user_id, request_id
            )
            SELECT row, asked FROM wanted JOIN pages USING (user_id, request_id)
            """
        ).fetchnumpy()
    page = time.copy()
    page[found["row"]] = found["asked"]
    return np.where((page <= time) & (time - page <= PAGE_LIFE), page, time)
