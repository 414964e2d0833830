"""Builds the input batch of the models, `Queries`, from the feature rows of requests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.queries import Queries
from models.recommend.rules import seen_items
from shortlist.features.finalize import RequestRows, finalize_context, finalize_user
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue


def build_queries(
    rows: RequestRows,
    *,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
    recent_items: Sequence[Sequence[str]] | None = None,
    exclude: np.ndarray | None = None,
    repeat_after: int | None = None,
) -> Queries:
    """Convert feature rows of B requests into Queries.

    Histories are as long as in the stored user state (up to MAX_HISTORY). A model that was trained
    on shorter histories cuts them itself.

    Args:
        rows: states as of each request.
        recent_items: B lists of item ids, oldest first, appended to the known history (e.g. of a
            visitor without an account). Their event type is unknown. Items outside the catalogue
            are ignored.
        exclude: (N + 1,) bool, items that must not be shown for any query (filters, rules). Each
            query also excludes the items that its user consumed or refused.
        repeat_after: microseconds after which a consumed item may be shown again; None: never.
    """
    seen, columns = [], []
    for row in range(len(rows)):
        items = catalogue.vocab.encode(rows.history_items[row])
        times, values = rows.history_times[row], rows.history_values[row]
        types = rows.history_types[row]
        if recent_items is not None and recent_items[row]:
            extra = catalogue.vocab.encode(recent_items[row])
            items = np.concatenate([items, extra])
            times = np.concatenate([times, np.full(len(extra), rows.at[row] - 1)])
            values = np.concatenate([values, np.full(len(extra), np.nan)])
            types = np.concatenate([types, np.zeros(len(extra), dtype=np.int64)])
        kept = np.flatnonzero(items > 0)
        refused = catalogue.vocab.encode(rows.refusals[row].items)
        at = int(rows.at[row])
        seen.append(seen_items(items[kept], times[kept], refused, at=at, repeat_after=repeat_after))
        columns.append((items[kept], times[kept], values[kept], types[kept]))
    items, times, values, types = zip(*columns, strict=True) if columns else ((),) * 4
    return Queries(
        user_ids=rows.user_ids,
        at=rows.at,
        history=_padded(items, np.int64),
        history_time=_padded(times, np.int64),
        history_value=_padded(values, np.float32, padding=np.nan),
        history_type=_padded(types, np.int64),
        seen=seen,
        user=finalize_user(rows),
        context=finalize_context(rows),
        profile=profiles.encode(rows.attributes),
        searches=rows.searches,
        places=profiles.encode_places(rows.context_ids),
        blocked=exclude,
    )


def _padded(rows: Sequence[np.ndarray], dtype: Any, *, padding: float = 0) -> np.ndarray:
    """Stack B arrays of any length: (B, L), padded on the right; L is at least 1."""
    length = max((len(row) for row in rows), default=0)
    out = np.full((len(rows), max(length, 1)), padding, dtype=dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
