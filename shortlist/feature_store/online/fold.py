"""Folds tail events into base rows, which gives the states that a request reads.

A base row is the state that a refresh has written to the online store. The tail (tail.py) holds the
posted events that base rows don't contain yet. Folding updates a user's base row by these events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shortlist.behaviour.counting import ListRules, with_like
from shortlist.feature_store.online.event_group_state import (
    EventGroupState,
    update_event_group_state,
)
from shortlist.feature_store.online.user_state import FeatureEvent, UserState, count, remember
from shortlist.features.finalize import RequestRows

USER_VIEWS = ("user_stats", "user_history", "user_event_groups", "user_searches", "user_refusals")
"""Feature views whose rows are updated by tail events."""


def fold(
    rows: RequestRows,
    stamps: Mapping[str, np.ndarray],
    *,
    tails: Mapping[str, Sequence[dict[str, Any]]],
    target_events: frozenset[str],
    lists: ListRules = ListRules(),
) -> RequestRows:
    """Return the base rows of B requests, updated by the tail events of their users.

    Args:
        rows: base rows.
        stamps: view -> (B,) int64 microseconds, time up to which each base row contains all events;
            0 without a row. Views are read one after another, so their stamps may differ during a
            materialize.
        tails: user_id -> posted events with `known`, sorted by `known`.
        target_events: event types that count as target events.
        lists: other counting rules with which the base rows were computed.
    """
    user = {name: values.copy() for name, values in rows.user.items()}
    histories = {
        name: list(getattr(rows, name))
        for name in ("history_items", "history_times", "history_values", "history_types")
    }
    searches, refusals = list(rows.searches), list(rows.refusals)
    for i, user_id in enumerate(rows.user_ids):
        counted = history = UserState.of(rows, i)
        groups, searched, refused = EventGroupState.of(rows, i), searches[i], refusals[i]
        for row in in_order(tails.get(user_id, ()), like_threshold=lists.like_threshold):
            known = row["known"]
            if known > rows.at[i]:
                break  # not yet known at the request
            event = FeatureEvent.of(row, target_events=target_events, low_rating=lists.low_rating)
            if event is None:
                continue
            if event.target and known > stamps["user_stats"][i]:
                counted = count(counted, event)
            if event.target and known > stamps["user_history"][i]:
                history = remember(history, event, once=lists.once)
            if event.group is not None and known > stamps["user_event_groups"][i]:
                groups = update_event_group_state(groups, event.group, timestamp=event.timestamp)
            if event.query is not None and known > stamps["user_searches"][i]:
                searched = searched.with_search(event.query, timestamp=event.timestamp)
            if event.refused is not None and known > stamps["user_refusals"][i]:
                refused = refused.with_event(
                    event.item_id, refused=event.refused, timestamp=event.timestamp
                )
        for name, value in (counted.columns() | groups.columns()).items():
            if name in user:
                user[name][i] = value
        histories["history_items"][i] = history.items
        histories["history_times"][i] = np.array(history.times, dtype=np.int64)
        histories["history_values"][i] = np.array(history.values, dtype=np.float64)
        histories["history_types"][i] = np.array(history.types, dtype=np.int64)
        searches[i], refusals[i] = searched, refused
    return replace(rows, user=user, searches=searches, refusals=refusals, **histories)


def in_order(
    tail: Sequence[dict[str, Any]], *, like_threshold: float | None
) -> Iterator[dict[str, Any]]:
    """Yield the tail events and derived likes in the order in which batch states count them.

    They are sorted by `known`, then by time, then by arrival.
    """
    for row in sorted(tail, key=lambda row: (row["known"], row["event_timestamp"])):
        yield from with_like(row, like_threshold)
