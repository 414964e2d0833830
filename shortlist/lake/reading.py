"""Reads the lake (validated events, items and users).

Each method call reads one consistent snapshot, even while another process commits.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS, check, sort_by_time
from shortlist.lake.pages import asked_at
from shortlist.lake.publish import publish_batch
from shortlist.lake.searches import chosen_after_search
from shortlist.lake.shown_lists import shown_lists
from shortlist.lake.snapshot import LakeError, Manifest, current_folder
from shortlist.lake.versions import read_versions

NOTHING_YET = "run `shortlist run` or `ingest`"


class Lake:
    """Access to the lake in folder `root`.

    Args:
        version: always read this snapshot, which must be leased; None: read the newest snapshot at
            each call.
    """

    def __init__(self, root: Path, *, version: int | None = None):
        self.root = root
        self.version = version

    @property
    def folder(self) -> Path | None:
        """The snapshot's folder; None before the first commit."""
        if self.version is None:
            return current_folder(self.root)
        folder = self.root / "snapshots" / f"{self.version:06d}"
        if not folder.is_dir():
            raise LakeError(
                f"{folder}: the snapshot was removed; start a new run with `shortlist run`"
            )
        return folder

    @property
    def manifest(self) -> Manifest:
        """The snapshot's manifest; empty before the first commit."""
        folder = self.folder
        return Manifest() if folder is None else Manifest.read(folder)

    def incoming(self, batch_id: str) -> Path:
        """Return the folder of an ingested batch that is not yet validated."""
        return self.root / "incoming" / batch_id

    def publish(
        self,
        batch_id: str,
        interactions: pa.Table,
        items: pa.Table,
        users: pa.Table,
        *,
        arrived: int | None = None,
    ) -> dict[str, int]:
        """Add validated tables to the lake as one commit.

        Items and users replace rows with the same id. Interactions with an event_id that the lake
        already has are ignored. Returns {"interactions", "known", "items", "users"}: number of new
        events, of ignored events, and of items and users in the lake after the commit.

        Args:
            arrived: microseconds, time at which the versions of these items became known; None:
                now.

        Raises:
            ContractError: a table violates its contract.
        """
        interactions = check(interactions, INTERACTIONS, where=f"batch {batch_id}: interactions")
        done = publish_batch(
            self.root,
            batch_id,
            events=interactions,
            items=check(items, ITEMS, where=f"batch {batch_id}: items"),
            users=check(users, USERS, where=f"batch {batch_id}: users"),
            given_ids=True,
            arrived=arrived,
        )
        return {
            "interactions": done.accepted,
            "known": done.duplicates,
            "items": done.items,
            "users": done.users,
        }

    def interaction_files(self) -> list[Path]:
        """Return the Parquet files of all interactions, for queries with DuckDB."""
        folder = self.folder
        if folder is None:
            return []
        parts = Manifest.read(folder).partitions
        return [folder / file for key in sorted(parts) for file in parts[key]["files"]]

    def interactions(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        event_types: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read interactions, sorted by (event_timestamp, event_order).

        Args:
            since, until: microseconds, half open; partitions outside the range are not read.
            event_types: event types to read; None: all.

        Raises:
            LakeError: the lake has no interactions, or none of these types in the range.
        """
        folder = self.folder
        parts = {} if folder is None else Manifest.read(folder).partitions
        if folder is None or not parts:
            raise LakeError(f"{self.root}: no interactions yet; {NOTHING_YET}")
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
        paths = [
            folder / file
            for part in parts.values()
            if (since is None or part["latest"] >= since)
            and (until is None or part["earliest"] < until)
            for file in part["files"]
        ]
        tables = [pq.read_table(path, filters=condition, schema=INTERACTIONS) for path in paths]
        tables.append(INTERACTIONS.empty_table())
        table = sort_by_time(pa.concat_tables(tables)).combine_chunks()
        if table.num_rows == 0 and event_types is not None:
            raise LakeError(
                f"{self.root}: no events of type {', '.join(event_types)} in"
                f" {len(parts)} partitions"
                f"{'' if since is until is None else ' in the requested time range'}"
            )
        return table

    def asked_at(self, interactions: pa.Table) -> np.ndarray:
        """Return (E,) time in microseconds of the page request of each event.

        It is found by `request_id`. Without a page request, it is the event's time (see pages.py).
        """
        return asked_at(self.interaction_files(), interactions, temporary=self.root)

    def chosen_after_search(self, interactions: pa.Table) -> pa.Table | None:
        """Return the pairs of a search and one of these events after it (see searches.py).

        None if the lake has no searches.
        """
        try:
            searches = self.interactions(event_types=["search"])
        except LakeError:
            return None
        return chosen_after_search(searches, interactions, temporary=self.root)

    def shown_lists(self, *, since: int, until: int, chosen_by: Sequence[str]) -> pa.Table:
        """Return the lists shown from `since` to `until` (microseconds) (see shown_lists.py)."""
        files = self.interaction_files()
        return shown_lists(
            files, since=since, until=until, chosen_by=chosen_by, temporary=self.root
        )

    def items(self) -> pa.Table:
        """Return the catalogue. Raises LakeError if there is none."""
        return self._read("items.parquet")

    def item_versions(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all versions of all items (ITEM_VERSIONS), in no particular order.

        Args:
            columns: columns to read; None: all.

        Raises:
            LakeError: there is no catalogue.
        """
        folder = self.folder
        if folder is None or not (folder / "items.parquet").is_file():
            raise LakeError(f"{self.root}: no items.parquet yet; {NOTHING_YET}")
        return read_versions(folder, columns=None if columns is None else list(columns))

    def users(self) -> pa.Table:
        """Return all known users. Raises LakeError if there are none."""
        return self._read("users.parquet")

    def _read(self, name: str) -> pa.Table:
        folder = self.folder
        if folder is None or not (folder / name).is_file():
            raise LakeError(f"{self.root}: no {name} yet; {NOTHING_YET}")
        return pq.read_table(folder / name)
