"""Feature packs: reads item states of the whole catalogue from Feast and publishes them as files.

A feature pack is a file with the states of all items as of a tick. Ticks are the times, for example
each full hour, at which item features change. The service loads the pack instead of reading items
one by one.

packs/current.json                {"pack_id", "as_of", "commands"} of the served pack; `commands` is
                                  the number of the last posted item change that it contains
packs/published.json              {pack_id: time of publication in seconds}
packs/<pack_id>.parquet           item states, kept for the newest packs
packs/<pack_id>.items.parquet     the catalogue; packs with the same catalogue share it by hard link
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.config import Settings
from shortlist.feature_store.readers import feature_service
from shortlist.feature_store.states.item_days import last_24_hours, shift_day_counts
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.feature_store.store import FeatureStoreError, open_store
from shortlist.features.finalize import ITEM_SERVICE, ITEM_TICK, PACK_STATE, schema_hash
from shortlist.features.pack import LISTS, FeaturePack, PackError, items_path, pending_in
from shortlist.files.parquet_files import read_parquet
from shortlist.files.plain_json import write_json
from shortlist.items.commands import CommandInbox
from shortlist.items.item_changes import with_changes
from shortlist.ticks import DAILY, last_day, newest_tick

POINTER = "current.json"
PUBLISHED = "published.json"
KEPT_PACKS = 5
"""Number of packs whose states are kept. A worker may still be loading a replaced pack."""
KEPT_SECONDS = 7 * 86_400
"""How long the catalogue of a replaced pack is kept; `skew` compares logged lists with it."""


def read_pack(settings: Settings, as_of: int) -> FeaturePack:
    """Return the pack of item states at the last tick at or before `as_of` microseconds.

    Raises:
        FeatureStoreError: there are no states yet.
    """
    tick = newest_tick(as_of, tick_of(settings.features))
    return read_pack_history(settings, [tick])[tick]


def read_pack_history(settings: Settings, ticks: Sequence[int]) -> dict[int, FeaturePack]:
    """Return the packs of several ticks, read by one point-in-time join over ticks x items.

    Args:
        ticks: microseconds, multiples of the tick length of the states.

    Raises:
        FeatureStoreError: there are no states yet.
        PackError: a tick is not a multiple of the tick length.
    """
    import pandas as pd

    grid = tick_of(settings.features)
    wrong = [tick for tick in ticks if tick % grid]
    if wrong:
        raise PackError(
            f"pack tick {wrong[0]} us is not a multiple of the states' tick length ({grid} us)"
        )
    store = open_store(settings)
    item_ids = _item_ids(settings.features)
    unique = np.unique(np.asarray(ticks, dtype=np.int64))
    if not len(unique):
        return {}
    rows = len(unique) * len(item_ids)
    entities = pd.DataFrame(
        {
            "row": np.arange(rows),
            "item_id": pd.Series(item_ids * len(unique), dtype="string"),
            "event_timestamp": pd.Series(
                np.repeat(unique, len(item_ids)).astype("datetime64[us]")
            ).dt.tz_localize("UTC"),
        }
    )
    service = feature_service(store, ITEM_SERVICE)
    table = store.get_historical_features(entities, service).to_arrow().sort_by("row")
    assert table.num_rows == rows
    states = {}
    for name in (*PACK_STATE, ITEM_TICK):
        values = _column(table, name)
        states[name] = values.reshape(len(unique), len(item_ids), *values.shape[1:])
    older = last_day(unique)[:, None] - last_day(states.pop(ITEM_TICK))
    days = shift_day_counts(states["item_day_counts"], older)
    states["item_day_counts"] = last_24_hours(days, unique[:, None])
    return {
        int(tick): FeaturePack(
            as_of=int(tick),
            item_ids=item_ids,
            state={name: values[i] for name, values in states.items()},
            schema=schema_hash(),
        )
        for i, tick in enumerate(unique)
    }


def tick_of(features: Path) -> int:
    """Return the tick length of the states in a folder, in microseconds."""
    snapshots = Snapshots.read(features)
    return DAILY if snapshots is None else snapshots.tick


def _item_ids(features: Path) -> list[str]:
    """Return all items with a stored state; other items have zero state in every pack."""
    known: set[str] = set()
    for view in ("item_state", "item_event_groups"):
        if not (features / view).is_dir():
            raise FeatureStoreError(f"{features / view}: no item states; run `shortlist refresh`")
        column = pq.read_table(features / view, columns=["item_id"]).column("item_id")
        known.update(column.unique().to_pylist())
    return sorted(known)


def _column(table: pa.Table, name: str) -> np.ndarray:
    """Return the values of a column, 0 where the item had no event yet.

    List columns have the shape (rows, length).
    """
    column = table.column(name).combine_chunks()
    if name in LISTS:
        length, dtype = LISTS[name]
        out = np.zeros((len(column), length), dtype=dtype)
        known = column.is_valid().to_numpy(zero_copy_only=False)
        out[known] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, length)
        return out
    return column.fill_null(0).to_numpy(zero_copy_only=False)


def publish_pack(pack: FeaturePack, folder: Path) -> Path:
    """Write `<pack_id>.parquet`, then atomically set the pointer; remove old packs."""
    path = folder / f"{pack.pack_id}.parquet"
    before = None
    if (folder / POINTER).is_file():
        before = items_path(folder / f"{current_pack_id(folder)}.parquet")
    pack.save(path, same_items=before)
    pointer = {"pack_id": pack.pack_id, "as_of": pack.as_of, "commands": pack.commands}
    write_json(folder / POINTER, pointer)
    prune(folder, pack.pack_id, now=time.time())
    return path


def prune(folder: Path, newest: str, *, now: float) -> None:
    """Record the time of publication of pack `newest` and remove files of old packs.

    Args:
        now: seconds since 1970.
    """
    try:
        published = json.loads((folder / PUBLISHED).read_text())
    except FileNotFoundError:
        published = {}
    there = [path for path in folder.glob("*.parquet") if not path.stem.endswith(".items")]
    for path in there:  # packs of earlier versions, which had no published.json
        published.setdefault(path.stem, path.stat().st_mtime)
    published.pop(newest, None)
    published[newest] = now  # keep the newest pack last, even if the machine's clock went back
    kept = list(published)[-KEPT_PACKS:]
    for pack_id, at in list(published.items()):
        if pack_id in kept:
            continue
        (folder / f"{pack_id}.parquet").unlink(missing_ok=True)
        if now - at > KEPT_SECONDS:
            items_path(folder / f"{pack_id}.parquet").unlink(missing_ok=True)
            del published[pack_id]
    write_json(folder / PUBLISHED, published)


def current_pack_id(folder: Path) -> str:
    """Return the id of the served pack, from the pointer file.

    Raises:
        PackError: no pack was published, or the pointer file is damaged.
    """
    return _pointer(folder)["pack_id"]


def _pointer(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / POINTER).read_text())
        return {"commands": 0, "pack_id": content["pack_id"]} | content
    except FileNotFoundError:
        raise PackError(f"{folder}: no feature pack there; run `shortlist refresh`") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise PackError(
            f"{folder / POINTER}: not a pack pointer; run `shortlist refresh`"
        ) from None


def latest_pack(folder: Path) -> FeaturePack:
    """Return the served pack. Raises PackError if there is none or it cannot be read."""
    pointer = _pointer(folder)
    pack = FeaturePack.load(folder / f"{pointer['pack_id']}.parquet")
    return replace(pack, commands=pointer["commands"])


def served_items(settings: Settings, pack_ids: Iterable[str]) -> dict[str, pa.Table]:
    """Return {pack_id: catalogue that was served with it}.

    Packs whose catalogue was removed are left out.

    Args:
        pack_ids: ids from the serving log. An id also names the pending commands (posted changes of
            items) that the worker had applied; the returned catalogue includes them.
    """
    inbox = CommandInbox.of(settings)
    found = {}
    for pack_id in pack_ids:
        published, first, last = pending_in(pack_id)
        path = items_path(settings.packs / f"{published}.parquet")
        if path.is_file():
            pending = inbox.between(first - 1, last) if last else []
            items = read_parquet(path)
            found[pack_id] = with_changes(items, pending) if pending else items
    return found
