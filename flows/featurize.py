"""Featurize: updates the states, Feast's registry, the online store and the feature pack.

States are aggregates per user, item and context. The feature pack is one matrix with the features
of all items.
"""

import contextlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from prefect import flow, task

from flows.runtime.retries import step_options
from shortlist.behaviour.counting import ListRules
from shortlist.config import Settings
from shortlist.datasets.service.item_commands import carried_out
from shortlist.feature_store import (
    FeatureStoreError,
    apply,
    build_states,
    materialize,
    publish_pack,
    read_pack,
)
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import Lake
from shortlist.moments import moment_text
from shortlist.ticks import DAILY


@flow(name="featurize", log_prints=True)
def featurize_flow(
    target_events: tuple[str, ...],
    until: int,
    tick: int = DAILY,
    lists: ListRules = ListRules(),
) -> dict[str, Any]:
    """Update all features to `until`.

    Posted events that became known after `until` stay in the online store's tail
    (feature_store/online/tail.py). Each request adds them to the stored state of its user.

    Args:
        until: microseconds; only events strictly before it that were known by then count.
        tick: tick length of item features in microseconds.
        lists: rules for what counts as an event, and for the event lists in user states.

    Raises:
        LakeError: the lake is empty.
        FeatureStoreError: there are no target events before `until`, or the stored states are
            already newer than `until`.
    """
    settings = Settings()
    with home_lock(settings, "refresh", what="shortlist featurize", wait_seconds=REFRESH_WAIT):
        before = Snapshots.read(settings.features)
        if before is not None and until < before.until:
            raise FeatureStoreError(
                f"{settings.features}: states are built up to {moment_text(before.until)}, asked"
                f" for {moment_text(until)}; features are never set back (remove the folder to"
                " build anew)"
            )
        return featurize_task(target_events, until, tick, lists)


@task(name="build", **step_options("featurize", hours=2, retried=True))
def featurize_task(
    target_events: tuple[str, ...], until: int, tick: int, lists: ListRules
) -> dict[str, Any]:
    return featurize(Settings(), target_events, until=until, tick=tick, lists=lists)


def featurize(
    settings: Settings,
    target_events: tuple[str, ...],
    *,
    until: int,
    tick: int = DAILY,
    lists: ListRules = ListRules(),
) -> dict[str, Any]:
    """Do the work of `featurize_flow`, without Prefect and without the lock.

    Returns:
        {"rows": {view: rows written}, "incremental": whether only changed users were written to the
        online store, "pack_id", "as_of": tick of the pack in microseconds,
        "seconds": {part: seconds}}.
    """
    lake = Lake(settings.lake)
    seconds = {}
    started = time.perf_counter()
    rows = build_states(
        lake.interaction_files(),
        lake.users(),
        folder=settings.features,
        target_events=target_events,
        until=until,
        tick=tick,
        lists=lists,
    )
    seconds["states"] = _since(started)
    written = ", ".join(f"{count:,} {view}" for view, count in rows.items())
    print(f"featurize: {written} rows in {seconds['states']} s")
    started = time.perf_counter()
    quietly(apply, settings)
    seconds["apply"] = _since(started)
    started = time.perf_counter()
    incremental = quietly(materialize, settings, until=until)["incremental"]
    seconds["materialize"] = _since(started)
    print(
        f"featurize: registry in {seconds['apply']} s,"
        f" online store in {seconds['materialize']} s ({settings.online_store.split(':')[0]},"
        f" {'changed rows only' if incremental else 'everyone'})"
    )
    started = time.perf_counter()
    pack = replace(
        read_pack(settings, until), items=lake.items(), commands=carried_out(lake.manifest)
    )
    publish_pack(pack, settings.packs)
    seconds["pack"] = _since(started)
    print(f"featurize: pack {pack.pack_id}, {len(pack.item_ids):,} items in {seconds['pack']} s")
    return {
        "rows": rows,
        "incremental": incremental,
        "pack_id": pack.pack_id,
        "as_of": pack.as_of,
        "seconds": seconds,
    }


def quietly(step: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
    """Call a function that uses Feast and discard what it prints, such as progress bars.

    It runs in a separate thread, because Prefect logs everything printed in the flow's thread.
    """
    with ThreadPoolExecutor(1) as pool, contextlib.redirect_stdout(io.StringIO()):
        return pool.submit(step, *args, **parameters).result()


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 2)
