"""Events of a demo's source that are kept out of the lake, for `shortlist replay` to send later.

    held_back/cut.json              {"cut": microseconds}, decided by the first ingest of a home
    held_back/<batch_id>.parquet    INTERACTIONS rows of a batch at or after the cut

A demo has no users of its own. `hold_back` takes the newest share of the target events away from
ingest; the replay then sends what these people did as traffic of the real service.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, TIMESTAMP, sort_by_time
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.staging import PART, Stager
from shortlist.lake.engine import parquet, quoted
from shortlist.lake.snapshot import current_manifest
from shortlist.lake.staging import staged_events
from shortlist.plain_json import write_json

GOOD = "NOT excluded AND coalesce(len(faults), 0) = 0 AND event_timestamp IS NOT NULL"
"""Rows with faults stay in the batch: validation has to put them into quarantine."""


def hold_back(stager: Stager) -> None:
    """Move the staged events at or after the home's cut to `held_back/`; the batch has its id.

    Raises:
        DatasetError: the cut would leave nothing for the lake.
    """
    config = stager.config
    if config.hold_back == 0 or config.source == "service":
        return
    cut = _cut(stager)
    if cut is None:
        return
    newer = f"{GOOD} AND epoch_us(event_timestamp) >= {cut}"
    listed = ", ".join(INTERACTIONS.names)
    staged = staged_events(stager.staged.folder)
    held = stager.connection.sql(f"SELECT {listed} FROM {staged} WHERE {newer}").to_arrow_table()
    if held.num_rows == 0:
        return
    columns = [held.column(field.name).cast(field.type) for field in INTERACTIONS]
    table = sort_by_time(pa.table(columns, schema=INTERACTIONS))
    pq.write_table(table, stager.settings.held_back / f"{stager.batch.batch_id}.parquet")
    for path in sorted((stager.staged.folder / "interactions").glob("*.parquet")):
        kept = path.with_suffix(".kept")
        stager.connection.execute(
            f"COPY (SELECT * FROM {parquet([path])} WHERE NOT coalesce({newer}, false))"
            f" TO {quoted(str(kept))} {PART}"
        )
        kept.replace(path)
    stager.batch.held_back = table.num_rows
    stager.batch.read["interactions"] -= table.num_rows


def _cut(stager: Stager) -> int | None:
    """The home's cut in microseconds; decided now if the lake is empty, else None if there is none:
    what the lake has already can't be held back.
    """
    path = stager.settings.held_back / "cut.json"
    if path.is_file():
        return int(json.loads(path.read_text())["cut"])
    if current_manifest(stager.settings.lake).rows:
        return None
    config = stager.config
    types = ", ".join(quoted(one) for one in config.target_events)
    targets = f"{staged_events(stager.staged.folder)} WHERE {GOOD} AND event_type IN ({types})"
    query = f"SELECT epoch_us(event_timestamp) AS t FROM {targets} ORDER BY t"
    times = stager.connection.execute(query).fetchnumpy()["t"]
    if len(times) == 0:
        return None
    cut = int(times[min(round((1 - config.hold_back) * len(times)), len(times) - 1)])
    if cut <= times[0]:
        raise DatasetError(
            f"hold_back = {config.hold_back}: {len(times)} target events are too few, or of too few"
            " distinct times, to hold back that share; take hold_back out of [data]"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"cut": cut, "hold_back": config.hold_back})
    return cut


def held_back_files(settings: Settings) -> list[Path]:
    """Parquet files of the INTERACTIONS contract; the same event may be in several."""
    return sorted(settings.held_back.glob("*.parquet"))


def held_back_events(settings: Settings, *, since: int) -> pa.Table:
    """INTERACTIONS rows from `since` (microseconds) on, sorted by time, each event once."""
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
