"""Reads the serving log as two flat tables, without feature vectors: requests and shown items."""

from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from shortlist import columns as c
from shortlist.datasets.service.service_log import read_lines

REQUESTS = pa.schema(
    [
        (c.REQUEST_ID, pa.string()),
        (c.USER_ID, pa.string()),
        ("at", pa.int64()),
        ("release_id", pa.string()),
        ("arm", pa.string()),
        ("forced", pa.bool_()),
        (c.SURFACE, pa.string()),
        (c.DEVICE, pa.string()),
        ("known", pa.bool_()),
        ("user_as_of", pa.int64()),
        ("skipped", pa.int32()),
        ("milliseconds", pa.float64()),
        ("items", pa.int32()),
        ("first_position", pa.int32()),
        ("explored", pa.bool_()),
    ]
)
"""One row per response. `at` and `user_as_of` are microseconds, `items` is the number of shown
items, `skipped` that of skipped stages, `forced` whether the request named its arm, `explored`
whether exploration drew the list."""
SHOWN = pa.schema(
    [
        ("request", pa.int64()),
        (c.ITEM_ID, pa.string()),
        (c.POSITION, pa.int32()),
        (c.SOURCE, pa.string()),
        (c.SCORE, pa.float64()),
        ("propensity", pa.float64()),
    ]
)
"""One row per shown item; `request` is the row number in REQUESTS."""


def load_traffic_log(folder: Path, *, since: int | None = None) -> tuple[pa.Table, pa.Table]:
    """Read the responses of a serving log; return tables with the schemas REQUESTS and SHOWN.

    If a (user, time) pair was answered several times, as in a repeated replay, the last response
    is kept.

    Args:
        since: microseconds; earlier responses are left out. None: all.

    Raises:
        DatasetError: a line isn't a JSON object.
        KeyError: a line lacks a key of the contract SERVING_LOG.
    """
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for _, _, entry in read_lines(folder):
        at = entry[c.EVENT_TIMESTAMP]
        if since is None or at >= since:
            kept[entry[c.USER_ID], at] = _without_features(entry)
    requests: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for entry in sorted(kept.values(), key=itemgetter("at")):
        items = entry.pop("shown")
        shown += [item | {"request": len(requests)} for item in items]
        requests.append(entry)
    return (
        pa.Table.from_pylist(requests, schema=REQUESTS),
        pa.Table.from_pylist(shown, schema=SHOWN),
    )


def _without_features(entry: dict[str, Any]) -> dict[str, Any]:
    surface, _, rest = entry[c.CONTEXT_ID].partition("|")
    items = [{name: item[name] for name in SHOWN.names[1:]} for item in entry["items"]]
    return {
        c.REQUEST_ID: entry[c.REQUEST_ID],
        c.USER_ID: entry[c.USER_ID],
        "at": entry[c.EVENT_TIMESTAMP],
        "release_id": entry["release_id"],
        "arm": entry["arm"],
        "forced": bool(entry.get("forced", False)),
        c.SURFACE: surface,
        c.DEVICE: rest.partition("|")[0] or "unknown",
        "known": entry["user_as_of"] is not None,
        "user_as_of": entry["user_as_of"],
        "skipped": len(entry["skipped_stages"]),
        "milliseconds": entry.get("milliseconds"),
        "items": len(items),
        "first_position": items[0][c.POSITION] if items else 1,
        "explored": entry.get("seed") is not None,
        "shown": items,
    }
