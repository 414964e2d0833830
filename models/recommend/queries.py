"""From feature rows to the batch that models read."""

from collections.abc import Sequence

import numpy as np

from models.queries import Queries, nothing
from shortlist.catalogue import Catalogue
from shortlist.features import RequestRows, finalize_context, finalize_user
from shortlist.profiles import ProfileEncoder

MAX_MODEL_HISTORY = 50
"""Newest history positions that models read; everything older still counts as seen."""


def build_queries(
    rows: RequestRows,
    *,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
    recent_items: Sequence[Sequence[str]] | None = None,
    exclude: np.ndarray | None = None,
) -> Queries:
    """Feature rows of B requests -> Queries.

    Args:
        rows: states as of each request.
        recent_items: B lists of item ids, oldest first, added after the known history (a visitor
            without an account), their event types unknown. Items that the catalogue does not know
            are left out.
        exclude: (N + 1,) bool, items that no query may be shown (filters, rules), on top of seen.
    """
    n, length = len(rows), MAX_MODEL_HISTORY
    history = np.zeros((n, length), dtype=np.int64)
    history_time = np.zeros((n, length), dtype=np.int64)
    history_value = np.full((n, length), np.nan, dtype=np.float32)
    history_type = np.zeros((n, length), dtype=np.int64)
    seen: list[np.ndarray] = []
    for row in range(n):
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
        seen.append(items[kept])
        newest = kept[-length:]
        history[row, : len(newest)] = items[newest]
        history_time[row, : len(newest)] = times[newest]
        history_value[row, : len(newest)] = values[newest]
        history_type[row, : len(newest)] = types[newest]
    return Queries(
        user_ids=rows.user_ids,
        at=rows.at,
        history=history,
        history_time=history_time,
        history_value=history_value,
        history_type=history_type,
        seen=seen,
        user=finalize_user(rows),
        context=finalize_context(rows),
        profile=profiles.encode(rows.attributes),
        searches=rows.searches,
        places=profiles.encode_places(rows.context_ids),
        blocked=nothing() if exclude is None else np.flatnonzero(exclude),
    )
