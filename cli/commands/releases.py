"""Commands for releases (folders with all models of one run): list, compare, pin, roll back,
upgrade, and garbage collection.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from cli.commands.tables import print_table

app = typer.Typer()
releases = typer.Typer(
    help="List, compare, pin and remove releases (folders with all models of a run).",
    no_args_is_help=True,
)
app.add_typer(releases, name="releases")

ReasonOption = Annotated[str, typer.Option(help="Why; the audit log stores it.")]
ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="A release's id.")]


@app.command()
def rollback(
    reason: Annotated[
        str, typer.Option(help="Why you roll back; the audit log stores it.")
    ] = "not said",
    as_json: JsonOption = False,
) -> None:
    """Promote the previous release again, and wait until all workers serve it."""
    from flows.rollback import roll_back
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = roll_back(Settings(), reason=reason)
    show.result(result, as_json=as_json)


@releases.command("list")
def list_releases(as_json: JsonOption = False) -> None:
    """List the releases: which serves, which are pinned, and their quality.

    A damaged release is listed with what is wrong; the command then exits with 1.
    """
    from flows.releases.history import overview
    from shortlist.config import Settings

    rows = overview(Settings())
    show.result({"releases": rows}, as_json=as_json, table=show.releases)
    if any(row["damaged"] for row in rows):
        raise typer.Exit(1)


@releases.command("show")
def show_release(release: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Show a release: its run, data, metrics, size, and each promotion with who, when and why."""
    from flows.releases.history import details
    from shortlist.config import Settings

    show.result(details(Settings(), release), as_json=as_json)


@releases.command()
def diff(old: ReleaseArgument, new: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Show in what two releases differ: configuration, data, figures and files."""
    from shortlist.config import Settings
    from shortlist.files.plain_json import difference
    from shortlist.releases.release import ReleaseStore

    store = ReleaseStore(Settings().releases)
    before, after = store.open(old), store.open(new)
    result = difference(before.about, after.about)
    show.result(result | difference(before.files, after.files, "files."), as_json=as_json)


@releases.command()
def pin(
    release: ReleaseArgument,
    reason: ReasonOption,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the pin.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Pin a release, so that `releases gc` never removes it."""
    from shortlist.config import Settings
    from shortlist.releases import pins as release_pins

    settings = Settings()
    change = release_pins.unpin if remove else release_pins.pin
    change(settings, release, reason=reason)
    show.result({"pinned": release_pins.read_pins(settings)}, as_json=as_json)


@releases.command()
def gc(
    retention: Annotated[
        Path | None, typer.Option(help="TOML file with rules; default: configs/retention.toml.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would be removed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove releases, runs, Bentos, logs and reports that no retention rule keeps.

    What is served, pinned, leased by a run or in use by a worker is always kept.
    """
    from flows.releases.collect import collect_garbage
    from flows.releases.retention import RETENTION, RetentionConfig
    from shortlist.config import Settings, load_toml

    config = load_toml(retention or RETENTION, RetentionConfig)
    with show.only_json(as_json):
        result = collect_garbage(Settings(), config, dry_run=dry_run)
    show.result(result, as_json=as_json, table=show_removed)


@releases.command()
def audit(as_json: JsonOption = False) -> None:
    """Show every promotion, rollback, pin and removal: who, when, why, and on what evidence."""
    from shortlist.config import Settings
    from shortlist.home.audit import read_audit

    show.result({"audit": read_audit(Settings())}, as_json=as_json, table=show_audit)


def show_removed(content: dict[str, Any]) -> None:
    """Print the result of `releases gc`."""
    rows = [
        (entry["what"], entry["path"], show.size(entry["bytes"]), entry["why"])
        for entry in content["removed"]
    ]
    verb = "would be removed" if content["dry_run"] else "removed"
    title = f"{len(rows)} files and folders {verb}, {show.size(content['bytes'])}"
    print_table(title, ("what", "path", "size", "why") if rows else (), rows)
    kept = content["kept"].items()
    print_table("Kept releases", ("release", "why") if kept else (), kept)


def show_audit(content: dict[str, Any]) -> None:
    """Print the audit log, oldest first."""
    columns = ("at", "who", "command", "from", "to", "why")
    rows = [
        (
            entry["at"][:19],
            f"{entry['user']}@{entry['host']}",
            entry["command"],
            entry["from"] or "",
            entry["to"],
            entry["reason"],
        )
        for entry in content["audit"]
    ]
    print_table("Audit log", columns, rows)


@app.command()
def upgrade(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Rebuild features, and if necessary the release, for this version of the code.

    They are built beside the current ones; then the deployment switches to them. The earlier
    version of the code may serve while they are built, but not during the switch.
    """
    from flows.runtime.configuration import load_run_config
    from flows.upgrade import upgrade as upgrade_home
    from shortlist.config import Settings

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = upgrade_home(Settings(), run_config)
    show.result(result, as_json=as_json)
    if not result["switched"]:
        raise typer.Exit(1)
