"""Helpers for tests of states: write events in the lake's schema, build states, read their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from shortlist.behaviour.counting import POSTED
from shortlist.behaviour.refusals import USER_REFUSALS
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, TIMESTAMP, USERS
from shortlist.feature_store.offline.event_lists import lists_at
from shortlist.feature_store.online.user_state import FeatureEvent
from shortlist.feature_store.states.build import EVENTS, VIEWS, build_states
from shortlist.feature_store.states.target_sql import BACKFILL_LAG
from shortlist.features.finalize import USER_HISTORY

START = 10_000 * DAY
UNTIL = START + 45 * DAY
TYPES = ("rating", "like")
DECAYED = ("user_decayed", "user_value_decayed", "user_value_weight")


@dataclass(frozen=True)
class Arrived:
    """An event, and the time of its ingest."""

    user_id: str
    item_id: str
    t: int
    ingested: int
    value: float | None = None
    event_type: str = "rating"
    query: str | None = None
    source: str = "test"

    @property
    def known(self) -> int:
        """Time from which features may use the event, in microseconds.

        That is after the event and its ingest. If the ingest is more than BACKFILL_LAG later, the
        event counts as imported history and is known right after it happened, unless it was posted.
        """
        posted = self.source.startswith(POSTED)
        imported = not posted and self.ingested - self.t > BACKFILL_LAG
        return self.t + 1 if imported else max(self.t + 1, self.ingested)


RATED = Arrived("w", "a", START, START)
"""A target event of another user, because a lake without any is refused."""


def arrivals(
    *,
    item_ids: Sequence[str],
    days: Sequence[int],
    lags: Sequence[int],
    event_types: Sequence[str],
    max_size: int,
    values: Sequence[float | None] = (None,),
) -> SearchStrategy[list[Arrived]]:
    """Return a strategy for lists of events of two users.

    Args:
        days: days from START to the event's day.
        lags: microseconds from the event to its ingest.
    """
    event = st.builds(
        lambda user_id, item_id, day, offset, lag, value, event_type: Arrived(
            user_id,
            item_id,
            START + day * DAY + offset,
            START + day * DAY + offset + lag,
            value,
            event_type,
        ),
        user_id=st.sampled_from(["u", "v"]),
        item_id=st.sampled_from(item_ids),
        day=st.sampled_from(days),
        offset=st.sampled_from([0, 1, 5 * HOUR, DAY - 1]),
        lag=st.sampled_from(lags),
        value=st.sampled_from(values),
        event_type=st.sampled_from(event_types),
    )
    return st.lists(event, min_size=1, max_size=max_size)


def write(events: list[Arrived], path: Path) -> Path:
    n = len(events)
    columns = {
        "event_id": [f"{path.stem}-{i}" for i in range(n)],
        "user_id": [e.user_id for e in events],
        "item_id": [e.item_id for e in events],
        "event_type": [e.event_type for e in events],
        "event_timestamp": pa.array([e.t for e in events], pa.int64()).cast(TIMESTAMP),
        "event_order": range(n),
        "ingested_at": pa.array([e.ingested for e in events], pa.int64()).cast(TIMESTAMP),
        "value": [e.value for e in events],
        "query": [e.query for e in events],
        "surface": ["web"] * n,
        "source": [e.source for e in events],
    }
    table = pa.table(
        [pa.array(columns.get(f.name, [None] * n), f.type) for f in INTERACTIONS],
        schema=INTERACTIONS,
    )
    pq.write_table(table, path)
    return path


def build(files: list[Path], features: Path, *, until: int, **options: Any) -> dict[str, int]:
    return build_states(
        files,
        USERS.empty_table(),
        folder=features,
        target_events=TYPES,
        until=until,
        **options,
    )


def build_in_parts(
    events: list[Arrived], folder: Path, *, cuts: list[int], until: int, rated: Arrived
) -> list[list[Arrived]]:
    """Build states incrementally in `folder/features` and by a full rebuild in `folder/anew`.

    The incremental build runs featurize at each cut and at `until`, with the events ingested by
    then.

    Args:
        cuts: days after START.
        rated: an event that is always in the lake, since a lake without target events is refused.

    Returns:
        The events by batch, as the incremental build adds them.
    """
    files, batches, start = [write([rated], folder / "rated.parquet")], [], 0
    for edge in [*(START + cut * DAY + 6 * HOUR for cut in sorted(cuts)), until]:
        batches.append([e for e in events if start <= e.ingested < edge])
        if batches[-1]:
            files.append(write(batches[-1], folder / f"batch{len(batches)}.parquet"))
        start = edge
        build(files, folder / "features", until=edge)
    build(files, folder / "anew", until=until, anew=True)
    return batches


def asof(features: Path, view: str, key: str, moments: list[tuple[str, int]]) -> list[dict]:
    """Return the state of each (key, moment), by the offline store's point-in-time join."""
    source = f"'{features / view}/*.parquet'"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register(
            "given",
            pa.table(
                {
                    "place": range(len(moments)),
                    key: [name for name, _ in moments],
                    "event_timestamp": pa.array([at for _, at in moments]).cast(TIMESTAMP),
                }
            ),
        )
        connection.execute("CREATE TABLE requests AS SELECT * FROM given")
        if view in EVENTS:
            names = {"user_history": USER_HISTORY, "user_refusals": USER_REFUSALS}[view]
            query = lists_at(connection, "requests", source, names)
        else:
            query = (
                f"(SELECT r.*, s.* EXCLUDE ({key}, event_timestamp) FROM requests r ASOF LEFT JOIN"
                f" {source} s ON r.{key} = s.{key} AND r.event_timestamp >= s.event_timestamp)"
            )
        return connection.sql(f"SELECT * FROM {query} ORDER BY place").to_arrow_table().to_pylist()


END = 2**60


def table(events: list[FeatureEvent], *, event_type: str = "rating") -> pa.Table:
    """Return events in the lake's schema; those with type code 0 get `event_type`."""
    n = len(events)
    time = pa.array([event.timestamp for event in events], pa.int64()).cast(TIMESTAMP)
    given_columns = {
        "event_id": [str(i) for i in range(n)],
        "user_id": [event.user_id for event in events],
        "item_id": [event.item_id for event in events],
        "event_type": [
            EVENT_TYPES[event.type_code - 1] if event.type_code else event_type for event in events
        ],
        "event_timestamp": time,
        "event_order": range(n),
        "ingested_at": time,
        "value": [event.value for event in events],
        "surface": ["web"] * n,
        "source": ["test"] * n,
    }
    return pa.table(
        [pa.array(given_columns.get(f.name, [None] * n), f.type) for f in INTERACTIONS],
        schema=INTERACTIONS,
    )


def snapshots(
    events: list[FeatureEvent], folder: Path, *, until: int = END
) -> dict[str, list[dict[str, Any]]]:
    """Build states from `events`; return the rows of each view, with `stamp` in microseconds.

    Histories are those right after each event of a user.
    """
    pq.write_table(table(events), folder / "events.parquet")
    build_states(
        [folder / "events.parquet"],
        USERS.empty_table(),
        folder=folder / "features",
        target_events=TYPES,
        until=until,
    )
    return read_snapshots(folder / "features")


def read_snapshots(features: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for view in VIEWS:
            rows = connection.sql(f"SELECT * FROM '{features / view}/*.parquet'").to_arrow_table()
            if view == "user_history":
                stats = f"'{features}/user_stats/*.parquet'"
                connection.execute(
                    f"CREATE TABLE moments AS SELECT user_id, event_timestamp FROM {stats}"
                )
                query = lists_at(
                    connection, "moments", f"'{features}/user_history/*.parquet'", USER_HISTORY
                )
                rows = connection.sql(f"SELECT * FROM {query}").to_arrow_table()
            stamps = rows.column("event_timestamp").cast(pa.timestamp("us")).cast(pa.int64())
            found[view] = rows.append_column("stamp", stamps).drop(["event_timestamp"]).to_pylist()
    return found
