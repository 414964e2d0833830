"""Copies the newest states of the Parquet snapshots to the online store (Feast: materialize).

Only rows with changes are copied if the store holds an earlier state of the same snapshots.
"""

import contextlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.behaviour.counting import ListRules
from shortlist.config import Settings
from shortlist.feature_store.online.tail import Tail
from shortlist.feature_store.registry_summary import RegistrySummary
from shortlist.feature_store.states.snapshots import Snapshots, known_keys
from shortlist.feature_store.store import ONLINE_VIEWS, REGISTRY, open_store
from shortlist.files.plain_json import write_json

if TYPE_CHECKING:
    from feast import FeatureStore

    from shortlist.feature_store.online.store import WideSqliteOnlineStore

EPOCH = datetime.fromtimestamp(0, UTC)
MARK = "materialized.json"
COUNTED = "counted.json"
"""File with the target events and ListRules with which the online rows were computed. They also
apply to later posted events (the tail).
"""


def materialize(settings: Settings, *, until: int) -> dict[str, Any]:
    """Write the newest states stamped at or before `until` to the online store.

    A row's stamp is the time up to which it contains all events. If the store already holds an
    earlier state of the same snapshots, only rows with later stamps are written. Otherwise all rows
    are written; in SQLite, rows of users and contexts that are not in the snapshots are removed.
    Finally, events known by `until` are deleted from the tail (posted events that the rows don't
    contain), since the rows now contain them.

    Args:
        until: microseconds, the `until` of the state build.

    Returns:
        {"incremental": whether only changed rows were written}.

    Raises:
        FeatureStoreError: the definitions were not applied yet.
    """
    store = open_store(settings)
    mark = settings.feast / MARK
    snapshots = Snapshots.read(settings.features)
    target = {
        "online_store": settings.online_store,
        "project": store.project,
        "generation": snapshots.generation if snapshots else None,
    }
    since = _materialized(mark, target, until=until)
    wide_store = _own_store(store)
    if wide_store is not None and not wide_store.is_marked(store.config, ONLINE_VIEWS):
        since = None
    if snapshots is not None:
        counted = {"target_events": list(snapshots.target_events)} | asdict(snapshots.lists)
        write_json(settings.feast / COUNTED, counted)
    mark.unlink(missing_ok=True)  # an interrupted materialize then writes all rows next time
    if since is None or since < until:
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            store.materialize(
                start_date=EPOCH + timedelta(microseconds=since + 1)
                if since is not None
                else EPOCH - timedelta(days=1),
                end_date=EPOCH + timedelta(microseconds=until),
                feature_views=list(ONLINE_VIEWS),
            )
        # Feast notes the interval in the registry, which changes the file.
        RegistrySummary.of(store).write(settings.feast / REGISTRY)
    if wide_store is not None and since is None:
        _remove_unknown(settings, store, wide_store, until=until)
    if snapshots is not None:
        Tail.of(settings).covered(until)
    write_json(mark, target | {"until": until})
    return {"incremental": since is not None}


def counted_events(settings: Settings) -> tuple[frozenset[str], ListRules]:
    """Return the target events and ListRules with which the online rows were computed.

    Before the first materialize there are no target events.
    """
    try:
        counted = json.loads((settings.feast / COUNTED).read_text())
    except FileNotFoundError:
        return frozenset(), ListRules()
    counted["exclude"] = tuple(counted.get("exclude", ()))
    return frozenset(counted.pop("target_events")), ListRules(**counted)


def _materialized(mark: Path, target: dict[str, Any], *, until: int) -> int | None:
    """Return the time up to which the online store was filled from the present snapshots.

    None if it was filled from other snapshots, or later than `until`.

    Args:
        mark: file that the last materialize wrote.
        target: the online store and the id of the snapshots' last full build.
        until: microseconds, end of this materialize.
    """
    try:
        found = json.loads(mark.read_text())
        since = int(found.pop("until"))
    except (OSError, ValueError, KeyError):
        return None
    return since if found == target and since <= until else None


def _own_store(store: "FeatureStore") -> "WideSqliteOnlineStore | None":
    from shortlist.feature_store.online.store import (
        WideSqliteOnlineStore,
        WideSqliteOnlineStoreConfig,
    )

    if isinstance(store.config.online_store, WideSqliteOnlineStoreConfig):
        return WideSqliteOnlineStore()
    return None


def _remove_unknown(
    settings: Settings, store: "FeatureStore", wide_store: "WideSqliteOnlineStore", *, until: int
) -> None:
    """Delete online rows of users and contexts without a state stamped at or before `until`."""
    from shortlist.feature_store.online.keys import entity_keys

    for name in ONLINE_VIEWS:
        view = store.get_feature_view(name)
        (key,) = [column.name for column in view.entity_columns]
        known = set(entity_keys(key, known_keys(settings.features, name, key, until=until)))
        wide_store.delete(
            store.config, view, [k for k in wide_store.keys(store.config, view) if k not in known]
        )
