"""Commands for the single steps of `shortlist run`: ingest, validate, featurize, train, evaluate,
package, promote.

All accept the run's TOML file. `train` starts a run and `promote` ends it. `train`, `evaluate`,
`package` and `promote` accept `--run`. Without it, `train` starts a new run and the others use the
newest run of the TOML file.
"""

from pathlib import Path
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
from cli.show_compare import compared_runs
from cli.show_evaluation import evaluation
from cli.show_off_policy import off_policy as show_off_policy

app = typer.Typer()

RunConfigOption = Annotated[
    Path | None, typer.Argument(help="The run's TOML file; default: the file of the newest run.")
]


@app.command()
def ingest(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the data source, map it to the standard columns, and store the batch for validation."""
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
        str | None,
        typer.Option(help="Id of a batch, as `shortlist ingest` prints it; default: the newest."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Validate an ingested batch: bad rows go to quarantine, good rows to the lake.

    The lake stores all events, items and users.
    """
    from flows.runtime.configuration import load_run_config
    from shortlist.config import Settings
    from shortlist.lake import newest_staged, open_staged

    run_config = load_run_config(config)
    root = Settings().lake
    batch_id = newest_staged(root) if batch is None else open_staged(root, batch)[1].batch_id
    from flows.validate import validate_flow  # late: a wrong batch id fails before this slow import

    with show.only_json(as_json):
        result = validate_flow(batch_id, run_config.validation, clock=run_config.data.clock)
    show.result(result, as_json=as_json)


@app.command()
def featurize(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Update all features to now, including events posted to the service.

    The data source isn't read.
    """
    from shortlist.config import Settings
    from shortlist.home.low_priority import yielding_to_service

    settings = Settings()
    with yielding_to_service(settings):
        from flows.refresh import refresh
        from flows.runtime.configuration import load_run_config

        run_config = load_run_config(config)
        with show.only_json(as_json):
            result = refresh(settings, run_config, source=False)
    show.result(result, as_json=as_json)


@app.command()
def train(
    config: RunConfigOption = None,
    run: Annotated[
        str | None, typer.Option(help="Id of a run to train again; default: start a new run.")
    ] = None,
    incremental: IncrementalOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a run: train its sources and rankers, and choose the chain on the validation window.

    The start freezes the run's time windows, catalogue, lake version and features. The chain is the
    combination of sources and ranker that answers requests. With --incremental the sources of the
    serving release learn from the events after it, and everything else stays as chosen.
    """
    if incremental and run is not None:
        raise typer.BadParameter("--incremental starts a new run; leave out --run")
    with shown_steps("train", as_json=as_json, verbose=verbose) as follow:
        from flows.runtime.base import NothingNew
        from flows.runtime.configuration import load_run_config
        from flows.runtime.runs import Run
        from flows.runtime.steps import Steps
        from flows.train import train_flow
        from shortlist.config import Settings
        from shortlist.home.home_lock import home_lock

        settings = Settings()
        with home_lock(settings, "train", what="shortlist train"):
            if run is None:
                config = config or DEFAULT_CONFIG
                started = Run.start(settings, load_run_config(config), incremental=incremental)
            else:
                started = Run.open(settings, run, of=_name(config))
                started.freeze(settings)
            follow.expect(started.config.name)
            try:
                result = Steps(started).redo("train", train_flow, started.run_id)
            except NothingNew:
                if run is None:
                    started.discard(settings)
                raise
    show.result(result | {"run_id": started.run_id}, as_json=as_json)


@app.command()
def evaluate(
    config: RunConfigOption = None,
    run: RunOption = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Id of another run: show how the run differs from it."),
    ] = None,
    off_policy: Annotated[
        bool,
        typer.Option(
            "--off-policy",
            help="Only estimate what the lists would have got, from explored lists in the serving"
            " log. The argument is then a release's id.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a run on the test window: its chain, its sources, the baselines and the champion.

    The champion is the release that serves now. With `--compare`, two evaluated runs are compared
    on the same requests by their stored figures.
    """
    if off_policy:
        _evaluate_off_policy(None if config is None else str(config), run, as_json=as_json)
        return
    from flows.runtime.runs import Run
    from flows.runtime.steps import Steps
    from shortlist.config import Settings

    if compare is not None:
        from flows.evaluation.compare import compare_runs

        compared = compare_runs(Settings(), run, compare, of=_name(config))
        show.result(compared, as_json=as_json, table=compared_runs)
        return
    from flows.evaluate import evaluate_flow

    opened = Run.open(Settings(), run, of=_name(config))
    with show.only_json(as_json):
        result = Steps(opened).redo("evaluate", evaluate_flow, opened.run_id)
    show.result(result, as_json=as_json, table=evaluation)


def _evaluate_off_policy(release_id: str | None, run_id: str | None, *, as_json: bool) -> None:
    """Estimate what a release's lists would have got; exit with 1 if the log doesn't support it."""
    from flows.judge_off_policy import judge_off_policy_flow

    if release_id is not None and run_id is not None:
        raise typer.BadParameter("both a release and --run are given; want only one of them")
    with show.only_json(as_json):
        result = judge_off_policy_flow(release_id, run_id)
    show.result(result, as_json=as_json, table=show_off_policy)
    if result["refused"] is not None:
        raise typer.Exit(1)


@app.command()
def package(
    config: RunConfigOption = None,
    run: RunOption = None,
    bento: Annotated[
        bool, typer.Option(help="Also build a Bento (BentoML's package) of the release.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Publish a run's models as a release. `shortlist promote` then makes it serve."""
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
        str | None, typer.Option(help="A release's id; default: the newest release of the run.")
    ] = None,
    gates: Annotated[
        Path | None, typer.Option(help="TOML file with the gates; default: the run's gates.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote also if a gate fails; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why you force it; the audit log stores it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a run's release serve if it passes every gate, which ends the run.

    A gate is a condition for promotion. If the release fails one, nothing changes and the command
    exits with 1.
    """
    from flows.operations.endings import result_of
    from flows.promote import end_run_of, find_release, promote_flow
    from shortlist.config import Settings

    if force and not reason:
        raise typer.BadParameter(
            "--force promotes a release that fails a gate; say why with --reason, for the audit log"
        )

    settings = Settings()
    found = find_release(settings, release, run_id=run, of=_name(config))
    with show.only_json(as_json):
        result = result_of(
            promote_flow,
            found.release_id,
            gates=str(gates or found.gates),
            force_reason=reason if force else None,
        )
    show.result(result, as_json=as_json, table=show.gates)
    if not result["promoted"]:
        raise typer.Exit(1)
    end_run_of(settings, found.release_id)


def _name(config: Path | None) -> str | None:
    """Return the name of the configuration's runs; None without a configuration."""
    from flows.runtime.configuration import load_run_config

    return None if config is None else load_run_config(config).name
