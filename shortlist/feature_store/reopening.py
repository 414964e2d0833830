"""Reader of online states for a service that may start before the feature store exists.

Until `shortlist refresh` has created the store, the service answers without features.
"""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from shortlist.config import Settings
from shortlist.feature_store.readers import OnlineReader
from shortlist.feature_store.store import FeatureStoreError, never_retry, with_deadline
from shortlist.features.finalize import RequestRows

log = logging.getLogger("bentoml.shortlist")

T = TypeVar("T")

RETRY_SECONDS = 5.0
"""Seconds between two attempts to open a missing store. An attempt costs a few file checks."""


class _Reopening(Generic[T]):
    """An object that needs the store; it is created as soon as the store exists."""

    def __init__(self, settings: Settings, make: Callable[[Settings], T]):
        self._settings, self._make = settings, make
        self._made: T | None = None
        self._missing = ""
        self._next_look = 0.0
        self._lock = Lock()

    def get(self) -> T:
        """Return the object, created if necessary.

        Raises:
            FeatureStoreError: the store doesn't exist yet.
        """
        if self._made is not None:
            return self._made
        with self._lock:
            if self._made is None and time.monotonic() >= self._next_look:
                try:
                    self._made = self._make(self._settings)
                except FeatureStoreError as error:
                    if not self._missing:
                        log.error("%s; until then answers are made without features", error)
                    self._missing = str(error)
                    self._next_look = time.monotonic() + RETRY_SECONDS
            if self._made is None:
                raise FeatureStoreError(self._missing)
            return self._made


def _open_without_retries(settings: Settings) -> OnlineReader:
    """Open an OnlineReader that doesn't retry a read from Redis."""
    reader = OnlineReader(settings)
    if reader.direct is None:
        never_retry(reader.store)
    return reader


class ReopeningReader:
    """An OnlineReader for a store that may not exist yet.

    `read` raises FeatureStoreError until the store exists.
    """

    def __init__(self, settings: Settings):
        self._reader = _Reopening(with_deadline(settings), _open_without_retries)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        return self._reader.get().read(user_ids, context_ids, at)
