"""Fixtures: ingest of a source into a lake with the SQL rules, and a home for posted events.

Great Expectations is left out, because its import takes ten seconds.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.datasets import DataConfig, stage_source
from shortlist.lake import Lake
from shortlist.lake.engine import connect
from shortlist.lake.publish import publish
from shortlist.lake.snapshot import locked, workspace
from shortlist.lake.staging import open_staged
from shortlist.validation import Sorting, ValidateConfig, rules_for
from shortlist.validation.figures import rows_of
from shortlist.validation.quarantine import Quarantine

NOW = datetime(2024, 6, 1, tzinfo=UTC)
STAGED_AT = 1_700_000_000_000_000
POSTED: dict[str, Any] = {
    "event_id": "e1",
    "user_id": "00196",
    "item_id": "a",
    "event_type": "click",
    "event_timestamp": 881_250_949_000_001,
    "received_at": 881_250_950_000_000,
}
"""A posted event as the service stores it in the inbox."""
TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]


def take_in_rows(
    config: DataConfig, settings: Settings
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Ingest and validate a source, and publish its good rows in the lake.

    Returns:
        The counts {read, accepted, quarantined, duplicates}, and the quarantined rows.
    """
    root = settings.lake
    staged = stage_source(config, settings, now=int(NOW.timestamp() * 1e6))
    with locked(root), workspace(root) as work, connect(work) as connection:
        folder, batch = open_staged(root, staged.batch_id)
        limits = ValidateConfig()
        sorting = Sorting(connection, root, folder, batch, limits)
        rules = rules_for(
            limits, now=NOW, earliest=limits.earliest, earliest_published=limits.earliest_published
        )
        sorting.prepare(rules)
        kept = Quarantine(settings.quarantine).write(sorting)
        _, quarantined = rows_of(sorting, "interactions")
        items, users = (sorting.good_rows(table) for table in ("items", "users"))
        done = publish(
            connection,
            root,
            batch.batch_id,
            work=work,
            events=sorting.good_events(),
            items=items,
            users=users,
            given_ids=batch.given_ids,
            session_gap=batch.session_gap,
            source=batch.source,
        )
    rows = []
    for path in sorted(kept.glob("*.parquet")) if kept else []:
        rows += [row | {"table": path.stem} for row in pq.read_table(path).to_pylist()]
    account = {
        "read": batch.read["interactions"],
        "accepted": done.accepted,
        "quarantined": quarantined,
        "duplicates": done.duplicates,
    }
    parts = account["accepted"] + account["quarantined"] + account["duplicates"]
    assert account["read"] == parts, f"nothing is lost: {account}"
    return account, rows


HEAD = b"user,item,stars,when\n"
GOOD = b"u1,a,4,1700000000\nu2,b,5,1700000001\n"
COLUMNS = {"user_id": "user", "item_id": "item", "value": "stars", "event_timestamp": "when"}
Broken = bytes | Callable[[Path], None]


class Gallery:
    """A home for broken source files, which are ingested with the SQL rules only."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = Settings(home=folder / "home")

    def put(self, name: str, content: Broken) -> Path:
        path = self.folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        return path

    def run(self, interactions: dict[str, Any], **files: Any) -> tuple[dict[str, int], list[Any]]:
        """Ingest files; return {read, accepted, quarantined, duplicates} and quarantined rows."""
        mapped = {"columns": COLUMNS, "event_type": "rating"} | interactions
        config = DataConfig.model_validate(
            {"source": "files", "files": {"interactions": mapped} | files}
        )
        return take_in_rows(config, self.settings)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path)


@pytest.fixture(scope="session")
def take_in() -> TakeIn:
    return take_in_rows


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home whose lake contains the item `a` and the user `00196`, and no events."""
    settings = Settings(home=tmp_path)
    item = {"item_id": "a", "categories": [], "available": True}
    Lake(settings.lake).publish(
        "seed",
        INTERACTIONS.empty_table(),
        pa.Table.from_pylist([item], schema=ITEMS),
        pa.Table.from_pylist([{"user_id": "00196"}], schema=USERS),
    )
    return settings


def event_table(events: list[tuple[str, str, int]]) -> pa.Table:
    """Return a table of (user, item, microseconds) events with the columns of `draw_requests`."""
    return pa.table(
        {
            "user_id": [e[0] for e in events],
            "item_id": [e[1] for e in events],
            "event_timestamp": pa.array([e[2] for e in events], pa.int64()).cast(TIMESTAMP),
            "event_order": pa.array(range(len(events)), pa.int64()),
            "surface": [f"with {e[1]}" for e in events],
        }
    )
