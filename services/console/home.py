"""The first page: is it well? What serves, how fresh and how fast, what is broken, what was done.

All figures are of what ran: the serving log, the inbox, the files of the last runs and checks.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.console.charts import quantile
from services.console.deployment import Deployment
from services.console.served_log import recent
from shortlist.config import ConfigError, Settings
from shortlist.home.alarms import AlarmError, read_alarms
from shortlist.home.audit import read_audit
from shortlist.home.home_lock import held_locks
from shortlist.home.switches import in_force
from shortlist.home.workers import live_workers
from shortlist.lake.snapshot import LakeError, current_manifest
from shortlist.releases.release import ReleaseError, ReleaseStore

RESPONSES = 1_000
"""Number of newest responses that the figures are about."""
BINS = 40
ACTIONS = RUNS = 8
FILLED = ("fill", "rules")
LEVELS = {0: "pass", 1: "waiting", 2: "missing", 3: "alarm"}
LEVEL = re.compile(
    r'shortlist_guardrail_level\{guardrail="((?:[^"\\]|\\.)*)",action="(\w*)"\} (\d)'
)


@dataclass(frozen=True)
class Traffic:
    """Figures of the newest responses; NaN where there are none."""

    count: int
    first: int
    last: int
    p50: float
    p99: float
    skipped: float
    """Share of responses that lack a stage."""
    filled: float
    """Share of the shown items that only filled a list that was too short."""
    short: float
    """Share of responses without items."""
    releases: list[tuple[str, int]]
    by_time: list[int]
    """Number of responses in each of BINS equal spans of time."""
    slowest: list[float]
    """p99 of the milliseconds in each of BINS parts with equal numbers of responses."""


def traffic_of(entries: Sequence[dict[str, Any]]) -> Traffic:
    """Return the figures of responses, newest first."""
    nan = float("nan")
    taken = [float(one.get("milliseconds", nan)) for one in entries]
    items = [item["source"] for one in entries for item in one["items"]]
    first = entries[-1]["event_timestamp"] if entries else 0
    last = entries[0]["event_timestamp"] if entries else 0
    counts = Counter(
        min(BINS - 1, (one["event_timestamp"] - first) * BINS // max(last - first, 1))
        for one in entries
    )
    size = max(1, -(-len(taken) // BINS))
    oldest_first = taken[::-1]
    return Traffic(
        count=len(entries),
        first=first,
        last=last,
        p50=quantile(taken, 0.5),
        p99=quantile(taken, 0.99),
        skipped=_share(sum(bool(one["skipped_stages"]) for one in entries), len(entries)),
        filled=_share(sum(source in FILLED for source in items), len(items)),
        short=_share(sum(not one["items"] for one in entries), len(entries)),
        releases=Counter(one["release_id"] for one in entries).most_common(),
        by_time=[counts[place] for place in range(BINS)] if entries else [],
        slowest=[
            quantile(oldest_first[at : at + size], 0.99) for at in range(0, len(oldest_first), size)
        ],
    )


def home(running: Deployment) -> dict[str, Any]:
    """Return the variables of the template."""
    settings, now = running.settings, running.clock.now()
    ready = running.readiness()
    about = running.serving.recommender.about
    newest = newest_event(settings)
    alarms, broken = _alarms(settings)
    levels = guardrail_levels(settings.reports / "metrics.prom")
    traffic = traffic_of(recent(settings.serving_log, RESPONSES))
    report = _read(settings.reports / "latest.json")
    open_alarms = [one for one in alarms if one["closed_at"] is None]
    worries = _worries(ready, open_alarms, levels, traffic) + broken
    return {
        "worries": worries,
        "ready": ready,
        "workers": live_workers(settings),
        "now": now,
        "pack_age": now - ready.pack_as_of,
        "data_age": None if newest is None else now - newest,
        "release_age": now - about["data_end"] if about.get("data_end") else None,
        "traffic": traffic,
        "events": events_of_newest_day(settings.events),
        "alarms": open_alarms,
        "levels": levels,
        "report": report,
        "pages": pages_url(settings),
        "report_link": report_link(settings, report),
        "audit": read_audit(settings)[::-1][:ACTIONS],
        "runs": last_runs(settings.runs),
        "locks": held_locks(settings),
        "switches": _switches(settings),
        "experiment": running.experiment,
        "serving": _serving(settings),
    }


def _worries(
    ready: Any, alarms: Sequence[Any], levels: Sequence[Any], traffic: Traffic
) -> list[str]:
    found = [f"{one['guardrail']}: {one['reason']}" for one in alarms if not one["acknowledged_by"]]
    if ready.refused:
        found.append(f"release {ready.refused.release_id} was refused: {ready.refused.reason}")
    if ready.rules_refused:
        found.append(f"the rules file isn't used: {ready.rules_refused}")
    if ready.stages_off:
        found.append(f"stages that are off: {', '.join(ready.stages_off)}")
    if traffic.count and traffic.skipped > 0.01:
        found.append(f"{traffic.skipped:.1%} of the last responses lack a stage")
    missing = [name for name, _, level in levels if level == "missing"]
    if missing:
        found.append(f"guardrails without their figure: {', '.join(missing)}")
    return found


def guardrail_levels(path: Path) -> list[tuple[str, str, str]]:
    """Return (guardrail, action, level) of the last check; empty if there was none."""
    try:
        found = LEVEL.findall(path.read_text(encoding="utf-8"))
    except OSError:
        return []
    rows = [(name, action, LEVELS.get(int(level), "?")) for name, action, level in found]
    return sorted(rows, key=lambda row: -list(LEVELS.values()).index(row[2]))


def events_of_newest_day(inbox: Path) -> tuple[str, int]:
    """Return the newest day of the inbox and the number of its posted events."""
    days = sorted(inbox.glob("date=*"))
    if not days:
        return "", 0
    count = 0
    for path in days[-1].glob("*.jsonl"):
        with path.open("rb") as file:
            count += sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    return days[-1].name.removeprefix("date="), count


def newest_event(settings: Settings) -> int | None:
    try:
        return current_manifest(settings.lake).latest
    except LakeError:
        return None


def last_runs(folder: Path) -> list[dict[str, Any]]:
    """Return the last runs, newest first, with the summary of those that ended."""
    if not folder.is_dir():
        return []
    paths = sorted((p for p in folder.iterdir() if p.is_dir()), reverse=True)[:RUNS]
    return [{"run_id": path.name, "summary": _read(path / "summary.json")} for path in paths]


def pages_url(settings: Settings) -> dict[str, str]:
    """Return {process: address} of what `shortlist up` started for this home."""
    up = _read(settings.home / "up.json") or {}
    return {name: one["url"] for name, one in up.get("processes", {}).items() if one.get("url")}


def report_link(settings: Settings, report: dict[str, Any] | None) -> str:
    """Return the address of the last report; empty if `shortlist up` doesn't serve it."""
    pages = pages_url(settings).get("pages")
    if pages is None or report is None:
        return ""
    path = Path(report.get("index") or report.get("report") or "")
    root = settings.reports.absolute()
    return f"{pages}/reports/{path.relative_to(root)}" if path.is_relative_to(root) else ""


def _alarms(settings: Settings) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        return read_alarms(settings), []
    except AlarmError as error:
        return [], [str(error)]


def _switches(settings: Settings) -> list[str]:
    try:
        holds, off = (in_force(settings, kind) for kind in ("holds", "sources_off"))
    except ConfigError as error:
        return [str(error)]
    texts = [f"promotions are held by '{name}': {one['reason']}" for name, one in holds.items()]
    return texts + [f"source {name} is off: {one['reason']}" for name, one in off.items()]


def _serving(settings: Settings) -> str | None:
    try:
        return ReleaseStore(settings.releases).current_id()
    except ReleaseError as error:
        return f"unknown: {error}"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
