"""What a single row does not show: ids of several events, targets of corrections, bursts.

Each becomes a small table of ids and an SQL expression on the staged events `e`.
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
    """Flags of a staged batch's events."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    batch: StagedBatch
    lake: Path | None
    manifest: Manifest
    burst_per_minute: int
    unique_ids: bool = False
    """Whether each given event_id is known to be there once."""

    def prepare(self) -> dict[str, str]:
        """{flag: SQL expression, never NULL}; reads the relation `staged`."""
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
        """Given ids that stand for two different events; derived ids cannot."""
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
        """By their hashes, which take a fifth of the memory of the ids themselves."""
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
        """(user, minute) with more events than one person makes."""
        limit = self.burst_per_minute
        acted = "event_type IS DISTINCT FROM 'impression'"  # a list is many rows
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
