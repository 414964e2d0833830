"""Reads the states of requests: newest from the online store, past by a point-in-time join."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shortlist.config import Settings
from shortlist.feature_store.online.direct import VIEWS, DirectReader
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.feature_store.online.materialize import counted_events
from shortlist.feature_store.online.tail import Posted, Tail
from shortlist.feature_store.registry_summary import RegistrySummary
from shortlist.feature_store.request_rows import request_rows
from shortlist.feature_store.store import (
    ONLINE_STORE,
    REGISTRY,
    FeatureStoreError,
    check_files,
    open_store,
    project_of,
)
from shortlist.features.finalize import REQUEST_SERVICE, RequestRows
from shortlist.forgetting.register import Register

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore


NOBODY = "\x00"
"""A user id that no user can have."""


class FeatureReader(Protocol):
    """Interface of the readers. Online and offline readers return equal rows for equal events."""

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        """Return the states of B users and contexts at `at` (B,) int64 microseconds."""
        ...


def feature_service(store: "FeatureStore", name: str) -> "FeatureService":
    """Return the feature service of this name. Raises FeatureStoreError if it is not in the
    registry.
    """
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        raise FeatureStoreError(
            f"feature service {name} is not in the registry; run `shortlist refresh`"
        ) from None


def check_definitions(defined: RegistrySummary) -> None:
    """Raise FeatureStoreError if the registry lacks the feature service or a field of this code.

    This happens if another version of the code wrote the registry.
    """
    if REQUEST_SERVICE not in defined.services:
        raise FeatureStoreError(
            f"feature service {REQUEST_SERVICE} is not in the registry; run `shortlist refresh`"
        )
    for name, _, wanted in VIEWS:
        missing = [field for field in wanted if field not in defined.fields.get(name, ())]
        if missing:
            raise FeatureStoreError(
                f"view {name} in the registry lacks {', '.join(missing)}: it was applied by another"
                " release; run `shortlist refresh`"
            )


class OnlineReader:
    """Reads the newest states: rows of the online store, updated by newer posted events (fold.py).

    Histories contain only events strictly before the request. Rows of the SQLite store are read
    directly: Feast's protobuf response takes 0.5 ms per request, the stored rows a tenth of that,
    and a process that only reads them doesn't import Feast. A test checks that both give equal
    results.
    """

    def __init__(self, settings: Settings):
        """Open the store. Raises FeatureStoreError if there are no states yet."""
        check_files(settings)
        defined = RegistrySummary.read(settings.feast / REGISTRY)
        if defined is None:
            defined = RegistrySummary.of(open_store(settings))
        check_definitions(defined)
        self.settings = settings
        self.tail = Tail.of(settings)
        self.register = Register(settings.forgotten)
        self.direct: DirectReader | None = None
        if settings.online_store == "sqlite":
            self.direct = DirectReader(
                settings.feast.absolute() / ONLINE_STORE,
                project=project_of(settings),
                ttl=defined.ttl,
                clock=settings.clock or "wall",
            )

    @cached_property
    def store(self) -> "FeatureStore":
        """Feast's store, through which rows are read from Redis."""
        return open_store(self.settings)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        if not user_ids:
            return request_rows([], [], at, {})
        forgotten = self.register.among(user_ids)
        tails = self.tail.read(user_ids)  # must be read before the base rows, see Tail.read
        rows, stamps = self._base_rows(user_ids, context_ids, at)
        if forgotten:
            tails = _later_events(tails, forgotten)
            if outdated := _outdated(user_ids, stamps, forgotten):
                asked = [NOBODY if user_id in outdated else user_id for user_id in user_ids]
                rows, stamps = self._base_rows(asked, context_ids, at)
                rows = replace(rows, user_ids=user_ids)
        rows = replace(rows, stamps=stamps)
        if not tails:
            return rows
        target_events, lists = counted_events(self.settings)
        return fold(rows, stamps, tails=tails, target_events=target_events, lists=lists)

    def _base_rows(
        self, user_ids: list[str], context_ids: list[str], at: np.ndarray
    ) -> tuple[RequestRows, dict[str, np.ndarray]]:
        if self.direct is not None:
            return self.direct.read(user_ids, context_ids, at)
        return self._through_feast(user_ids, context_ids, at)

    def _through_feast(
        self, user_ids: list[str], context_ids: list[str], at: np.ndarray
    ) -> tuple[RequestRows, dict[str, np.ndarray]]:
        response = self.store.get_online_features(
            feature_service(self.store, REQUEST_SERVICE),
            {"user_id": user_ids, "context_id": context_ids, "request_at": at.tolist()},
        )
        rows = request_rows(user_ids, context_ids, at, response.to_dict())
        places = list(response.proto.metadata.feature_names.val)
        first_feature = {name: names[0] for name, _, names in VIEWS}
        stamps = {}
        for view in USER_VIEWS:
            found = response.proto.results[places.index(first_feature[view])].event_timestamps
            stamps[view] = np.array([stamp.ToMicroseconds() for stamp in found], dtype=np.int64)
        return rows, stamps


def _later_events(
    tails: dict[str, list[Posted]], forgotten: dict[str, int]
) -> dict[str, list[Posted]]:
    """Leave out the events that forgotten users posted before their request.

    Args:
        forgotten: {user id: time of the request in microseconds}.
    """
    left = {
        user_id: [row for row in tail if row["known"] > forgotten.get(user_id, -1)]
        for user_id, tail in tails.items()
    }
    return {user_id: tail for user_id, tail in left.items() if tail}


def _outdated(
    user_ids: list[str], stamps: dict[str, np.ndarray], forgotten: dict[str, int]
) -> set[str]:
    """Return the forgotten users with a base row that is older than their request."""
    return {
        user_id
        for row, user_id in enumerate(user_ids)
        if user_id in forgotten
        and any(
            0 < times[row] <= forgotten[user_id] for view, times in stamps.items() if "user" in view
        )
    }


class OfflineReader:
    """Reads the states as of each request by Feast's point-in-time join."""

    def __init__(self, settings: Settings):
        """Open the store. Raises FeatureStoreError if there are no states yet."""
        self.store = open_store(settings)
        snapshots = settings.features / "user_stats"
        if not snapshots.is_dir():
            raise FeatureStoreError(f"{snapshots}: no user states; run `shortlist refresh`")
        self.service = feature_service(self.store, REQUEST_SERVICE)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        import pandas as pd

        if not user_ids:
            return request_rows([], [], at, {})
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
        return request_rows(user_ids, context_ids, at, columns)
