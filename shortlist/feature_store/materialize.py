"""Bring the online store to the snapshots, writing only what changed."""

import contextlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.config import Settings
from shortlist.feature_store.snapshots import Snapshots, known_keys
from shortlist.feature_store.store import ONLINE_VIEWS, PUSHED_VIEWS, open_store
from shortlist.plain_json import write_json

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

    from shortlist.feature_store.online import WideSqliteOnlineStore

EPOCH = datetime.fromtimestamp(0, UTC)
MARK = "materialized.json"


def materialize(settings: Settings, *, until: int) -> dict[str, Any]:
    """Bring the online store to the snapshots' newest states stamped at or before `until`.

    If the store was last brought to the same snapshots, only rows stamped since then are written;
    their stamps are later than all before. In SQLite rows that were only pushed are brought back to
    what the snapshots say, and whoever they do not know is removed: users that only posted events
    made, who left the lake, or contexts of a later `until`. The store then says what the lake says,
    and events from `until` on are to be pushed again. Redis keeps such rows, and what is stamped
    later.

    Args:
        until: microseconds, the one the states were built with.

    Returns:
        {"incremental": whether only changed rows were written}.

    Raises:
        FeatureStoreError: nothing was applied yet.
    """
    store = open_store(settings)
    mark = settings.feast / MARK
    snapshots = Snapshots.read(settings.features)
    target = {
        "online_store": settings.online_store,
        "generation": snapshots.generation if snapshots else None,
    }
    since = _materialized(mark, target, until=until)
    own = _own_store(store)
    if own is not None and not own.is_marked(store.config, ONLINE_VIEWS):
        since = None
    mark.unlink(missing_ok=True)  # whoever is cut off here starts anew
    if since is None or since < until:
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            store.materialize(
                start_date=EPOCH + timedelta(microseconds=since + 1)
                if since is not None
                else EPOCH - timedelta(days=1),
                end_date=EPOCH + timedelta(microseconds=until),
                feature_views=list(ONLINE_VIEWS),
            )
    if own is not None:
        if since is None:
            _remove_unknown(settings, store, own, until=until)
        _bring_back_pushed(store, own, until=until)
    write_json(mark, target | {"until": until})
    return {"incremental": since is not None}


def _materialized(mark: Path, target: dict[str, Any], *, until: int) -> int | None:
    """Up to when the store holds these snapshots; None if it does not."""
    try:
        found = json.loads(mark.read_text())
        since = int(found.pop("until"))
    except (OSError, ValueError, KeyError):
        return None
    return since if found == target and since <= until else None


def _own_store(store: "FeatureStore") -> "WideSqliteOnlineStore | None":
    from shortlist.feature_store.online import WideSqliteOnlineStore, WideSqliteOnlineStoreConfig

    if isinstance(store.config.online_store, WideSqliteOnlineStoreConfig):
        return WideSqliteOnlineStore()
    return None


def _remove_unknown(
    settings: Settings, store: "FeatureStore", own: "WideSqliteOnlineStore", *, until: int
) -> None:
    """Delete the online rows whose user or context has no state in the snapshots by `until`."""
    from shortlist.feature_store.online_columns import entity_keys

    for name in ONLINE_VIEWS:
        view = store.get_feature_view(name)
        (key,) = [column.name for column in view.entity_columns]
        known = set(entity_keys(key, known_keys(settings.features, name, key, until=until)))
        own.delete(store.config, view, [k for k in own.keys(store.config, view) if k not in known])


def _bring_back_pushed(store: "FeatureStore", own: "WideSqliteOnlineStore", *, until: int) -> None:
    """Rows that were pushed and that this materialize had no reason to write."""
    import pandas as pd

    from shortlist.feature_store.online_columns import entity_keys, key_value

    for name in PUSHED_VIEWS:
        view: FeatureView = store.get_feature_view(name)
        keys = own.pushed_keys(store.config, view)
        if not keys:
            continue
        users = [key_value(key) for key in keys]
        moment = EPOCH + timedelta(microseconds=until)
        requests = pd.DataFrame({"user_id": users, "event_timestamp": [moment] * len(users)})
        refs = [f"{name}:{field.name}" for field in view.features]
        rows = store.get_historical_features(requests, refs).to_arrow()
        known = rows.filter(rows.column(view.features[0].name).is_valid())
        own.write_arrow(store.config, view, known)
        gone = set(users) - set(known.column("user_id").to_pylist())
        own.delete(store.config, view, entity_keys("user_id", gone))
