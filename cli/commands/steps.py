"""The steps of `shortlist run`, each alone. All take the run's TOML file; those that work on a run
take `--run`, and without it the newest run of that file.

ingest, validate, featurize, train (starts the run), evaluate, package, promote (ends it)
"""

from pathlib import Path
from typing import Annotated

import typer

from cli import show
from cli.commands.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    RunOption,
    VerboseOption,
)
from cli.output import following

app = typer.Typer()

RunConfigOption = Annotated[
    Path | None, typer.Argument(help="The run's TOML file; default: that of the newest run.")
]


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
    config: ConfigOption = DEFAULT_CONFIG,
    batch: Annotated[
        str | None, typer.Option(help="A batch that `shortlist ingest` named; default: the newest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a batch; bad rows go to quarantine, the rest into the lake."""
    from flows.runtime.configuration import load_run_config
    from shortlist.config import Settings
    from shortlist.lake import newest_staged, open_staged

    run_config = load_run_config(config)
    root = Settings().lake
    batch_id = newest_staged(root) if batch is None else open_staged(root, batch)[1].batch_id
    from flows.validate import validate_flow  # here: a wrong batch is refused without this import

    with show.only_json(as_json):
        result = validate_flow(batch_id, run_config.validation, clock=run_config.data.clock)
    show.result(result, as_json=as_json)


@app.command()
def featurize(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Bring every feature up to now, posted events included; the source isn't read."""
    from flows.refresh import refresh
    from flows.runtime.configuration import load_run_config
    from shortlist.config import Settings

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = refresh(Settings(), run_config, source=False)
    show.result(result, as_json=as_json)


@app.command()
def train(
    config: RunConfigOption = None,
    run: Annotated[
        str | None, typer.Option(help="Train this run again; default: start a run.")
    ] = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a run: freeze its windows, catalogue, lake and features. Then train all sources and
    rankers and let validation choose the chain.
    """
    with following("train", as_json=as_json, verbose=verbose) as follow:
        from flows.runtime.configuration import load_run_config
        from flows.runtime.runs import Run
        from flows.runtime.steps import Steps
        from flows.train import train_flow
        from shortlist.config import Settings
        from shortlist.home_lock import home_lock

        settings = Settings()
        with home_lock(settings, "train", what="shortlist train"):
            if run is None:
                started = Run.start(settings, load_run_config(config or DEFAULT_CONFIG))
            else:
                started = Run.open(settings, run, of=_name(config))
                started.freeze(settings)
            follow.expect(started.config.name)
            result = Steps(started).redo("train", train_flow, started.run_id)
    show.result(result | {"run_id": started.run_id}, as_json=as_json)


@app.command()
def evaluate(
    config: RunConfigOption = None, run: RunOption = None, as_json: JsonOption = False
) -> None:
    """Judge a run's chain on the test window beside its sources, the baselines and the champion."""
    from flows.evaluate import evaluate_flow
    from flows.runtime.runs import Run
    from flows.runtime.steps import Steps
    from shortlist.config import Settings

    opened = Run.open(Settings(), run, of=_name(config))
    with show.only_json(as_json):
        result = Steps(opened).redo("evaluate", evaluate_flow, opened.run_id)
    show.result(result, as_json=as_json, table=show.quality)


@app.command()
def package(
    config: RunConfigOption = None,
    run: RunOption = None,
    bento: Annotated[bool, typer.Option(help="Also build a Bento of the release.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Publish a run as a release; it does not serve before `shortlist promote`."""
    from flows.package import package_flow
    from flows.runtime.runs import Run
    from flows.runtime.steps import Steps
    from shortlist.config import Settings

    opened = Run.open(Settings(), run, of=_name(config))
    with show.only_json(as_json):
        result = Steps(opened).redo("package", package_flow, opened.run_id, bento=bento)
    show.result(result, as_json=as_json)


@app.command()
def promote(
    config: RunConfigOption = None,
    run: RunOption = None,
    release: Annotated[
        str | None, typer.Option(help="A release's id instead of a run's newest release.")
    ] = None,
    gates: Annotated[Path | None, typer.Option(help="Gates as TOML; default: the run's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a run's release serve if every gate holds; the run has then ended. Exits with 1 and
    changes nothing otherwise.
    """
    from flows.promote import end_run_of, find_release, promote_flow
    from shortlist.config import Settings

    settings = Settings()
    found = find_release(settings, release, run_id=run, of=_name(config))
    with show.only_json(as_json):
        result = promote_flow(found.release_id, gates=str(gates or found.gates))
    show.result(result, as_json=as_json, table=show.gates)
    if not result["promoted"]:
        raise typer.Exit(1)
    end_run_of(settings, found.release_id)


def _name(config: Path | None) -> str | None:
    """The name that a configuration gives its runs."""
    from flows.runtime.configuration import load_run_config

    return None if config is None else load_run_config(config).name
