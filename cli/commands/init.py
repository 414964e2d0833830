"""`shortlist init`: guess the columns of a user's files and write a run's TOML file."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import JsonOption
from cli.commands.tables import print_table
from shortlist.moments import TIME_UNITS

app = typer.Typer()
DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb")


@app.command()
def init(
    interactions: Annotated[
        str, typer.Argument(help="The log of events: a file, folder, glob or URI.")
    ],
    items: Annotated[
        str | None, typer.Option(help="The catalogue of items: a file, folder, glob or URI.")
    ] = None,
    users: Annotated[
        str | None, typer.Option(help="The table of users: a file, folder, glob or URI.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The TOML file to write.")] = Path("shortlist-run.toml"),
    name: Annotated[str | None, typer.Option(help="The data set's name.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Corrects a wrong guess: user_id=NAME says that column NAME has the user ids, and"
            " items.item_id=NAME applies to the catalogue alone. Repeatable."
        ),
    ] = None,
    event_type: Annotated[
        str | None, typer.Option(help="The type of all events, if no column has their types.")
    ] = None,
    time_unit: Annotated[
        str | None,
        typer.Option(
            help="The format of times, if the guess is wrong: s, ms, us, ns, iso, excel, ticks,"
            ' filetime, or a pattern like "%d/%m/%Y %H:%M".'
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            help="Names of the columns, for a log without a header line: user_id,item_id,... For"
            " another table: items:item_id,title,... Repeatable."
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="The encoding of text files, if the guess is wrong: cp1251, ..."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Write the file without asking.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read samples of your files, guess what their columns mean, and write a run's TOML file."""
    from cli.guessing.guess import OpenQuestion, guess, write_toml

    if "://" in interactions and interactions.split("+")[0].split(":")[0] in DATABASES:
        show.error(
            f"{interactions}: is a database; init reads only files. docs/data.md describes"
            " [data.database]"
        )
        raise typer.Exit(2)
    chosen = {}
    for pair in column or []:
        key, separator, value = pair.partition("=")
        if not separator:
            show.error(f"--column {pair}: want contract=column, e.g. --column user_id=customer")
            raise typer.Exit(2)
        chosen[key] = value
    if time_unit is not None and time_unit not in TIME_UNITS and "%" not in time_unit:
        show.error(f"--time-unit {time_unit}: want one of {', '.join(TIME_UNITS)}, or a pattern")
        raise typer.Exit(2)
    headers = {}
    for names in header or []:
        table, colon, listed = names.partition(":")
        known = colon and table in ("interactions", "items", "users")
        key = table if known else "interactions"
        headers[key] = tuple(
            column_name.strip() for column_name in (listed if known else names).split(",")
        )
    try:
        found = guess(
            interactions,
            items=items,
            users=users,
            columns=chosen,
            event_type=event_type,
            name=name,
            time_unit=time_unit,
            headers=headers,
            encoding=encoding,
        )
    except OpenQuestion as question:
        write_toml(question.toml, out, checked=False)
        show.error(f"{question}. Written to {out} with the question marked: answer it there, or")
        show.error("remove that file and repeat the command with the option that answers it")
        raise typer.Exit(1) from None
    if not as_json:
        _preview(found)
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Write {out}?", default=True):
            raise typer.Exit(1)
    write_toml(found["toml"], out)
    next_step = f"shortlist run {out}"
    show.result(
        found["summary"] | {"out": str(out), "next": next_step},
        as_json=as_json,
        table=lambda content: print_table(f"{out} is written; check it, then: {next_step}", (), []),
    )


def _preview(found: dict[str, Any]) -> None:
    for table in found["tables"]:
        rows = [
            (column, meaning, ", ".join(examples)) for column, meaning, examples in table["columns"]
        ]
        print_table(f"{table['name']}: {table['path']}", ("column", "is", "examples"), rows)
    for note in found["notes"]:
        print_table(f"- {note}", (), [])
    print_table(found["said"], (), [])
