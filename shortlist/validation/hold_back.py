"""Keeps the newest events of a demo out of the lake, for `shortlist replay` to send later.

    held_back/cut.json              {"cut": microseconds}, decided by the first batch of a home
    held_back/<batch_id>.parquet    INTERACTIONS rows of a batch at or after the cut

A demo has no live users. `[data] hold_back` is the share of target events to hold back, the newest
ones; the replay sends them to the real service as traffic. Only good rows are held back, and only
good rows decide the cut.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, TIMESTAMP, sort_by_time
from shortlist.files.plain_json import write_json
from shortlist.lake.engine import quoted
from shortlist.lake.snapshot import write_whole
from shortlist.validation.config import ValidationFailed
from shortlist.validation.sorting import Sorting


def hold_back(sorting: Sorting, folder: Path) -> int:
    """Write the batch's good events at or after the home's cut to `folder`.

    Sets `sorting.cut`, so that `sorting.good_events` leaves these events out.

    Returns:
        The number of events held back.

    Raises:
        ValidationFailed: the cut would leave nothing for the lake.
    """
    if sorting.batch.hold_back == 0:
        return 0
    cut = _cut(sorting, folder)
    if cut is None:
        return 0
    listed = ", ".join(INTERACTIONS.names)
    held = sorting.connection.sql(
        f"SELECT {listed} FROM {sorting.good_events()}"
        f" WHERE operation = 'insert' AND epoch_us({c.EVENT_TIMESTAMP}) >= {cut}"
    ).to_arrow_table()
    sorting.cut = cut
    if held.num_rows == 0:
        return 0
    columns = [held.column(field.name).cast(field.type) for field in INTERACTIONS]
    table = sort_by_time(pa.table(columns, schema=INTERACTIONS))
    write_whole(table, folder / f"{sorting.batch.batch_id}.parquet")
    return table.num_rows


def _cut(sorting: Sorting, folder: Path) -> int | None:
    """Return the home's cut in microseconds; None if no event is to be held back.

    If no cut is stored, it is decided and stored now, but only for an empty lake: events that the
    lake already has can't be held back.
    """
    path = folder / "cut.json"
    if path.is_file():
        return int(json.loads(path.read_text())["cut"])
    if sorting.manifest.rows:
        return None
    batch = sorting.batch
    types = ", ".join(quoted(event_type) for event_type in batch.target_events)
    query = (
        f"SELECT epoch_us({c.EVENT_TIMESTAMP}) AS t FROM {sorting.good_events()}"
        f" WHERE operation = 'insert' AND event_type IN ({types}) ORDER BY t"
    )
    times = sorting.connection.execute(query).fetchnumpy()["t"]
    if len(times) == 0:
        return None
    cut = int(times[min(round((1 - batch.hold_back) * len(times)), len(times) - 1)])
    if cut <= times[0]:
        raise ValidationFailed(
            f"hold_back = {batch.hold_back}: {len(times)} target events are too few, or have too"
            " few distinct times, to hold back that share; remove hold_back from [data]"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"cut": cut, "hold_back": batch.hold_back})
    return cut


def held_back_files(settings: Settings) -> list[Path]:
    """Return the Parquet files of held-back events; an event may be in several of them."""
    return sorted(settings.held_back.glob("*.parquet"))


def held_back_events(settings: Settings, *, since: int) -> pa.Table:
    """Read the held-back events at or after `since` (microseconds), sorted by time, each once."""
    tables = [
        pq.read_table(
            path,
            schema=INTERACTIONS,
            filters=[(c.EVENT_TIMESTAMP, ">=", pa.scalar(since, TIMESTAMP))],
        )
        for path in held_back_files(settings)
    ]
    table = sort_by_time(pa.concat_tables([*tables, INTERACTIONS.empty_table()]))
    seen: set[str] = set()
    first = [
        row
        for row, event_id in enumerate(table.column(c.EVENT_ID).to_pylist())
        if not (event_id in seen or seen.add(event_id))
    ]
    return table.take(pa.array(first, pa.int64()))
