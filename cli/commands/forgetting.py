"""The command `forget`: removes a person from a home (the folder SHORTLIST_HOME)."""

from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import JsonOption
from cli.commands.tables import print_table

app = typer.Typer()


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    now: Annotated[
        bool, typer.Option("--now", help="Erase all files now, not at the next compaction.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget a user: unknown to the service at once, erased from all files at the next compaction.

    Events dated before this request are ignored for good; later ones count as a new person's.
    Exits with 1 if `--now` could not erase everything.
    """
    from flows.forget import forget as forget_user
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = forget_user(Settings(), user, now=now)
    if as_json:
        result = {name: result[name] for name in ("removed", "left")}
    show.result(result, as_json=as_json, table=show_removed)
    if now and result["left"]:
        raise typer.Exit(1)


def show_removed(content: dict[str, Any]) -> None:
    """Print the result of `forget`."""
    rows = [(place, f"{rows:,}") for place, rows in sorted(content["removed"].items())]
    print_table("removed", ("place", "rows"), rows)
    for line in content["left"]:
        typer.echo(f"left: {line}")
    for path in content.get("proofs", ()):
        typer.echo(f"proof: {path}")
