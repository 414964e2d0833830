"""The feature store. Only this package and feature_repo import Feast.

Importing this package doesn't import Feast, which is slow: functions import it when needed.
"""

# First, before any other import can import Feast.
import shortlist.feature_store.fast_import  # noqa: F401
from shortlist.feature_store.home_time import home_clock
from shortlist.feature_store.online.materialize import materialize
from shortlist.feature_store.online.tail import Tail
from shortlist.feature_store.online.user_state import (
    FeatureEvent,
    UserState,
    update_user_state,
)
from shortlist.feature_store.packs import (
    current_pack_id,
    latest_pack,
    publish_pack,
    read_pack,
    read_pack_history,
    served_items,
)
from shortlist.feature_store.readers import FeatureReader, OfflineReader, OnlineReader
from shortlist.feature_store.reopening import ReopeningReader
from shortlist.feature_store.states.build import build_states
from shortlist.feature_store.states.stamps import stamps_around
from shortlist.feature_store.store import (
    FeatureStoreError,
    apply,
    open_store,
    repo_config,
)

__all__ = [
    "FeatureEvent",
    "FeatureReader",
    "FeatureStoreError",
    "OfflineReader",
    "OnlineReader",
    "ReopeningReader",
    "Tail",
    "UserState",
    "apply",
    "build_states",
    "current_pack_id",
    "home_clock",
    "latest_pack",
    "materialize",
    "open_store",
    "publish_pack",
    "read_pack",
    "read_pack_history",
    "repo_config",
    "served_items",
    "stamps_around",
    "update_user_state",
]
