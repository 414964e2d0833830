"""Logged responses that can be recomputed, and the releases that made them."""

import heapq
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from flows.skew.states import Logged
from shortlist.config import Settings
from shortlist.datasets.service_log import read_lines
from shortlist.features.finalize import schema_hash
from shortlist.ids import ANONYMOUS
from shortlist.release import Release, ReleaseError, ReleaseStore


def releases_of(
    recent: Mapping[str, int], store: ReleaseStore
) -> tuple[dict[str, Release], list[str]]:
    """The releases that answered, and a note for each that can't be compared.

    All are compared with one recomputation of the lake, so they have to count the same events.

    Args:
        recent: release -> its responses; the first one decides which events count.
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
    """Release -> its newest `limit` responses that can be recomputed, oldest first; and how many
    others the log has, by reason. In memory are those responses only.

    Args:
        tick: of the item states, microseconds.
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
        elif "features" in entry["skipped_stages"]:
            left_out["without features"] += 1
        elif not entry["items"]:
            left_out["no items"] += 1
        elif "as_of" not in entry:  # a line of before the log had it
            left_out["no as_of by view"] += 1
        elif _pack_as_of(entry) % tick:  # of before the grid was made coarser
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
    """The tick of a logged response's item features, microseconds."""
    return int(entry["pack_id"].split("-")[0]) * 1_000_000
