"""The lake: validated interactions, items and users in Parquet, written whole or not at all.

    lake/incoming/<batch_id>/*.parquet     ingested, not yet validated
    lake/interactions/<batch_id>.parquet   validated, only what is new to the lake
    lake/{items,users}.parquet             the newest row of each id

Publishing is idempotent: an event_id is stored once, whatever batch brings it again.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS, check, sort_by_time

TABLES = ("interactions", "items", "users")


class LakeError(RuntimeError):
    """The lake does not hold what was asked for; the message says which command brings it."""


class Lake:
    """Reading and publishing under one folder."""

    def __init__(self, root: Path):
        self.root = root

    def incoming(self, batch_id: str) -> Path:
        """Folder of a batch that was ingested and awaits validation."""
        return self.root / "incoming" / batch_id

    def stage(
        self, batch_id: str, interactions: pa.Table, items: pa.Table, users: pa.Table
    ) -> Path:
        """Lay a contract-checked batch beside the lake; staging it again replaces it."""
        folder = self.incoming(batch_id)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in zip(TABLES, (interactions, items, users), strict=True):
            write_whole(table, folder / f"{name}.parquet")
        return folder

    def require_incoming(self, batch_id: str) -> None:
        """Raises LakeError if the batch was not ingested. Cheap: nothing is read."""
        folder = self.incoming(batch_id)
        missing = [name for name in TABLES if not (folder / f"{name}.parquet").is_file()]
        if missing:
            raise LakeError(
                f"{folder}: no {missing[0]}.parquet; batch '{batch_id}' was not ingested"
                " (run `shortlist ingest`)"
            )

    def read_incoming(self, batch_id: str) -> tuple[pa.Table, pa.Table, pa.Table]:
        """The staged tables: interactions, items, users. Raises LakeError if there is no such
        batch, or a file of it is broken.
        """
        self.require_incoming(batch_id)
        folder = self.incoming(batch_id)
        try:
            tables = [pq.read_table(folder / f"{name}.parquet") for name in TABLES]
        except pa.ArrowInvalid as error:
            raise LakeError(f"{folder}: {error}; ingest it again") from None
        interactions, items, users = tables
        return interactions, items, users

    def publish(
        self, batch_id: str, interactions: pa.Table, items: pa.Table, users: pa.Table
    ) -> dict[str, int]:
        """Make a validated batch part of the lake.

        Items and users are replaced by id; of the interactions only event_ids that the lake does
        not have yet are kept. Returns {"interactions", "known", "items", "users"}: rows new, rows
        that were there already, and catalogue and user rows after the batch.

        Raises:
            ContractError: a table does not keep its contract.
        """
        interactions = check(interactions, INTERACTIONS, where=f"batch {batch_id}: interactions")
        items = check(items, ITEMS, where=f"batch {batch_id}: items")
        users = check(users, USERS, where=f"batch {batch_id}: users")
        folder = self.root / "interactions"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{batch_id}.parquet"
        others = [path for path in self.interaction_files() if path != target]
        new = _without_known(interactions, others)
        # Ids first: an interaction whose item is not there yet must never be visible.
        count_items = self._upsert(self.root / "items.parquet", items, c.ITEM_ID)
        count_users = self._upsert(self.root / "users.parquet", users, c.USER_ID)
        if new.num_rows:
            write_whole(sort_by_time(new), target)
        return {
            "interactions": new.num_rows,
            "known": interactions.num_rows - new.num_rows,
            "items": count_items,
            "users": count_users,
        }

    def interaction_files(self) -> list[Path]:
        """Parquet files of all validated interactions, for DuckDB."""
        return sorted((self.root / "interactions").glob("*.parquet"))

    def interactions(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        event_types: Sequence[str] | None = None,
    ) -> pa.Table:
        """Validated interactions, sorted by (event_timestamp, event_order).

        Args:
            since, until: microseconds, half open.
            event_types: only these; None is all.

        Raises:
            LakeError: there are no interactions at all, or none of these types.
        """
        files = self.interaction_files()
        if not files:
            raise LakeError(f"{self.root}: no interactions yet; run `shortlist run` or `ingest`")
        conditions = [pc.scalar(True)]
        if since is not None:
            conditions.append(pc.field(c.EVENT_TIMESTAMP) >= pa.scalar(since, TIMESTAMP))
        if until is not None:
            conditions.append(pc.field(c.EVENT_TIMESTAMP) < pa.scalar(until, TIMESTAMP))
        if event_types is not None:
            conditions.append(pc.field(c.EVENT_TYPE).isin(list(event_types)))
        condition = conditions[0]
        for further in conditions[1:]:
            condition = condition & further
        tables = [pq.read_table(path, filters=condition, schema=INTERACTIONS) for path in files]
        table = sort_by_time(pa.concat_tables(tables)).combine_chunks()
        if table.num_rows == 0 and event_types is not None:
            raise LakeError(
                f"{self.root}: no events of type {', '.join(event_types)} in"
                f" {len(files)} files{'' if since is until is None else ' in that time'}"
            )
        return table

    def items(self) -> pa.Table:
        """The catalogue. Raises LakeError if there is none."""
        return self._read(self.root / "items.parquet")

    def users(self) -> pa.Table:
        """All known users. Raises LakeError if there are none."""
        return self._read(self.root / "users.parquet")

    def _read(self, path: Path) -> pa.Table:
        if not path.is_file():
            raise LakeError(f"{path}: not there yet; run `shortlist run` or `ingest`")
        return pq.read_table(path)

    def _upsert(self, path: Path, rows: pa.Table, key: str) -> int:
        if path.is_file():
            old = pq.read_table(path)
            kept = old.filter(pc.invert(pc.is_in(old.column(key), value_set=rows.column(key))))
            rows = pa.concat_tables([kept, rows], promote_options="default")
        write_whole(rows.sort_by(key), path)
        return rows.num_rows


def write_whole(table: pa.Table, path: Path) -> None:
    """Write Parquet beside and rename: a reader sees the file as before or as after."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _without_known(interactions: pa.Table, files: list[Path]) -> pa.Table:
    """Rows whose event_id is in none of the files, each event_id once (its first row)."""
    with duckdb.connect() as connection:
        connection.register(
            "batch",
            interactions.select([c.EVENT_ID]).append_column(
                "row", pa.array(np.arange(interactions.num_rows))
            ),
        )
        known = "SELECT event_id FROM read_parquet(?)" if files else "SELECT NULL WHERE false"
        rows = connection.execute(
            "SELECT min(row) AS row FROM batch GROUP BY event_id"
            f" HAVING event_id NOT IN ({known}) ORDER BY row",
            [[str(path) for path in files]] if files else [],
        ).fetchnumpy()
    return interactions.take(rows["row"])
