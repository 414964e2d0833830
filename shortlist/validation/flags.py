"""Flags of events that depend on several rows: ambiguous ids, bursts, targets of corrections.

A flag is an SQL expression on the staged events `e` that looks up ids in a small table.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from shortlist.lake.engine import parquet
from shortlist.lake.publish import GONE
from shortlist.lake.snapshot import Manifest
from shortlist.lake.staging import StagedBatch, staged_events

CONTENT = "hash(user_id, item_id, event_type, event_timestamp, value, text, query)"
MINUTE = 60_000_000


@dataclass
class Flags:
    """Computes the flags of a staged batch's events."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    batch: StagedBatch
    lake: Path | None
    manifest: Manifest
    burst_per_minute: int
    unique_ids: bool = False
    """Set by `prepare`: True if no given event_id occurs twice in the batch."""

    def prepare(self) -> dict[str, str]:
        """Create a table of ids for each flag; return {flag: SQL expression that is never NULL}.

        The view `staged` of the batch's events must exist.
        """
        self._conflicts()
        self._operation_targets()
        self._bursts()
        is_there = self._flag("targets", "e.event_id")
        return {
            "id_conflict": self._flag("conflicts", "e.event_id"),
            "operation_misses": f"e.operation IN ('correct', 'delete') AND NOT {is_there}",
            "in_burst": self._burst_flag(),
        }

    def _conflicts(self) -> None:
        """Create the table of given event_ids that belong to two different events.

        Derived ids can't be ambiguous.
        """
        query = "SELECT NULL::VARCHAR AS event_id WHERE false"
        inserted = f"{staged_events(self.folder)} WHERE operation = 'insert'"
        if self.batch.given_ids and not self._ids_are_unique(inserted):
            query = (
                f"SELECT event_id FROM (SELECT event_id, {CONTENT} AS content FROM {inserted}"
                " AND hash(event_id) IN (SELECT id FROM repeated_ids))"
                " GROUP BY event_id HAVING min(content) <> max(content)"
            )
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE conflicts AS {query}")

    def _ids_are_unique(self, inserted: str) -> bool:
        """Return whether all event_ids differ, tested by their hashes, which need a fifth of the
        memory. Creates the table `repeated_ids` of repeated hashes.
        """
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE repeated_ids AS"
            f" SELECT hash(event_id) AS id FROM {inserted} GROUP BY 1 HAVING count(*) > 1"
        )
        found = self.connection.execute("SELECT count(*) FROM repeated_ids").fetchall()
        self.unique_ids = found == [(0,)]
        return self.unique_ids

    def _operation_targets(self) -> None:
        query = "SELECT NULL::VARCHAR AS event_id WHERE false"
        if self.batch.operations:
            staged = staged_events(self.folder)
            asked = f"(SELECT DISTINCT event_id FROM {staged} WHERE operation <> 'insert')"
            places = [f"(SELECT event_id FROM {staged} WHERE operation = 'insert')"]
            if self.lake is not None:
                files = [
                    self.lake / name
                    for part in self.manifest.partitions.values()
                    for name in part["files"]
                ]
                places += [parquet(files)] if files else []
                places += [parquet([self.lake / GONE])] if (self.lake / GONE).is_file() else []
            found = [
                f"SELECT a.event_id FROM {asked} a SEMI JOIN {p} USING (event_id)" for p in places
            ]
            query = " UNION ".join(found)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE targets AS {query}")

    def _bursts(self) -> None:
        """Create the table of (user, minute) with more than `burst_per_minute` events."""
        limit = self.burst_per_minute
        # Impressions don't count, because a shown list has many of them.
        acted = "event_type IS DISTINCT FROM 'impression'"
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE busy AS
            SELECT user_id FROM staged WHERE {acted}
            GROUP BY user_id HAVING count(*) > {limit}
        """)
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE bursts AS
            SELECT user_id, epoch_us(event_timestamp) // {MINUTE} AS minute, count(*) AS events
            FROM staged SEMI JOIN busy USING (user_id) WHERE {acted}
            GROUP BY ALL HAVING count(*) > {limit}
        """)

    def _burst_flag(self) -> str:
        if self.connection.execute("SELECT count(*) FROM bursts").fetchall() == [(0,)]:
            return "false"
        minute = f"epoch_us(e.event_timestamp) // {MINUTE}"
        return f"coalesce((e.user_id, {minute}) IN (SELECT (user_id, minute) FROM bursts), false)"

    def _flag(self, table: str, column: str) -> str:
        if self.connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]:
            return "false"
        return f"coalesce({column} IN (SELECT event_id FROM {table}), false)"
