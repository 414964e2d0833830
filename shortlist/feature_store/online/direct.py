"""Reads the states of requests directly from the rows of the SQLite online store."""

import json
from typing import TYPE_CHECKING

import numpy as np

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

if TYPE_CHECKING:
    from feast import FeatureStore

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


def embedded(store: "FeatureStore") -> bool:
    """Return whether the online store is this package's SQLite store."""
    from shortlist.feature_store.online.store import WideSqliteOnlineStoreConfig

    return isinstance(store.config.online_store, WideSqliteOnlineStoreConfig)


class DirectReader:
    """Reads the views of the request's feature service with one indexed query per view."""

    def __init__(self, store: "FeatureStore"):
        from shortlist.feature_store.online.columns import entity_keys
        from shortlist.feature_store.online.store import WideSqliteOnlineStore

        self._config = store.config
        self._online = WideSqliteOnlineStore()
        self._keys = entity_keys
        self._views = [(store.get_feature_view(name), key, names) for name, key, names in VIEWS]

    def read(
        self, user_ids: list[str], context_ids: list[str], at: np.ndarray
    ) -> tuple[RequestRows, dict[str, np.ndarray]]:
        """Read the stored states (base rows) of B requests, without events of the tail.

        Returns:
            The states; and view -> (B,) int64 microseconds, the stamps of the rows: the time up to
            which each row contains all events, 0 if there is no row.
        """
        keys = {
            "user_id": self._keys("user_id", user_ids),
            "context_id": self._keys("context_id", context_ids),
        }
        columns: dict[str, list] = {}
        stamps: dict[str, np.ndarray] = {}
        for view, key, names in self._views:
            rows = self._online.read_raw(self._config, view, keys[key], names)
            stamps[view.name] = np.array([row[0] if row else 0 for row in rows], dtype=np.int64)
            for place, name in enumerate(names, start=1):
                columns[name] = [None if row is None else row[place] for row in rows]
        for name in TEXTS:
            columns[name] = [text and json.loads(text) for text in columns[name]]
        for name, dtype in ARRAYS:
            columns[name] = [None if v is None else np.frombuffer(v, dtype) for v in columns[name]]
        on_demand = {name: values.tolist() for name, values in time_features(at).items()}
        return request_rows(user_ids, context_ids, at, columns | on_demand), stamps
