"""One check of the board: load traffic, judge, act, and write the morning page and the metrics."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.act import act
from flows.runtime.configuration import RunConfig
from flows.watch.canary import end_canary
from flows.watch.operations import operation_figures
from flows.watch.page import write_morning_page
from flows.watch.traffic import arms_of, champion_rows, live_traffic
from monitoring.board.config import MILD, GuardrailFile
from monitoring.board.judge import Result, judge_board
from monitoring.figures import Figure
from monitoring.prometheus import metrics_text, write_metrics
from monitoring.traffic.cuts import overview
from shortlist.config import Settings
from shortlist.experiment import running_experiment
from shortlist.files.plain_json import finite
from shortlist.releases.release import Release

if TYPE_CHECKING:
    from flows.monitor import MonitoredLists

METRICS = "metrics.prom"


def check_and_act(
    settings: Settings,
    config: RunConfig,
    release: Release,
    watched: "MonitoredLists",
    written: dict[str, Any],
    *,
    file: GuardrailFile,
    out: Path,
) -> dict[str, Any]:
    """Judge the traffic of all releases and arms, execute the decisions, and write the page.

    Args:
        written: result of `monitoring.report.write_reports`.
        out: folder of the report.

    Returns:
        {"board", "alarms": open alarms, "canary": what happened to a canary, "figures", "index"}.
    """
    now = config.clock(settings).now()
    traffic = live_traffic(
        settings,
        watched.events,
        catalogue=watched.shared.catalogue,
        target_events=config.data.target_events,
        until=now,
        delays=file.delays,
        list_size=config.evaluate.list_size,
    )
    experiment = running_experiment(settings)
    mine = champion_rows(traffic, release.release_id, experiment)
    plain = {name: _figure(figure) for name, figure in written["figures"].items()}
    plain |= operation_figures(settings, release, watched.events, now=now)
    board = judge_board(
        file,
        traffic,
        figures=plain,
        arms=None if experiment is None else arms_of(experiment),
        champion_rows=mine,
    )
    alarms = act(settings, board, cool_down_hours=file.board.cool_down_hours)
    canary = None
    if experiment is not None and running_experiment(settings) is not None:
        canary = end_canary(settings, experiment, traffic, board, now=now)
    if canary is not None:
        print(f"monitor: {canary}")
    main = traffic.pick(mine)
    figures = overview(main)
    values = {name: figure.current for name, figure in plain.items() if name not in figures}
    write_metrics(
        settings.reports / METRICS,
        metrics_text(
            figures | values, [figure.to_json() for figure in board.results], at=int(time.time())
        ),
    )
    index = write_morning_page(
        settings, file, traffic, main, board, alarms, canary=canary, release=release, out=out
    )
    return {
        "board": board,
        "alarms": alarms,
        "canary": canary,
        "figures": {
            name: finite(asdict(Figure(figure.value, low=figure.low, high=figure.high)))
            for name, figure in figures.items()
        },
        "index": index,
    }


def verdict_of(result: Result) -> str:
    """Return `pass`, `warn` or `hold` for one guardrail, as shown by the command."""
    if result.level == "alarm":
        return "warn" if result.action in MILD else "hold"
    return "warn" if result.level == "missing" else "pass"


def _figure(values: dict[str, float | None]) -> Figure:
    return Figure(*(float("nan") if v is None else v for v in values.values()))
