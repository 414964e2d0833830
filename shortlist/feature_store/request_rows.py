"""Converts columns of the request's feature service (online or offline) to RequestRows.

RequestRows holds the states of the users and contexts of a batch of requests.
"""

import json
from typing import Any

import numpy as np

from shortlist.behaviour.refusals import NO_REFUSALS, USER_REFUSALS, Refusals
from shortlist.features.event_groups import USER_GROUP_STATE, empty_group_state
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    USER_FEATURES,
    USER_HISTORY,
    USER_STATE,
    RequestRows,
    finalize_context,
    finalize_user,
    time_features,
)
from shortlist.features.searches import NO_SEARCHES, USER_SEARCHES, Searches

NO_TIMES = np.zeros(0, dtype=np.int64)
NO_VALUES = np.zeros(0, dtype=np.float64)
NO_TYPES = np.zeros(0, dtype=np.int64)


def request_rows(
    user_ids: list[str], context_ids: list[str], at: np.ndarray, columns: dict[str, list[Any]]
) -> RequestRows:
    """Convert the columns of the feature service to RequestRows.

    A user or context without a row has None in the columns. It gets the state without events.
    """
    items, times, values, types = cut_histories(columns, at)
    return RequestRows(
        user_ids=list(user_ids),
        context_ids=list(context_ids),
        at=at,
        user={name: numbers(name, columns) for name in USER_STATE}
        | event_group_states(columns, count=len(user_ids)),
        history_items=items,
        history_times=times,
        history_values=values,
        history_types=types,
        attributes=[
            json.loads(text) if text else {} for text in columns.get("attributes_json", [])
        ],
        context={name: numbers(name, columns) for name in (*CONTEXT_STATE, *CONTEXT_ON_DEMAND)},
        searches=searches(columns, at),
        refusals=refusals(columns, at),
    )


def request_features(columns: dict[str, list[Any]]) -> dict[str, list[float]]:
    """Return the finished features of B requests by name: USER_FEATURES and CONTEXT_FEATURES.

    The on-demand view `request_features` calls it with the columns of its views.

    Args:
        columns: the states of user and context, and `request_at` in microseconds; B values each.
    """
    at = np.array(columns["request_at"], dtype=np.int64)
    nobody = [""] * len(at)
    on_demand = {name: values.tolist() for name, values in time_features(at).items()}
    unused = {name: [None] * len(at) for name in USER_REFUSALS}
    rows = request_rows(nobody, nobody, at, unused | columns | on_demand)
    of_user, of_context = finalize_user(rows), finalize_context(rows)
    return {
        name: values[:, column].tolist()
        for names, values in ((USER_FEATURES, of_user), (CONTEXT_FEATURES, of_context))
        for column, name in enumerate(names)
    }


def numbers(name: str, columns: dict[str, list[Any]]) -> np.ndarray:
    """Return the values of a numeric column, None as 0; int64 for times, float64 otherwise."""
    dtype = np.int64 if name.endswith("_time") else np.float64
    return np.array([value or 0 for value in columns.get(name, [])], dtype=dtype)


def event_group_states(columns: dict[str, list[Any]], *, count: int) -> dict[str, np.ndarray]:
    """Return USER_GROUP_STATE of `count` users, zero for users without a row."""
    state = empty_group_state("user", count)
    for name in USER_GROUP_STATE:
        for row, value in enumerate(columns.get(name, [])):
            if value is not None:
                state[name][row] = value
    return state


def searches(columns: dict[str, list[Any]], at: np.ndarray) -> list[Searches]:
    """Return the searches strictly before each request.

    Later searches are removed, because an online state may be newer than the request.
    """
    rows = zip(*(columns.get(name, []) for name in USER_SEARCHES), at.tolist(), strict=True)
    return [
        Searches(tuple(queries), tuple(int(t) for t in times), int(count)).before(now)
        if queries
        else NO_SEARCHES
        for queries, times, count, now in rows
    ]


def refusals(columns: dict[str, list[Any]], at: np.ndarray) -> list[Refusals]:
    """Return the refusals strictly before each request.

    Later refusals are removed, because an online state may be newer than the request.
    """
    rows = zip(*(columns.get(name, []) for name in USER_REFUSALS), at.tolist(), strict=True)
    return [
        Refusals(tuple(items), tuple(int(t) for t in times)).before(now)
        if items is not None and len(items)
        else NO_REFUSALS
        for items, times, now in rows
    ]


def cut_histories(
    columns: dict[str, list[Any]], at: np.ndarray
) -> tuple[list[list[str]], list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return the histories strictly before each request.

    Later events are removed, because an online state may be newer than the request.

    Returns:
        Items, times, values and types: one list or array per request.
    """
    all_items, all_times, all_values, all_types = [], [], [], []
    for items, times, values, types, now in zip(
        *(columns.get(name, []) for name in USER_HISTORY), at, strict=True
    ):
        if not items:
            all_items.append([])
            all_times.append(NO_TIMES)
            all_values.append(NO_VALUES)
            all_types.append(NO_TYPES)
            continue
        time = np.array(times, dtype=np.int64)
        before = int(np.searchsorted(time, now))
        all_items.append(list(items[:before]))
        all_times.append(time[:before])
        all_values.append(np.array(values[:before], dtype=np.float64))
        all_types.append(np.array(types[:before], dtype=np.int64))
    return all_items, all_times, all_values, all_types
