"""`shortlist experiment`: canaries and comparisons of releases on live users."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import JsonOption

app = typer.Typer()
experiment = typer.Typer(
    no_args_is_help=True, help="Start, report and stop an experiment with releases as arms."
)
app.add_typer(experiment, name="experiment")


@experiment.command()
def start(
    file: Annotated[Path, typer.Argument(help="TOML file with the arms (docs/monitoring.md).")],
    as_json: JsonOption = False,
) -> None:
    """Split the users by hash over the arms of a file; running services follow within seconds."""
    from flows.watch.canary import start_experiment
    from shortlist.config import Settings, load_toml
    from shortlist.experiment import ExperimentConfig

    config = load_toml(file, ExperimentConfig)
    settings = Settings()
    started = start_experiment(settings, config, now=_now(settings))
    show.result(started.model_dump(mode="json"), as_json=as_json)


@experiment.command()
def report(
    guardrails: Annotated[
        Path, typer.Option(help="TOML file of the board, for delays and levels.")
    ] = Path("configs/guardrails.toml"),
    as_json: JsonOption = False,
) -> None:
    """Compare the arms of the running experiment: sample ratio, CUPED, sequential intervals.

    Exits with 1 if the users aren't split as configured.
    """
    from flows.monitor import report_experiment
    from monitoring.board.config import load_board
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = report_experiment(Settings(), load_board(guardrails))
    show.result(result, as_json=as_json, table=experiment_table)
    if not result["sample_ratio_ok"]:
        raise typer.Exit(1)


@experiment.command()
def stop(
    reason: Annotated[str, typer.Option(help="Why; the audit log stores it.")] = "not said",
    as_json: JsonOption = False,
) -> None:
    """End the running experiment; all users get the promoted release."""
    from flows.watch.canary import stop_experiment
    from shortlist.config import Settings

    settings = Settings()
    ended = stop_experiment(settings, now=_now(settings), reason=reason)
    show.result(ended.model_dump(mode="json"), as_json=as_json)


def _now(settings: Any) -> int:
    """Return the home's time in microseconds."""
    from shortlist.feature_store import home_clock
    from shortlist.releases.release import ReleaseStore

    about = ReleaseStore(settings.releases).open().about
    return home_clock(settings, about["clock"], otherwise=about["data_end"]).now()


def experiment_table(content: dict[str, Any]) -> None:
    """Print one row per figure; intervals hold at every look."""
    from rich.table import Table

    title = f"{content['experiment']}, since {content['started_at']}"
    table = Table(title=title, title_justify="left")
    for column in ("figure", "against", "challenger", "control", "difference", "users"):
        table.add_column(column, justify="left" if column in ("figure", "against") else "right")
    for row in content["figures"]:
        if row["challenger"] is None or row["challenger"] != row["challenger"]:
            continue
        table.add_row(
            row["title"],
            row["control"],
            f"{row['challenger']:.4g}",
            f"{row['champion']:.4g}",
            f"{row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]",
            " / ".join(str(n) for n in row["users"]),
        )
    show.terminal().print(table)
    ok = "as configured" if content["sample_ratio_ok"] else "NOT as configured"
    show.terminal().print(f"users are split {ok} (p = {content['sample_ratio_p']:.2g})")
    for guardrail in content["guardrails"]:
        if guardrail["level"] == "alarm":
            show.terminal().print(f"broken: {guardrail['name']}: {guardrail['reason']}")
