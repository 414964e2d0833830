"""Gathers the content of the morning page of a home, and the requests behind each alarm."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.acting.alarms import read_alarms
from monitoring.board.config import MILD, GuardrailFile
from monitoring.board.judge import Board, Result
from monitoring.morning import morning_page, runbook_entries
from monitoring.traffic.cuts import by
from monitoring.traffic.join import DAY, Traffic
from monitoring.traffic.measure import Measure
from monitoring.traffic.measures import MEASURES
from shortlist.config import Settings
from shortlist.experiment import running_experiment
from shortlist.home.audit import read_audit
from shortlist.home.switches import in_force
from shortlist.releases.release import Release

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
TRENDS = (
    "click_through", "taken_rate", "conversion", "revenue_per_user", "watch_seconds",
    "satisfaction", "hide_rate", "return_rate", "retention_1", "retention_7", "diversity",
    "novelty", "new_item_share", "skipped_stage_rate", "unknown_user_rate", "requests_per_user",
)  # fmt: skip
DAYS = 42
"""Days that the sparklines show."""
ROWS = 5_000
"""Largest number of requests in the file behind an alarm."""
MOVED = 3.0
"""Standard errors by which the last week must differ from the week before to be a change."""


def write_morning_page(
    settings: Settings,
    file: GuardrailFile,
    traffic: Traffic,
    main: Traffic,
    board: Board,
    alarms: Sequence[dict[str, Any]],
    *,
    canary: str | None,
    release: Release,
    out: Path,
) -> Path:
    """Write `out/morning.html` and the files with the requests behind each alarm; return the page.

    Args:
        traffic: all requests; `main` those of the serving release and its predecessors.
    """
    since = (datetime.now(UTC) - timedelta(hours=36)).isoformat()
    kept = read_alarms(settings)
    experiment = running_experiment(settings)
    experiment_text = None
    if experiment is not None:
        experiment_text = f"experiment {experiment.name} runs since {experiment.started_at}"
        experiment_text += "" if canary is None else f"; {canary}"
    runbook = RUNBOOK.read_text(encoding="utf-8") if RUNBOOK.is_file() else ""
    content = {
        "verdict": board.verdict if not alarms else _worst(board.verdict, alarms),
        "about": {
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "release": release.release_id,
            "requests": f"{len(main.requests):,}",
            "users": f"{main.requests['user_id'].nunique():,}",
        },
        "cause": None if board.cause is None else board.cause.model_dump(),
        "alarms": list(alarms),
        "closed": [alarm for alarm in kept if (alarm["closed_at"] or "") > since],
        "audit": [line for line in reversed(read_audit(settings)) if line["at"] > since][:10],
        "results": [result.to_json() for result in board.results],
        "rows": _write_rows(traffic, board, out),
        "trends": trends(main, file),
        "releases": release_days(traffic),
        "changes": changes(main),
        "experiment": experiment_text,
        "switches": _switches(settings),
        "runbook": runbook_entries(runbook),
        "details": "index.html",
    }
    page = out / "morning.html"
    page.write_text(morning_page(content), encoding="utf-8")
    return page


def trends(main: Traffic, file: GuardrailFile) -> list[dict[str, Any]]:
    """Return each figure of TRENDS by day, with the absolute limit of its guardrail."""
    limits = {row.figure: row.limit for row in file.guardrail if row.compare == "absolute"}
    recent = main.pick(main.requests["day"].to_numpy() > main.until // DAY - DAYS)
    found = []
    for name in TRENDS:
        parts = by(MEASURES[name], recent, "day")
        days = [int(day) for day in parts]
        values = [part.value for part in parts.values()]
        if not any(np.isfinite(values)):
            continue
        found.append(
            {
                "name": name,
                "title": MEASURES[name].title,
                "unit": MEASURES[name].unit,
                "days": days,
                "values": values,
                "limit": limits.get(name),
            }
        )
    return found


def release_days(traffic: Traffic) -> dict[int, str]:
    """Return {day: release that answered for the first time on that day}.

    The first release of the traffic is left out: there is no change of releases to mark.
    """
    first = traffic.requests.drop_duplicates("release_id")[["release_id", "day"]]
    starts = zip(first["release_id"].tolist(), first["day"].tolist(), strict=True)
    return {int(day): str(name) for name, day in list(starts)[1:]}


def changes(main: Traffic) -> list[str]:
    """Name the figures of the last 7 days that differ from the 7 days before by MOVED errors."""
    lines = []
    for name, measure in MEASURES.items():
        end = main.until
        if measure.delay is not None:
            end = main.open_before(measure.delay)
        if measure.days:
            end = (main.until // DAY - measure.days) * DAY
        now, before = (
            _value(name, main.between(end - n * 7 * DAY, end - (n - 1) * 7 * DAY)) for n in (1, 2)
        )
        error = float(np.hypot(now.error, before.error))
        if error > 0 and abs(now.value - before.value) > MOVED * error:
            change = f"{now.value / before.value - 1:+.0%}" if before.value else "new"
            lines.append(
                f"{measure.title}: {now.value:.4g}, {change} against the week before"
                f" ({before.value:.4g})"
            )
    return lines


def _value(name: str, part: Traffic) -> Any:
    from monitoring.traffic.cuts import figure

    return figure(name, part)


def _worst(verdict: str, alarms: Sequence[dict[str, Any]]) -> str:
    """Return the state of the page: an open alarm with an action keeps it at `hold`."""
    acted = any(a["action"] not in MILD and a["acknowledged_by"] is None for a in alarms)
    return "hold" if acted or verdict == "hold" else "warn"


def _switches(settings: Settings) -> list[str]:
    texts = []
    for name, entry in in_force(settings, "holds").items():
        until = f"until {entry['until'][:16]}" if entry["until"] else "until a person ends it"
        texts.append(f"promotions are held by '{name}' {until}: {entry['reason']}")
    for name, entry in in_force(settings, "sources_off").items():
        until = f"until {entry['until'][:16]}" if entry["until"] else "until a person ends it"
        texts.append(f"source {name} is off {until}: {entry['reason']}")
    return texts


def _write_rows(traffic: Traffic, board: Board, out: Path) -> dict[str, str]:
    """Write the requests behind each alarm; return {guardrail: path relative to the page}."""
    files = {}
    for result in board.results:
        if result.level != "alarm" or result.window == (0, 0):
            continue
        frame = rows_behind(traffic, result)
        if frame is None:
            continue
        folder = out / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", result.name.lower()).strip("-") + ".csv"
        frame.to_csv(folder / name, index=False)
        files[result.name] = f"rows/{name}"
    return files


def rows_behind(traffic: Traffic, result: Result) -> pd.DataFrame | None:
    """Return the requests of a result's window with the figure's numerator and denominator; the
    events for a figure of events."""
    start, end = result.window
    part = traffic.between(start, end)
    measure = MEASURES.get(result.figure)
    if measure is not None and measure.level == "event":
        return _events_behind(part, measure)
    frame = part.requests[["request_id", "user_id", "at", "arm", "release_id", "surface", "device"]]
    frame = frame.assign(at=pd.to_datetime(frame["at"], unit="us", utc=True))
    if measure is not None:
        top, bottom = measure.columns(part)
        if measure.level == "shown":
            request = part.shown["request"].to_numpy()
            top, bottom = (
                np.bincount(request, weights=np.nan_to_num(x), minlength=len(frame))
                for x in (top, bottom)
            )
        frame = frame.assign(numerator=top, denominator=bottom)
    return frame.tail(ROWS)


def _events_behind(part: Traffic, measure: Measure) -> pd.DataFrame:
    top, bottom = measure.columns(part)
    frame = part.events[["user_id", "item_id", "event_type", "value", "at"]]
    frame = frame.assign(
        at=pd.to_datetime(frame["at"].to_numpy(dtype=np.int64), unit="us", utc=True),
        numerator=top,
        denominator=bottom,
    )
    return frame.loc[np.nan_to_num(top) > 0].tail(ROWS)
