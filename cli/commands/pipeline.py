"""The pipeline's commands: the whole run, and each step alone."""

from pathlib import Path
from typing import Annotated

import typer

from cli import show
from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption, RunOption

app = typer.Typer()


@app.command("run")
def run_command(
    config: ConfigOption = DEFAULT_CONFIG,
    monitor: Annotated[
        bool,
        typer.Option(help="Replay what a demo has held back through the real service and report."),
    ] = True,
    resume: Annotated[
        str | None,
        typer.Option(help="A run that didn't end: go on after its last step, with its own config."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole pipeline: from the raw source to a served, monitored release."""
    from flows.run import run_flow
    from flows.runtime.configuration import load_run_config
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    if resume is None:
        run_config = load_run_config(config)
    else:
        run_config = Run.open(Settings(), resume).config
    with show.only_json(as_json):
        summary = run_flow(run_config, monitor=monitor, resume=resume)
    show.result(summary, as_json=as_json, table=show.summary)
    if not summary["promoted"]:
        raise typer.Exit(1)


@app.command()
def ingest(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the source, map it to the contracts, and lay the batch beside the lake."""
    from flows.ingest import ingest_flow
    from flows.runtime.configuration import load_run_config

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = ingest_flow(run_config.data)
    show.result(result, as_json=as_json)


@app.command()
def validate(
    batch_id: Annotated[str, typer.Argument(help="The batch that `shortlist ingest` named.")],
    config: Annotated[Path, typer.Option(help="The run's TOML file.")] = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check a batch; bad rows go to quarantine, the rest into the lake."""
    from shortlist.config import Settings
    from shortlist.lake import Lake

    Lake(Settings().lake).require_incoming(batch_id)  # a slip of the pen is not worth a server
    from flows.runtime.configuration import load_run_config
    from flows.validate import validate_flow

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = validate_flow(batch_id, run_config.validation, clock=run_config.data.clock)
    show.result(result, as_json=as_json)


@app.command()
def refresh(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Take in what was posted and shown, and bring every feature up to now; nothing is trained."""
    from flows.refresh import refresh_flow
    from flows.runtime.configuration import load_run_config

    load_run_config(config)  # a mistake in it is not worth a server
    with show.only_json(as_json):
        result = refresh_flow(str(config))
    show.result(result, as_json=as_json)


@app.command()
def featurize(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Bring every feature up to now as `refresh` does, then start a run: freeze its windows,
    catalogue and lake.
    """
    from flows.refresh import refresh
    from flows.runtime.configuration import load_run_config
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = refresh(Settings(), run_config)
        run = Run.start(Settings(), run_config)
    show.result(result | {"run_id": run.run_id}, as_json=as_json)


@app.command()
def train(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Train all sources and rankers of a run and let validation choose the chain."""
    from flows.runtime.runs import Run
    from flows.train import train_flow
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = train_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json)


@app.command()
def evaluate(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Judge a run's chain on the test window beside its sources, the baselines and the champion."""
    from flows.evaluate import evaluate_flow
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = evaluate_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json, table=show.quality)


@app.command()
def package(
    run: RunOption = None,
    bento: Annotated[bool, typer.Option(help="Also build a Bento of the release.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Publish a run as a release; it does not serve before `shortlist promote`."""
    from flows.package import package_flow
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = package_flow(Run.open(Settings(), run).run_id, bento=bento)
    show.result(result, as_json=as_json)


@app.command()
def monitor(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Report on the serving log: drift, quality, diversity, engagement, guardrail verdicts."""
    from flows.monitor import monitor_flow

    with show.only_json(as_json):
        result = monitor_flow(run)
    show.result(result, as_json=as_json, table=show.guardrails)
    if result["verdict"] == "hold":
        raise typer.Exit(1)


@app.command()
def replay(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Send what is held back to the real service, with what people then really did."""
    from flows.replay import replay_flow
    from flows.runtime.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = replay_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json)
