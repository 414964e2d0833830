"""Removes events from recomputed states that were not yet in the online store at the request.

A posted event affects the next response at once. All other events (impressions, rows of files) have
the refresh's `until` as the time at which they became known. But they reach the online store only
when the refresh ends, some time later.

For each view of a user, the online store has a base row, written by a refresh. The serving log has
the stamp of each base row that was read: the time up to which the row contains all events. The
stamp identifies the refresh whose states the response used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.behaviour.counting import INBOX
from shortlist.contracts import microseconds
from shortlist.feature_store import FeatureReader
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.feature_store.states.target_sql import KNOWN_AT, listed
from shortlist.features.event_groups import GROUP_OF, USER_GROUP_STATE
from shortlist.features.finalize import CONTEXT_STATE, USER_STATE, RequestRows
from shortlist.features.searches import SEARCH
from shortlist.lake.engine import parquet


def without_later_refreshes(
    rows: RequestRows,
    reader: FeatureReader,
    *,
    stamps: Sequence[Mapping[str, int]],
    events: Sequence[Path],
    snapshots: Path,
) -> RequestRows:
    """Remove from the states of B requests the events that were not yet in the online base rows.

    If a view contains such an event, it is replaced by the state as of the base row's stamp,
    updated by the events posted since then. Other views are unchanged.

    Args:
        rows: states recomputed from the lake as of each request.
        reader: reads these states as of any time.
        stamps: for each request, view -> stamp of its base row; views without a stamp are kept.
        events: Parquet files of the events from which the states were built.
        snapshots: folder of the states.
    """
    built = Snapshots.read(snapshots)
    if not events or built is None:
        return rows
    types = {
        "user_stats": built.target_events,
        "user_event_groups": tuple(GROUP_OF),
        "user_searches": (SEARCH,),
    }
    at = rows.at
    for view, of_view in types.items():
        held = np.array(
            [stamp.get(view, now) for stamp, now in zip(stamps, at.tolist(), strict=True)]
        )
        held = np.minimum(held, at)
        later = _events_between(events, rows.user_ids, after=held, until=at, types=of_view)
        early = np.unique([row["place"] for row in later if not row["posted"]]).astype(np.int64)
        if not len(early):
            continue
        some = rows.take(early)
        base = reader.read(some.user_ids, some.context_ids, held[early])
        tails = {str(index): [row for row in later if row["place"] == index] for index in early}
        folded = fold(
            # Each request has a separate tail (events posted after its base row was written), so
            # the request's number is used as user_id.
            replace(base, at=some.at, user_ids=list(tails)),
            dict.fromkeys(USER_VIEWS, held[early]),
            tails={index: [r for r in tail if r["posted"]] for index, tail in tails.items()},
            target_events=frozenset(built.target_events),
            lists=replace(built.lists, like_threshold=None),  # the events already contain the likes
        )
        rows = _placed(rows, early, folded, view)
    return rows


def _events_between(
    events: Sequence[Path],
    user_ids: list[str],
    *,
    after: np.ndarray,
    until: np.ndarray,
    types: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the events of each request's user that have one of `types` and became known in
    (after, until], in the order in which batch states count them.

    Each row also has `place` (number of the request), `known`, and `posted` (bool).
    """
    requests = pa.table(
        {
            "place": np.arange(len(user_ids)),
            c.USER_ID: pa.array(user_ids, pa.string()),
            "after": after,
            "until": until,
        }
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("requests", requests)
        found = connection.sql(
            f"""
            SELECT place, m AS known, starts_with(source, '{INBOX}') AS posted, {c.USER_ID},
                {c.ITEM_ID}, {c.EVENT_TYPE}, {c.EVENT_TIMESTAMP}, {c.VALUE}, {c.QUERY}
            FROM (SELECT *, {KNOWN_AT} AS m FROM {parquet([*events])}) JOIN requests
                USING ({c.USER_ID})
            WHERE m > "after" AND m <= "until" AND {c.EVENT_TYPE} IN ({listed(types)})
            ORDER BY m, {c.EVENT_TIMESTAMP}, {c.EVENT_ORDER}
            """
        ).to_arrow_table()
    times = microseconds(found.column(c.EVENT_TIMESTAMP)).to_pylist()
    rows = found.drop_columns([c.EVENT_TIMESTAMP]).to_pylist()
    return [row | {c.EVENT_TIMESTAMP: time} for row, time in zip(rows, times, strict=True)]


def _placed(rows: RequestRows, places: np.ndarray, some: RequestRows, view: str) -> RequestRows:
    """Replace one view of the requests numbered `places` by the view in `some`.

    Args:
        some: one request per place, in the same order.
    """
    index = np.arange(len(rows))
    index[places] = len(rows) + np.arange(len(places))
    return with_view(rows, _joined(rows, some).take(index), view)


def _joined(rows: RequestRows, more: RequestRows) -> RequestRows:
    """Concatenate two groups of requests."""

    def both(a: Any, b: Any) -> Any:
        if isinstance(a, dict):
            return {name: both(a[name], b[name]) for name in a.keys() & b.keys()}
        return np.concatenate([a, b]) if isinstance(a, np.ndarray) else [*a, *b]

    return RequestRows(
        **{name: both(value, getattr(more, name)) for name, value in vars(rows).items()}
    )


def with_view(rows: RequestRows, other: RequestRows, view: str) -> RequestRows:
    """Replace the states of one view by those of `other`.

    User attributes are never replaced, because the log has no `as_of` for them.
    """
    if view == "context_trend":
        return replace(rows, context=rows.context | {n: other.context[n] for n in CONTEXT_STATE})
    if view == "user_searches":
        return replace(rows, searches=other.searches)
    if view == "user_event_groups":
        return replace(rows, user=rows.user | {name: other.user[name] for name in USER_GROUP_STATE})
    return replace(
        rows,
        user=rows.user | {name: other.user[name] for name in USER_STATE},
        history_items=other.history_items,
        history_times=other.history_times,
        history_values=other.history_values,
        history_types=other.history_types,
    )
