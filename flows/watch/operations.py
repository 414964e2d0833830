"""Figures of the operation: freshness of data, features and release, errors, skew."""

import json
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.figures import Figure
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.feature_store.packs import POINTER
from shortlist.files.plain_json import write_json
from shortlist.releases.release import Release, ReleaseStore

SKEW = "skew.json"
COUNTERS = "counters.json"
SCRAPE_SECONDS = 5.0
REQUESTS, DROPPED = "bentoml_service_request_total", "shortlist_log_dropped_total"


def operation_figures(
    settings: Settings, release: Release, events: pa.Table, *, now: int
) -> dict[str, Figure]:
    """Return the figures that can be read; those that can't are left out, and so are missing.

    Args:
        now: microseconds of the home's clock.
    """
    figures: dict[str, Figure] = {}
    newest = pc.max(microseconds(events.column(c.EVENT_TIMESTAMP))).as_py()
    if newest is not None:
        figures["data_age_hours"] = Figure(max(0, now - newest) / c.MICROSECONDS_PER_HOUR)
    # Increments don't train rankers, so the age is that of the last full training.
    training = release.about.get("training", {})
    ended = training.get("full_data_end", release.about.get("data_end"))
    if ended is not None:
        figures["release_age_days"] = Figure(max(0, now - ended) / c.MICROSECONDS_PER_DAY)
    pack = _read(settings.packs / POINTER)
    if pack is not None:
        age = max(0, now - pack["as_of"]) / c.MICROSECONDS_PER_HOUR
        figures["item_features_age_hours"] = Figure(age)
    skew = _read(settings.reports / SKEW)
    if skew is not None:
        figures["skew_exact_share"] = Figure(skew["exact_share"])
    return figures | service_figures(settings)


def service_figures(settings: Settings) -> dict[str, Figure]:
    """Return the error rate and dropped log lines since the last check, from the service's metrics.

    Empty if the service does not answer, or serves another home. Without any answer since then,
    there is no error rate.
    """
    try:
        answer = httpx.get(f"{settings.service_url}/metrics", timeout=SCRAPE_SECONDS)
        text = answer.raise_for_status().text
    except (httpx.HTTPError, httpx.InvalidURL):
        return {}
    store = ReleaseStore(settings.releases)
    if not any(f'release_id="{release_id}"' in text for release_id in store.ids()):
        return {}  # the service of another home
    now = count_responses(text)
    path = settings.reports / COUNTERS
    before = _read(path) or {"all": 0, "failed": 0, "dropped": 0}
    settings.reports.mkdir(parents=True, exist_ok=True)
    write_json(path, now)
    if now["all"] < before["all"]:  # restarted: its counters began again
        before = {"all": 0, "failed": 0, "dropped": 0}
    answered = now["all"] - before["all"]
    figures = {"log_dropped": Figure(now["dropped"] - before["dropped"])}
    if answered > 0:
        figures["error_rate"] = Figure((now["failed"] - before["failed"]) / answered)
    return figures


def count_responses(text: str) -> dict[str, float]:
    """Return {"all", "failed" (5xx), "dropped" (log lines)} of a page of Prometheus metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    counts = {"all": 0.0, "failed": 0.0, "dropped": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == REQUESTS and "recommend" in sample.labels.get("endpoint", ""):
                counts["all"] += sample.value
                if sample.labels.get("http_response_code", "").startswith("5"):
                    counts["failed"] += sample.value
            elif sample.name == DROPPED:
                counts["dropped"] += sample.value
    return counts


def _read(path: Any) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
