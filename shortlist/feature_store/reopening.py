"""Reading online states while the store may be missing: a service starts, answers without features,
and picks the store up when `shortlist refresh` has made it.
"""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from shortlist.config import Settings
from shortlist.feature_store.readers import OnlineReader
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features.finalize import RequestRows

log = logging.getLogger("bentoml.shortlist")

T = TypeVar("T")

RETRY_SECONDS = 5.0
"""How often a missing store is looked for: each look is a few file checks."""


class _Reopening(Generic[T]):
    """Something that needs the store, made when the store is there."""

    def __init__(self, settings: Settings, make: Callable[[Settings], T]):
        self._settings, self._make = settings, make
        self._made: T | None = None
        self._missing = ""
        self._next_look = 0.0
        self._lock = Lock()

    def get(self) -> T:
        """Raises FeatureStoreError while there is no store."""
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


class ReopeningReader:
    """An OnlineReader that need not be there yet; `read` raises FeatureStoreError until it is."""

    def __init__(self, settings: Settings):
        self._reader = _Reopening(settings, OnlineReader)

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        return self._reader.get().read(user_ids, context_ids, at)
