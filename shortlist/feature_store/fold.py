"""Folds the tail into base rows: what a request reads is the base plus the events after it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shortlist.feature_store.kind_push import KindState, update_kind_state
from shortlist.feature_store.push import FeatureEvent, UserState, count, remember
from shortlist.features import RequestRows

USER_VIEWS = ("user_stats", "user_history", "user_kinds", "user_searches")
"""Views whose rows have a tail."""


def fold(
    rows: RequestRows,
    stamps: Mapping[str, np.ndarray],
    *,
    tails: Mapping[str, Sequence[dict[str, Any]]],
    target_events: frozenset[str],
) -> RequestRows:
    """Rows of B requests with the events of their users' tails.

    Args:
        rows: base rows.
        stamps: view -> (B,) int64 microseconds, the moment up to which each base row holds all
            events; 0 where there is no row. The views are read one after the other, so during a
            materialize their stamps may differ.
        tails: user_id -> events as posted, each with `known`, in the order of `known`.
        target_events: event types that count as the run's targets.
    """
    user = {name: values.copy() for name, values in rows.user.items()}
    lists = {
        name: list(getattr(rows, name))
        for name in ("history_items", "history_times", "history_values", "history_types")
    }
    searches = list(rows.searches)
    for i, user_id in enumerate(rows.user_ids):
        counted = history = UserState.of(rows, i)
        kinds, asked = KindState.of(rows, i), searches[i]
        for row in tails.get(user_id, ()):
            known = row["known"]
            if known > rows.at[i]:
                break  # not known yet at the request
            event = FeatureEvent.of(row, target_events=target_events)
            if event is None:
                continue
            if event.target and known > stamps["user_stats"][i]:
                counted = count(counted, event)
            if event.target and known > stamps["user_history"][i]:
                history = remember(history, event)
            if event.kind is not None and known > stamps["user_kinds"][i]:
                kinds = update_kind_state(kinds, event.kind, timestamp=event.timestamp)
            if event.query is not None and known > stamps["user_searches"][i]:
                asked = asked.with_search(event.query, timestamp=event.timestamp)
        for name, value in (counted.columns() | kinds.columns()).items():
            if name in user:
                user[name][i] = value
        lists["history_items"][i] = history.items
        lists["history_times"][i] = np.array(history.times, dtype=np.int64)
        lists["history_values"][i] = np.array(history.values, dtype=np.float64)
        lists["history_types"][i] = np.array(history.types, dtype=np.int64)
        searches[i] = asked
    return replace(rows, user=user, searches=searches, **lists)
