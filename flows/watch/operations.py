"""Figures of the operation: freshness of data, features and release, errors, skew."""

import json
from datetime import UTC, datetime
from pathlib import Path
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
MIN_ANSWERS = 500
"""Smallest number of answers for which the share without a log line is stated."""
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
        differ = skew["different_share"].values()
        figures["skew_different_share"] = Figure(max(differ, default=0.0))
    return figures | service_figures(settings)


def service_figures(settings: Settings) -> dict[str, Figure]:
    """Return error rate, dropped and missing log lines since the last check, from the service's
    metrics.

    Empty if the service does not answer, or serves another home. Without any answer since then,
    there is no error rate; with fewer than MIN_ANSWERS lists no share of missing lines.
    """
    try:
        answer = httpx.get(f"{settings.service_url}/metrics", timeout=SCRAPE_SECONDS)
        text = answer.raise_for_status().text
    except (httpx.HTTPError, httpx.InvalidURL):
        return {}
    store = ReleaseStore(settings.releases)
    if not any(f'release_id="{release_id}"' in text for release_id in store.ids()):
        return {}  # the service of another home
    path = settings.reports / COUNTERS
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    before = _read(path)
    lines = None if before is None else logged_lines(settings.serving_log, before.get("day", today))
    now = count_responses(text)
    settings.reports.mkdir(parents=True, exist_ok=True)
    logged = logged_lines(settings.serving_log, today)
    write_json(path, now | {"day": today, "logged": logged})
    restarted = before is None or now["all"] < before["all"]  # counters began again
    start = dict.fromkeys(now, 0.0) if before is None or restarted else before
    answered = now["all"] - start["all"]
    figures = {"log_dropped": Figure(now["dropped"] - start["dropped"])}
    if answered > 0:
        figures["error_rate"] = Figure((now["failed"] - start["failed"]) / answered)
    known = None if before is None or restarted else before.get("logged")
    if before is not None and lines is not None and known is not None:
        listed = now["listed"] - before["listed"]
        if listed >= MIN_ANSWERS:
            figures["unlogged_rate"] = Figure(max(0.0, 1 - (lines - known) / listed))
    return figures


def logged_lines(folder: Path, since: str) -> int | None:
    """Return the number of lines of the serving log's days from `since` (YYYY-MM-DD) on.

    None if one of these days is archived.
    """
    count = 0
    for day in folder.glob("date=*"):
        if day.name.removeprefix("date=") < since:
            continue
        for file in day.iterdir():
            if file.suffix != ".jsonl":
                return None
            with file.open("rb") as stream:
                count += sum(line.endswith(b"\n") for line in stream)
    return count


def count_responses(text: str) -> dict[str, float]:
    """Return the answers in a page of metrics: {"all", "failed" (5xx), "listed" (2xx)}, and the
    number of "dropped" log lines.
    """
    from prometheus_client.parser import text_string_to_metric_families

    counts = {"all": 0.0, "failed": 0.0, "listed": 0.0, "dropped": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == REQUESTS and "recommend" in sample.labels.get("endpoint", ""):
                counts["all"] += sample.value
                code = sample.labels.get("http_response_code", "")
                counts["failed"] += sample.value if code.startswith("5") else 0
                counts["listed"] += sample.value if code.startswith("2") else 0
            elif sample.name == DROPPED:
                counts["dropped"] += sample.value
    return counts


def _read(path: Any) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
