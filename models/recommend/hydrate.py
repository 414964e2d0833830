"""Reads the states of a request's user and builds the query."""

import logging
from collections.abc import Callable

import numpy as np

from models.queries import Queries
from models.recommend.stages import Stages
from shortlist.behaviour.refusals import NO_REFUSALS
from shortlist.feature_store import FeatureReader, FeatureStoreError
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    USER_STATE,
    RequestRows,
    context_id,
    time_features,
)
from shortlist.features.searches import NO_SEARCHES
from shortlist.http.api import Context

log = logging.getLogger("shortlist.recommend")


def hydrate(
    run: Stages,
    reader: FeatureReader,
    user_id: str,
    context: str,
    at: int,
    queries_of: Callable[[RequestRows], Queries],
) -> tuple[RequestRows, Queries]:
    """Read the user's states as of `at` and build the query.

    If reading fails, the states are empty.
    """
    now = np.array([at], dtype=np.int64)

    def read() -> tuple[RequestRows, Queries] | None:
        try:
            rows = reader.read([user_id], [context], now)
        except FeatureStoreError as error:  # no store yet: the stage is skipped, not failed
            log.debug("feature store: %s", error)
            run.skip("features")
            return None
        return rows, queries_of(rows)

    hydrated = run("features", read, None)
    if hydrated is None:
        rows = empty_rows([user_id], [context], now)
        hydrated = rows, queries_of(rows)
    return hydrated


def context_of(context: Context, *, at: int) -> str:
    """Return the id of a request's context: surface, device and time of day."""
    return context_id(surface=context.surface, device=context.device, at=at)


def empty_rows(user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
    """Return feature rows of B requests in which all states are empty, as for unknown users."""
    zero = np.zeros(len(user_ids))
    return RequestRows(
        user_ids=user_ids,
        context_ids=context_ids,
        at=at,
        user=dict.fromkeys(USER_STATE, zero) | empty_group_state("user", len(user_ids)),
        history_items=[[] for _ in user_ids],
        history_times=[np.empty(0, dtype=np.int64) for _ in user_ids],
        history_values=[np.empty(0) for _ in user_ids],
        history_types=[np.empty(0, dtype=np.int64) for _ in user_ids],
        attributes=[{} for _ in user_ids],
        context=dict.fromkeys(CONTEXT_STATE, zero)
        | {name: time_features(at)[name] for name in CONTEXT_ON_DEMAND},
        searches=[NO_SEARCHES for _ in user_ids],
        refusals=[NO_REFUSALS for _ in user_ids],
    )
