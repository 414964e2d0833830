"""Monitor: judges live traffic by the board of guardrails, acts on what is broken, and reports.

Figures of behaviour come from the serving log joined with later events (monitoring/traffic). Drift
and list quality are compared with the lists that the evaluation made for the test window. The
result is the morning page, `reports/<time>/index.html`.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import flow

from flows.releases.served_releases import most_served, newest_day, response_times
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run, RunError
from flows.watch.canary import experiment_report
from flows.watch.check import check_and_act, verdict_of
from flows.watch.traffic import arms_of, live_traffic
from monitoring.board.config import GuardrailFile, load_board
from monitoring.board.judge import judge_board
from monitoring.report import write_reports
from monitoring.windows import MonitorError, SharedData, Window
from shortlist import columns as c
from shortlist.behaviour.counting import SHOWN
from shortlist.config import ConfigError, Settings
from shortlist.contracts import microseconds, sort_by_time
from shortlist.datasets.service.service_log import load_posted_events, load_serving_log
from shortlist.experiment import running_experiment
from shortlist.files.plain_json import write_json
from shortlist.forgetting.hashed_users import with_ids
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake
from shortlist.releases.release import Release, ReleaseStore
from shortlist.splits import HORIZON

POINTER = "latest.json"
REFERENCE = ("reference", "serving_log.parquet")


@flow(name="monitor", log_prints=True)
def monitor_flow(run_id: str | None = None, guardrails: str | None = None) -> dict[str, Any]:
    """Write the reports of one run's release, judge it by the guardrails, and act.

    No verdict raises an error, not even `hold`: the actions are executed here (flows/act.py).

    Args:
        run_id: id of a run. None: the run of the champion's release while an experiment runs,
            otherwise of the release that answered most requests in the last 24 h of the log.
        guardrails: path of a TOML file; None: the one in the run's config.

    Raises:
        MonitorError: the serving log has no response of the release, or of any stored release.
    """
    settings = Settings()
    store = ReleaseStore(settings.releases)
    times = response_times(settings.serving_log)
    if run_id is None:
        release_id = _champion(settings, store) or most_served(times, set(store.ids()))
        if release_id is None:
            raise MonitorError(
                f"{settings.serving_log}: no response of a release that is still stored; send"
                " traffic with `shortlist replay` or `shortlist serve`"
            )
        release = store.open(release_id)
        run = Run.open(settings, release.about["run_id"])
    else:
        run = Run.open(settings, run_id)
        release = store.open(run.read("release.json", made_by="package")["release_id"])
    file = load_board(Path(guardrails) if guardrails else run.config.monitor.guardrails)
    recent = newest_day(times)
    print(f"monitor: release {release.release_id}; answers of the log's last day: {recent}")
    since = log_start(times.get(release.release_id), run.config)
    watched = watched_windows(settings, run, release, since=since)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{release.release_id.split('-')[-1]}"
    out = settings.reports / stamp
    print(
        f"monitor: {pc.count_distinct(watched.current.log.column(c.REQUEST_ID)).as_py():,} requests"
        f" against {pc.count_distinct(watched.reference.log.column(c.REQUEST_ID)).as_py():,} of the"
        " test window"
    )
    written = write_reports(
        watched.current,
        watched.reference,
        shared=watched.shared,
        out=out,
        workspace=settings.reports / "workspace",
        about={
            "release": release.release_id,
            "dataset": run.config.name,
            "current": span(watched.current.log),
            "reference": span(watched.reference.log),
        },
        seed=run.config.seed,
    )
    checked = check_and_act(settings, run.config, release, watched, written, file=file, out=out)
    board, index = checked["board"], checked["index"]
    rows = [result.to_json() | {"verdict": verdict_of(result)} for result in board.results]
    point_at(
        settings,
        {
            "verdict": board.verdict,
            "index": str(index),
            "run_id": run.run_id,
            "release_id": release.release_id,
        },
    )
    print(f"monitor: {board.verdict}; {index} ({written['seconds']} s)")
    if board.cause is not None:
        print(f"monitor: probable cause: {board.cause.family}, {board.cause.meaning}")
    return {
        "verdict": board.verdict,
        "cause": None if board.cause is None else board.cause.model_dump(),
        "guardrails": rows,
        "alarms": checked["alarms"],
        "canary": checked["canary"],
        "report": str(index),
        "figures": written["figures"] | checked["figures"],
        "release_id": release.release_id,
        "last_day": recent,
    }


def _champion(settings: Settings, store: ReleaseStore) -> str | None:
    """Return the release of the champion's arm; None without an experiment."""
    experiment = running_experiment(settings)
    if experiment is None:
        return None
    return experiment.config.of(experiment.config.champion).release or store.current_id()


def report_experiment(settings: Settings, file: GuardrailFile) -> dict[str, Any]:
    """Compare the arms of the running experiment; nothing is executed.

    Raises:
        ConfigError: no experiment runs.
    """
    experiment = running_experiment(settings)
    if experiment is None:
        raise ConfigError("no experiment runs; start one with `shortlist experiment start FILE`")
    release = ReleaseStore(settings.releases).open()
    config = Run.open(settings, release.about["run_id"]).config
    traffic = live_traffic(
        settings,
        known_events(settings, since=0),
        catalogue=Catalogue.load(release.file("items.parquet")),
        target_events=config.data.target_events,
        until=config.clock(settings).now(),
        delays=file.delays,
        list_size=config.evaluate.list_size,
    )
    rows = tuple(row for row in file.guardrail if row.compare in ("champion", "holdout"))
    compared = file.model_copy(update={"guardrail": rows})
    board = judge_board(compared, traffic, arms=arms_of(experiment))
    return experiment_report(experiment, traffic, board, file)


@dataclass(frozen=True)
class MonitoredLists:
    """The served lists (`current`), the lists of the test window (`reference`), and shared data."""

    current: Window
    reference: Window
    shared: SharedData
    events: pa.Table
    """All known events, each once: contract INTERACTIONS."""


def log_start(times: np.ndarray | None, config: RunConfig) -> int | None:
    """Return the time in microseconds at which the reported part of the serving log starts.

    This part is the last `monitor.days` days. None stands for the whole log, which is always
    reported on the replay clock.

    Args:
        times: times of the release's responses in microseconds; None if there are none.
    """
    if times is None or config.data.clock == "replay":
        return None
    return int(times.max()) - config.monitor.days * c.MICROSECONDS_PER_DAY


def watched_windows(
    settings: Settings, run: Run, release: Release, *, since: int | None = None
) -> MonitoredLists:
    """Return the release's traffic and its reference window, each with the events until its end.

    Args:
        since: microseconds; earlier responses are left out. None: no lower limit.

    Raises:
        MonitorError: the serving log has no response of this release.
    """
    log = load_serving_log(settings.serving_log, since=since, release_id=release.release_id)
    log = single_answers(log)
    if log.num_rows == 0:
        raise MonitorError(
            f"{settings.serving_log}: no response of release {release.release_id}; send it traffic"
            " with `shortlist replay` or `shortlist serve`"
        )
    config = run.config
    edges = release.about["windows"]
    catalogue = Catalogue.load(release.file("items.parquet"))
    ends = pc.min_max(log.column(c.EVENT_TIMESTAMP).cast(pa.int64())).as_py()
    end = int(ends["max"]) + HORIZON
    events = known_events(settings, since=int(ends["min"]))
    users = Lake(settings.lake).users()
    time_ = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
    replayed = run.path / "replay.json"
    latency = json.loads(replayed.read_text())["latency_ms"] if replayed.is_file() else []
    before = events.filter(pa.array(time_ < edges["test"][0]))
    targets = pa.array(list(config.data.target_events))
    before = before.filter(pc.is_in(before.column(c.EVENT_TYPE), value_set=targets))
    return MonitoredLists(
        current=Window("current", log, events.filter(pa.array(time_ < end)), np.array(latency)),
        reference=Window(
            "reference",
            with_ids(
                pq.read_table(release.file(*REFERENCE)),
                settings.forgotten,
                users.column(c.USER_ID).to_pylist(),
            ),
            events.filter(pa.array(time_ < edges["test"][1])),
        ),
        shared=SharedData(
            catalogue=catalogue,
            item_counts=np.bincount(
                catalogue.vocab.encode(before.column(c.ITEM_ID).to_pylist()),
                minlength=catalogue.num_items + 1,
            ),
            feature_names=release.about["ranking_schema"]["names"],
            target_events=config.data.target_events,
            users=users,
            k=config.evaluate.list_size,
        ),
        events=events,
    )


def single_answers(log: pa.Table) -> pa.Table:
    """Keep the last response for each (user, time). A repeated replay sends requests twice."""
    keys = [c.USER_ID, c.EVENT_TIMESTAMP]
    # With several threads, "last" would depend on the order in which threads finish.
    grouped = log.select([*keys, c.REQUEST_ID]).group_by(keys, use_threads=False)
    last = grouped.aggregate([(c.REQUEST_ID, "last")]).column(f"{c.REQUEST_ID}_last")
    return log.filter(pc.is_in(log.column(c.REQUEST_ID), value_set=last))


def known_events(settings: Settings, *, since: int) -> pa.Table:
    """Return the lake's events and posted events, each event_id once.

    If both have an event, the posted row is kept: it has the id of the request that showed the
    item.

    Args:
        since: microseconds, time of the first response; only later posted events are read.
    """
    lake = Lake(settings.lake).interactions()
    # Leave out impressions of the service, because served lists are read from the serving log.
    lake = lake.filter(pc.not_equal(lake.column(c.SOURCE), SHOWN))
    if not settings.events.is_dir():
        return lake
    now = time.time_ns() // 1_000
    posted = load_posted_events(settings, now=now, since=since).interactions
    again = pc.is_in(lake.column(c.EVENT_ID), value_set=posted.column(c.EVENT_ID))
    return sort_by_time(pa.concat_tables([lake.filter(pc.invert(again)), posted]))


def span(log: pa.Table) -> str:
    """Format the first and last day of a log."""
    ends = pc.min_max(log.column(c.EVENT_TIMESTAMP)).as_py()
    return f"{ends['min']:%Y-%m-%d} to {ends['max']:%Y-%m-%d}"


def point_at(settings: Settings, written: dict[str, Any]) -> None:
    """Make latest.json in the reports folder name the newest page, by an atomic replace."""
    keys = ("verdict", "run_id", "release_id")
    content = {"report": written["index"], "made_at": datetime.now(UTC).isoformat()}
    write_json(settings.reports / POINTER, content | {key: written[key] for key in keys})


def latest_report() -> dict[str, Any]:
    """Read the pointer to the newest report.

    Returns:
        {"report": path of the index page, "verdict", "run_id", "release_id", "made_at"}.

    Raises:
        RunError: there is no report yet.
    """
    pointer = Settings().reports / POINTER
    try:
        return json.loads(pointer.read_text())
    except FileNotFoundError:
        raise RunError(f"{pointer}: no report yet; run `shortlist monitor`") from None
