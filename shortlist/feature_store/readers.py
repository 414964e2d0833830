"""Feature readers: the states of requests, from Feast's online store or by a point-in-time join."""

import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shortlist.config import Settings
from shortlist.feature_store.store import FeatureStoreError, open_store
from shortlist.features import (
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    REQUEST_SERVICE,
    USER_STATE,
    RequestRows,
)

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

NO_TIMES = np.zeros(0, dtype=np.int64)
NO_VALUES = np.zeros(0, dtype=np.float64)


class FeatureReader(Protocol):
    """Reads the states of requests: online or by a point-in-time join, the same rows either way."""

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        """States of B users and contexts at `at` (B,) int64 microseconds."""
        ...


def feature_service(store: "FeatureStore", name: str) -> "FeatureService":
    """Raises FeatureStoreError if the registry does not have it."""
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        raise FeatureStoreError(
            f"feature service {name} is not in the registry; run `shortlist featurize`"
        ) from None


class OnlineReader:
    """Reads the newest states; histories are cut strictly before each request."""

    def __init__(self, settings: Settings):
        """Raises FeatureStoreError if nothing was featurized yet."""
        self.store = open_store(settings)
        self.service = feature_service(self.store, REQUEST_SERVICE)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        if not user_ids:
            return _request_rows([], [], at, {})
        response = self.store.get_online_features(
            self.service,
            {"user_id": user_ids, "context_id": context_ids, "request_at": at.tolist()},
        )
        return _request_rows(user_ids, context_ids, at, response.to_dict())


class OfflineReader:
    """Reads the states as they were at each request, through Feast's point-in-time join."""

    def __init__(self, settings: Settings):
        """Raises FeatureStoreError if nothing was featurized yet."""
        self.store = open_store(settings)
        snapshot = settings.features / "user_stats.parquet"
        if not snapshot.is_file():
            raise FeatureStoreError(f"{snapshot}: no user states; run `shortlist featurize`")
        self.service = feature_service(self.store, REQUEST_SERVICE)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        import pandas as pd

        if not user_ids:
            return _request_rows([], [], at, {})
        requests = pd.DataFrame(
            {
                "row": np.arange(len(user_ids)),
                "user_id": user_ids,
                "context_id": context_ids,
                "event_timestamp": pd.Series(at.astype("datetime64[us]")).dt.tz_localize("UTC"),
                "request_at": at,
            }
        )
        table = self.store.get_historical_features(requests, self.service).to_arrow()
        table = table.sort_by("row")
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        return _request_rows(user_ids, context_ids, at, columns)


def _request_rows(
    user_ids: list[str], context_ids: list[str], at: np.ndarray, columns: dict[str, list[Any]]
) -> RequestRows:
    """Columns of the feature service, None where nothing is known, as RequestRows."""
    items, times, values = _cut_histories(columns, at)
    return RequestRows(
        user_ids=list(user_ids),
        context_ids=list(context_ids),
        at=at,
        user={name: _numbers(name, columns) for name in USER_STATE},
        history_items=items,
        history_times=times,
        history_values=values,
        attributes=[
            json.loads(text) if text else {} for text in columns.get("attributes_json", [])
        ],
        context={name: _numbers(name, columns) for name in (*CONTEXT_STATE, *CONTEXT_ON_DEMAND)},
    )


def _numbers(name: str, columns: dict[str, list[Any]]) -> np.ndarray:
    dtype = np.int64 if name.endswith("_time") else np.float64
    return np.array([value or 0 for value in columns.get(name, [])], dtype=dtype)


def _cut_histories(
    columns: dict[str, list[Any]], at: np.ndarray
) -> tuple[list[list[str]], list[np.ndarray], list[np.ndarray]]:
    """Entries at or after the request leave: online states may be newer than it."""
    all_items, all_times, all_values = [], [], []
    for items, times, values, now in zip(
        columns.get("history_items", []),
        columns.get("history_times", []),
        columns.get("history_values", []),
        at,
        strict=True,
    ):
        if not items:
            all_items.append([])
            all_times.append(NO_TIMES)
            all_values.append(NO_VALUES)
            continue
        time = np.array(times, dtype=np.int64)
        before = int(np.searchsorted(time, now))
        all_items.append(list(items[:before]))
        all_times.append(time[:before])
        all_values.append(np.array(values[:before], dtype=np.float64))
    return all_items, all_times, all_values
