"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("configs/movielens-100k.toml")
ConfigOption = Annotated[Path, typer.Argument(help="The run's TOML file.")]
RunOption = Annotated[
    str | None, typer.Option("--run", help="A run's id; default: the newest run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Print all details and write no log file.")
]
IncrementalOption = Annotated[
    bool,
    typer.Option("--incremental", help="Continue the serving release on the events after it."),
]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", help="A release's id; default: the promoted release.")
]
