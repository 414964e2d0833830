"""Prometheus metrics of the service. BentoML serves them at /metrics with its own metrics."""

from collections import Counter as Counted
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from models.recommend.slate import Slate

SECONDS = Histogram(
    "shortlist_request_seconds",
    "Time to answer, by route.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SHOWN = Counter("shortlist_items_shown", "Items shown, by candidate source.", ["source"])
UNKNOWN = Counter("shortlist_unknown_users", "Lists for users without any history.")
SKIPPED = Counter(
    "shortlist_skipped_stages",
    "Stages of /recommend that failed or had no time left, so that the answer lacks them.",
    ["stage"],
)
STAGE_SECONDS = Histogram(
    "shortlist_stage_seconds",
    "Time of each stage of /recommend.",
    ["stage"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)
LOG_DROPPED = Counter(
    "shortlist_log_dropped", "Lines of the serving and answer logs that could not be written."
)
EVENTS = Counter(
    "shortlist_events",
    "Posted events: accepted, duplicate, or accepted but of an unknown item.",
    ["outcome"],
)
ITEMS = Counter("shortlist_item_changes", "Posted changes of items.")
SWAPS = Counter(
    "shortlist_swaps",
    "Releases, item features and rules published while serving: swapped in or refused.",
    ["what", "outcome"],
)
# BentoML merges the metrics of all processes. The mode "livemax" drops those of ended workers.
RELEASE = Gauge(
    "shortlist_release_info",
    "1 for a release that a worker serves.",
    ["release_id"],
    multiprocess_mode="livemax",
)


def count_slate(slate: "Slate") -> None:
    """Count one response of /recommend."""
    for source, number in Counted(item.source for item in slate.items).items():
        SHOWN.labels(source).inc(number)
    for stage in slate.skipped_stages:
        SKIPPED.labels(stage).inc()
    for stage, seconds in slate.stage_seconds.items():
        _seconds_of(stage).observe(seconds)
    if not slate.user_known:
        UNKNOWN.inc()


@cache
def _seconds_of(stage: str) -> Histogram:
    """Return STAGE_SECONDS of one stage."""
    return STAGE_SECONDS.labels(stage)
