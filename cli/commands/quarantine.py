"""`shortlist quarantine`: list, show and restore the bad rows that validation set aside."""

from pathlib import Path
from typing import Annotated

import typer

from cli import show
from cli.commands.options import DEFAULT_CONFIG, JsonOption
from cli.commands.tables import print_table

app = typer.Typer()
commands = typer.Typer(
    help="Bad rows that validation set aside: list, show, restore.", no_args_is_help=True
)
app.add_typer(commands, name="quarantine")

BatchArgument = Annotated[str, typer.Argument(help="A batch that `quarantine list` names.")]


@commands.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the batches in quarantine: number of rows, reason and an example for each rule."""
    from flows.validation.restore import listed

    show.result({"quarantine": listed()}, as_json=as_json, table=_list_table)


@commands.command("show")
def show_command(
    batch_id: BatchArgument,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    rows: Annotated[
        int, typer.Option("-n", min=1, help="Number of rows to show of each table.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the original rows to this file, one per line, to mend them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a batch's quarantined rows as they are in the source, with file, line and reason."""
    from flows.validation.restore import shown

    result = shown(batch_id, rule=rule, limit=rows, out=out)
    show.result(result, as_json=as_json, table=_rows_table)


@commands.command("restore")
def restore_command(
    batch_id: BatchArgument,
    config: Annotated[Path, typer.Option(help="The run's TOML file.")] = DEFAULT_CONFIG,
    mended: Annotated[
        Path | None,
        typer.Option("--with", help="File of mended lines, as many as `show --out` wrote."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Validate a batch's quarantined rows again, after you changed the mapping, the limits, the
    catalogue or the rows. Good rows are added to the lake; the others stay in quarantine.
    """
    from flows.runtime.configuration import load_run_config
    from flows.validation.restore import restore

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = restore(batch_id, run_config, rule=rule, mended=mended)
    show.result(result, as_json=as_json)


def _list_table(content: dict) -> None:
    if not content["quarantine"]:
        print_table("nothing is in quarantine", (), [])
        return
    rows = [
        (
            row["batch_id"],
            row["table"],
            f"{row['rows']:,}",
            row["rule"],
            row["reason"],
            (row["example"] or "")[:80],
        )
        for row in content["quarantine"]
    ]
    print_table("Quarantine", ("batch", "table", "rows", "rule", "want", "example"), rows)


def _rows_table(content: dict) -> None:
    for table, rows in content["tables"].items():
        cells = [
            (f"{row['file']}:{row['line']}", (row["original"] or "")[:100], row["reason"])
            for row in rows
        ]
        title = f"{table}: {len(rows):,} of {content['rows'][table]:,} rows"
        print_table(title, ("where", "as it was", "why"), cells)
    if content["out"]:
        print_table(f"originals written to {content['out']}", (), [])
