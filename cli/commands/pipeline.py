"""Commands that a deployment repeats: run, refresh, backfill, monitor, and the replay of a demo.

A demo holds back the newest events of an old data set; the replay sends them to the service.
"""

from datetime import datetime
from typing import Annotated

import typer

from cli import show
from cli.commands.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    IncrementalOption,
    JsonOption,
    RunOption,
    VerboseOption,
)
from cli.output import shown_steps

app = typer.Typer()


@app.command("run")
def run_command(
    config: ConfigOption = DEFAULT_CONFIG,
    monitor: Annotated[
        bool,
        typer.Option(help="Replay a demo's held-back events through a real service, and report."),
    ] = True,
    incremental: IncrementalOption = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Id of an unfinished run: continue after its last step, as configured."),
    ] = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline, from the raw data to a release that serves and is monitored.

    A release is a folder with all models of a run. Exits with 1 if it was not promoted.
    """
    with shown_steps("run", as_json=as_json, verbose=verbose) as follow:
        from flows.operations.endings import result_of
        from flows.run import run_flow
        from flows.runtime.configuration import load_run_config
        from flows.runtime.runs import Run
        from shortlist.config import Settings

        run_config = (
            load_run_config(config) if resume is None else Run.open(Settings(), resume).config
        )
        follow.expect(run_config.name)
        summary = result_of(
            run_flow, run_config, monitor=monitor, resume=resume, incremental=incremental
        )
    if "nothing_new" in summary:
        show.result(summary, as_json=as_json)
        return
    show.result(summary, as_json=as_json, table=show.summary)
    if not summary["promoted"]:
        raise typer.Exit(1)


@app.command()
def refresh(
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ingest new events and the lists that users were shown, and update all features.

    Nothing is trained.
    """
    from shortlist.config import Settings
    from shortlist.home.low_priority import yielding_to_service

    # Entered before the slow imports, which use the processor for seconds.
    low = yielding_to_service(Settings())
    with low, shown_steps("refresh", as_json=as_json, verbose=verbose) as follow:
        from flows.refresh import refresh_flow
        from flows.runtime.configuration import load_run_config
        from flows.runtime.progress import timed

        follow.expect(load_run_config(config).name)
        result, _ = timed("refresh", refresh_flow, str(config))
    show.result(result, as_json=as_json)


@app.command()
def backfill(
    config: ConfigOption,
    start: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")
    ],
    end: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Day after the last one, UTC.")
    ],
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read the source again for a range of dates, add events that the lake lacks, update features.

    The lake stores all validated events. Events that it has are not added twice.
    """
    with shown_steps("backfill", as_json=as_json, verbose=verbose):
        from flows.backfill import backfill_flow
        from flows.runtime.progress import timed

        days = {"start": start.date(), "end": end.date()}
        result, _ = timed("backfill", backfill_flow, str(config), **days)
    show.result(result, as_json=as_json)


@app.command()
def monitor(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Report on the serving log (all responses): drift, quality, diversity, engagement, guardrails.

    A guardrail is a condition that live traffic must meet. Exits with 1 if the verdict is "hold".
    """
    from flows.monitor import monitor_flow

    with show.only_json(as_json):
        result = monitor_flow(run)
    show.result(result, as_json=as_json, table=show.guardrails)
    if result["verdict"] == "hold":
        raise typer.Exit(1)


@app.command()
def replay(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Send a demo's held-back events to a real service, as requests and as posted events."""
    from flows.replay import replay_flow
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = replay_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json)
