"""`shortlist simulate`: simulated users react to recommenders over many days.

Each recommender that is compared is an arm.
"""

import sys
from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import JsonOption

app = typer.Typer()
COLUMNS = (
    "click_through",
    "satisfaction",
    "retention",
    "revenue",
    "watch_seconds",
    "regret",
    "effective_items",
)


@app.command()
def simulate(
    preset: Annotated[
        str,
        typer.Option(
            help="The simulated world: tiny, village, shop, grocery, video, large, or a TOML file."
        ),
    ] = "village",
    days: Annotated[
        int, typer.Option(min=1, help="Number of days on which the arms fill the pages.")
    ] = 14,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms to compare, separated by commas: logging, popularity, item_knn, ease,"
            " content, oracle, oracle-clicks. Chains: clicks and value (in process), chain (over"
            " HTTP). Arms that learn accept +mmr, and in process +explore. Default:"
            " popularity,item_knn,oracle and value (in process) or chain (over HTTP).",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Seed of the world; default: the preset's."),
    ] = None,
    retrain_days: Annotated[
        int, typer.Option(min=1, help="Number of days between two trainings of an arm.")
    ] = 7,
    in_process: Annotated[
        bool,
        typer.Option("--in-process", help="Call the arms directly, without HTTP; much faster."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate users who react to the lists of recommenders (arms), and compare the arms.

    The arm `oracle` is an upper bound: it knows the users' tastes. Finished days are stored, so the
    same command continues after an interruption.
    """
    from flows.closed_loop.arms import DEFAULT_IN_PROCESS, DEFAULT_OVER_HTTP, parse_arms
    from flows.closed_loop.setting import Schedule
    from flows.simulate import simulate as run

    usual = DEFAULT_IN_PROCESS if in_process else DEFAULT_OVER_HTTP
    chosen = parse_arms(usual if arms is None else arms)
    # In process, shadow days log features to train the value ranker; the logging policy still fills
    # the pages. Over HTTP, the pipeline trains its ranker on the lake and needs no shadow days.
    warm = {} if in_process else {"warm_days": 14, "shadow_days": 0}
    schedule = Schedule(retrain_days=retrain_days, **warm)
    with show.only_json(as_json):
        result = run(
            preset, days=days, arms=chosen, seed=seed, schedule=schedule, in_process=in_process
        )
    show.result(result, as_json=as_json, table=arms_table)


def arms_table(content: dict[str, Any]) -> None:
    """Print one row per arm, in the given order: the mean of each figure and half the width of its
    95% bootstrap interval over users.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{content['preset']}: {content['days']} days, {content['users']:,} users,"
        f" {content['items']:,} items",
        title_justify="left",
    )
    table.add_column("arm")
    for name in COLUMNS:
        table.add_column(name.replace("_", " "), justify="right")
    for name, arm in content["arms"].items():
        cells = [arm["summary"][column] for column in COLUMNS]
        table.add_row(name, *(f"{v['mean']:.3g} ±{(v['high'] - v['low']) / 2:.2g}" for v in cells))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    console.print(table)
    if content["days"] <= 7:
        console.print(
            "retention counts users who visited in the last seven days: arms differ from day 8 on"
        )
    console.print(f"by day: {content['plot']}")
