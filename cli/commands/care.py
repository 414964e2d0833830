"""Commands to look after an installation: report, doctor, deploy and bench."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from cli.commands.tables import print_table

app = typer.Typer()


@app.command()
def report(
    as_json: JsonOption = False,
    browser: Annotated[bool, typer.Option(help="Open the report in a browser.")] = True,
    ui: Annotated[
        bool,
        typer.Option(
            "--ui", help="Serve Evidently's UI with all reports over time, until stopped."
        ),
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of --ui.")] = 8000,
) -> None:
    """Open the newest morning page in a browser, and show where it is stored."""
    from flows.monitor import latest_report

    if ui:
        _evidently_ui(port)

    found = latest_report()
    show.result(found, as_json=as_json)
    if browser and not as_json and sys.stdout.isatty():
        typer.launch(found["report"])


def _evidently_ui(port: int) -> None:
    """Replace this process by Evidently's UI over the workspace of the home."""
    import os

    from shortlist.config import ConfigError, Settings

    workspace = Settings().reports / "workspace"
    if not workspace.is_dir():
        raise ConfigError(f"{workspace}: no reports yet; run `shortlist monitor` first")
    typer.echo(f"Evidently's UI on http://127.0.0.1:{port}", err=True)
    program = "from evidently.cli import app; app()"  # evidently has no __main__
    command = [sys.executable, "-c", program, "ui", "--workspace", str(workspace)]
    os.execv(sys.executable, [*command, "--port", str(port), "--host", "127.0.0.1"])


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check what is installed, reachable and up to date; exit with 1 if a check fails."""
    from cli.doctor import examine

    checks = examine()
    show.result({"checks": checks}, as_json=as_json, table=show.checks)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)


@app.command()
def deploy(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Register scheduled flows and notifications with a Prefect server.

    Refresh, daily and weekly training, monitoring, skew, compaction, gc and backfill.
    """
    from flows.deploy import deploy_all

    with show.only_json(as_json):
        result = deploy_all(config)
    show.result(result, as_json=as_json)


Port = Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")]


@app.command()
def up(
    config: ConfigOption = DEFAULT_CONFIG,
    service_port: Port = 3000,
    pages_port: Port = 3001,
    prefect_port: Port = 4200,
    as_json: JsonOption = False,
) -> None:
    """Start everything in the background: Prefect server and worker, service, and report pages.

    Schedules are registered, and posted changes of items reach the lake within seconds. Without a
    promoted release the service starts after the first one.
    """
    from flows.operations.up import Ports
    from flows.operations.up import up as start_all
    from shortlist.config import Settings

    ports = Ports(service=service_port, pages=pages_port, prefect=prefect_port)
    with show.only_json(as_json):
        result = start_all(Settings(), config, ports)
    show.result(result, as_json=as_json, table=show_status)


@app.command()
def down(as_json: JsonOption = False) -> None:
    """Stop exactly the processes that `shortlist up` started."""
    from flows.operations.up import down as stop_all
    from shortlist.config import Settings

    show.result(stop_all(Settings()), as_json=as_json)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show what runs: processes with their addresses, release, workers, locks, pending commands.

    Exits with 1 if a process that `shortlist up` started has ended.
    """
    from flows.operations.up import status as look
    from shortlist.config import Settings

    result = look(Settings())
    show.result(result, as_json=as_json, table=show_status)
    if any(process["state"] == "ended" for process in result["processes"]):
        raise typer.Exit(1)


def show_status(content: dict[str, Any]) -> None:
    """Print the result of `shortlist status`."""
    rows = [
        (
            process["name"],
            process["state"],
            process["url"] or "",
            str(process["pid"]),
            process["log"],
        )
        for process in content["processes"]
    ]
    columns = ("process", "state", "address", "pid", "log") if rows else ()
    print_table(content["home"] if rows else "nothing runs; start it with `up`", columns, rows)
    typer.echo(f"release: {content['serving'] or 'none is promoted'}")
    for worker in content["workers"]:
        typer.echo(f"worker {worker['worker']} serves {worker['release_id']}")
    for lock in content["locks"]:
        typer.echo(f"lock {lock['name']}: process {lock.get('pid')}, {lock.get('what')}")
    typer.echo(f"posted changes of items that the lake lacks: {content['commands_pending']}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A module of benchmarks/, e.g. `serving`.")],
) -> None:
    """Run one benchmark; all arguments after its name are passed on to it.

    It runs in the current folder, so relative paths in its arguments start there.
    """
    import os
    import subprocess

    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if name not in names:
        show.error(f"benchmark '{name}' does not exist, want one of {', '.join(names)}")
        raise typer.Exit(2)
    path = os.pathsep.join(filter(None, [str(folder.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        # -P: don't search the current folder for modules, because one there could hide ours.
        [sys.executable, "-P", "-m", f"benchmarks.{name}", *context.args],
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    raise typer.Exit(done.returncode)
