"""Reads the states of requests directly from the rows of the SQLite online store."""

import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shortlist.feature_store.online.keys import entity_keys
from shortlist.feature_store.online.tables import connect, oldest_stamp, read_rows
from shortlist.feature_store.request_rows import request_rows
from shortlist.features.finalize import (
    CONTEXT_STATE,
    USER_GROUP_STATE,
    USER_HISTORY,
    USER_PROFILE,
    USER_REFUSALS,
    USER_SEARCHES,
    USER_STATE,
    RequestRows,
    time_features,
)

VIEWS = (  # feature view, join key, fields
    ("user_stats", "user_id", USER_STATE),
    ("user_history", "user_id", USER_HISTORY),
    ("user_profile", "user_id", USER_PROFILE),
    ("user_event_groups", "user_id", USER_GROUP_STATE),
    ("user_searches", "user_id", USER_SEARCHES),
    ("user_refusals", "user_id", USER_REFUSALS),
    ("context_trend", "context_id", CONTEXT_STATE),
)

TEXTS = ("history_items", "search_queries", "refused_items")
ARRAYS = (
    ("history_times", "<i8"),
    ("history_values", "<f8"),
    ("history_types", "<i8"),
    ("user_group_counts", "<f8"),
    ("user_group_decayed", "<f8"),
    ("search_times", "<i8"),
    ("refused_times", "<i8"),
)


class DirectReader:
    """Reads the views of the request's feature service with one indexed query per view.

    It has one connection per thread and doesn't import Feast.
    """

    def __init__(self, path: Path, *, project: str, ttl: Mapping[str, int], clock: str):
        """
        Args:
            path: file of the online store.
            project: Feast's project name, the prefix of the table names.
            ttl: view -> maximum age of its rows in microseconds, 0 for no limit.
            clock: "wall" or "replay"; see `oldest_stamp`.
        """
        self._path, self._clock = path, clock
        self._local = threading.local()
        self._views = [
            (name, f"{project}_{name}", ttl[name], key, names) for name, key, names in VIEWS
        ]

    def read(
        self, user_ids: list[str], context_ids: list[str], at: np.ndarray
    ) -> tuple[RequestRows, dict[str, np.ndarray]]:
        """Read the stored states (base rows) of B requests, without events of the tail.

        Returns:
            The states; and view -> (B,) int64 microseconds, the stamps of the rows: the time up to
            which each row contains all events, 0 if there is no row.
        """
        keys = {
            "user_id": entity_keys("user_id", user_ids),
            "context_id": entity_keys("context_id", context_ids),
        }
        columns: dict[str, list] = {}
        stamps: dict[str, np.ndarray] = {}
        connection = self._connection()
        for view, table, ttl, key, names in self._views:
            since = oldest_stamp(connection, view, ttl=ttl, clock=self._clock)
            rows = read_rows(connection, table, keys[key], names, since=since)
            stamps[view] = np.array([row[0] if row else 0 for row in rows], dtype=np.int64)
            for number, name in enumerate(names, start=1):
                columns[name] = [None if row is None else row[number] for row in rows]
        for name in TEXTS:
            columns[name] = [text and json.loads(text) for text in columns[name]]
        for name, dtype in ARRAYS:
            columns[name] = [None if v is None else np.frombuffer(v, dtype) for v in columns[name]]
        on_demand = {name: values.tolist() for name, values in time_features(at).items()}
        return request_rows(user_ids, context_ids, at, columns | on_demand), stamps

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path)
        return connection
