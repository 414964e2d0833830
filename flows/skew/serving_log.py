"""Reads the logged responses that can be recomputed, and opens the releases that made them."""

import heapq
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from flows.skew.states import Logged
from shortlist.config import Settings
from shortlist.datasets.service.service_log import read_lines
from shortlist.feature_store.states.stamps import NEWEST_EVENT
from shortlist.features.finalize import schema_hash
from shortlist.ids import ANONYMOUS
from shortlist.releases.release import Release, ReleaseError, ReleaseStore

WITHOUT_FEATURES = {"features", "ranking_features"}
"""Stages without which a response has no features to compare."""


def releases_of(
    recent: Mapping[str, int], store: ReleaseStore
) -> tuple[dict[str, Release], list[str]]:
    """Open the releases whose responses can be compared with the recomputed states.

    The states are recomputed once for all releases, so releases must have equal target events (the
    event types that models learn from). The first release that can be opened and has this code's
    feature schema determines them.

    Args:
        recent: release_id -> number of its responses.

    Returns:
        {release_id: release}, and a note for each release that is skipped.
    """
    found: dict[str, Release] = {}
    notes = []
    target_events: list[str] | None = None
    for release_id, count in recent.items():
        skipped = f"{count:,} responses of release {release_id} are skipped"
        try:
            about = (release := store.open(release_id)).about
        except ReleaseError as error:
            notes.append(f"{skipped}: {error}")
            continue
        if about["feature_schema"] != schema_hash():
            notes.append(f"{skipped}: its feature schema is not this code's")
        elif about["target_events"] != (target_events or about["target_events"]):
            notes.append(f"{skipped}: its target events are {about['target_events']}")
        else:
            target_events = about["target_events"]
            found[release_id] = release
    return found, notes


def read_log(
    settings: Settings, *, releases: Collection[str], limit: int, tick: int
) -> tuple[dict[str, list[Logged]], dict[str, int]]:
    """Read the newest responses that can be recomputed.

    Only these responses are kept in memory.

    Args:
        releases: ids of the releases whose responses are read.
        limit: maximum number of responses per release.
        tick: tick length of the item states in microseconds.

    Returns:
        {release_id: responses, oldest first}, and {reason: number of responses left out}.
    """
    reasons = (
        *("another release", "visitor", "without features", "no items", "no as_of by view"),
        "another tick",
    )
    left_out: dict[str, int] = dict.fromkeys(reasons, 0)
    newest: dict[str, list[tuple[int, int, Logged]]] = {release_id: [] for release_id in releases}
    for number, (_, _, entry) in enumerate(read_lines(settings.serving_log)):
        if entry["release_id"] not in newest:
            left_out["another release"] += 1
        elif entry["user_id"] == ANONYMOUS:  # recent_items of the request are not in the log
            left_out["visitor"] += 1
        elif WITHOUT_FEATURES & set(entry["skipped_stages"]):
            left_out["without features"] += 1
        elif not entry["items"]:
            left_out["no items"] += 1
        elif not NEWEST_EVENT.keys() <= entry.get("as_of", {}).keys():  # from older code
            left_out["no as_of by view"] += 1
        elif _pack_as_of(entry) % tick:  # logged before the tick length was increased
            left_out["another tick"] += 1
        else:
            kept = newest[entry["release_id"]]
            heapq.heappush(kept, (entry["event_timestamp"], number, _logged(entry)))
            if len(kept) > limit:
                heapq.heappop(kept)
    logged = {id_: [response for *_, response in sorted(kept)] for id_, kept in newest.items()}
    return logged, left_out


def _logged(entry: dict[str, Any]) -> Logged:
    return Logged(
        request_id=entry["request_id"],
        user_id=entry["user_id"],
        context_id=entry["context_id"],
        at=entry["event_timestamp"],
        clock=entry["clock"],
        as_of={view: time or 0 for view, time in entry["as_of"].items()},
        stamps=entry.get("stamps", {}),
        pack_id=entry["pack_id"],
        pack_as_of=_pack_as_of(entry),
        item_ids=[item["item_id"] for item in entry["items"]],
        features=np.array([item["features"] for item in entry["items"]], dtype=np.float32),
    )


def _pack_as_of(entry: dict[str, Any]) -> int:
    """Return the tick of a logged response's item features in microseconds."""
    return int(entry["pack_id"].split("-")[0]) * 1_000_000
