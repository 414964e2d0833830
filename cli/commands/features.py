"""Commands for features: list them, and compare served features with the lake (event store)."""

from pathlib import Path
from typing import Annotated

import typer

from cli import show
from cli.commands.options import JsonOption

app = typer.Typer()


@app.command()
def features(
    html: Annotated[
        Path | None, typer.Option(help="Also write the list to this file, as an HTML page.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List all features with name, type, meaning, window, default and owner."""
    from cli.show_features import html_page, table
    from shortlist.features.descriptions import described
    from shortlist.files.text_files import write_text

    content = described()
    if html is not None:
        write_text(html, html_page(content))
    show.result(content, as_json=as_json, table=table)


@app.command()
def skew(
    max_requests: Annotated[
        int, typer.Option(min=1, help="Number of responses to check, the newest ones.")
    ] = 2_000,
    max_different: Annotated[
        float,
        typer.Option(min=0, max=1, help="Accepted share of vectors in which a feature differs."),
    ] = 0.0,
    max_stale: Annotated[
        float,
        typer.Option(min=0, max=1, help="Accepted share of requests that read an outdated view."),
    ] = 0.01,
    max_days_behind: Annotated[
        float,
        typer.Option(min=0, help="Accepted age in days of the states of items and contexts."),
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Recompute the feature vectors in the serving log from the lake, and compare them.

    Exits with 1 if too many values differ or too many states were outdated.
    """
    from cli.show_features import skew_table
    from flows.check_skew import skew_flow
    from flows.skew.verdict import SkewFailed

    with show.only_json(as_json):
        try:
            result = skew_flow(max_requests, max_different, max_stale, max_days_behind)
        except SkewFailed as failed:
            result = failed.report
    show.result(result, as_json=as_json, table=skew_table)
    if not result["passed"]:
        raise typer.Exit(1)
