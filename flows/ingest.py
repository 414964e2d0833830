"""Ingest: read the source, map it to the contracts, drop duplicates, and stage the batch beside the
lake.
"""

import time
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from prefect import flow

from shortlist.config import Settings
from shortlist.contracts import sort_by_time
from shortlist.datasets import DataConfig, load_batch
from shortlist.lake import Lake


@flow(name="ingest", log_prints=True)
def ingest_flow(data: DataConfig) -> dict[str, Any]:
    """Stage one batch; `shortlist validate` makes it part of the lake."""
    settings = Settings()
    batch = load_batch(data, settings, now=time.time_ns() // 1_000)
    interactions = sort_by_time(without_duplicates(batch.interactions))
    Lake(settings.lake).stage(batch.batch_id, interactions, batch.items, batch.users)
    result = {
        "batch_id": batch.batch_id,
        "read": batch.interactions.num_rows,
        "duplicates": batch.interactions.num_rows - interactions.num_rows,
        "staged": interactions.num_rows,
        "items": batch.items.num_rows,
        "users": batch.users.num_rows,
    }
    print(
        f"ingest: batch {batch.batch_id}: {result['read']:,} events read,"
        f" {result['duplicates']:,} duplicates, {result['items']:,} items,"
        f" {result['users']:,} users"
    )
    return result


def without_duplicates(interactions: pa.Table) -> pa.Table:
    """Each event_id once: the first row of it."""
    numbered = interactions.append_column("row", pa.array(np.arange(interactions.num_rows)))
    with duckdb.connect() as connection:
        connection.register("batch", numbered.select(["event_id", "row"]))
        first = connection.execute(
            "SELECT min(row) AS row FROM batch GROUP BY event_id ORDER BY row"
        ).fetchnumpy()
    return interactions.take(first["row"])
