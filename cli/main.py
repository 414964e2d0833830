"""The `shortlist` command line. Each command calls a flow or the Recommender and shows the result.

The commands are in `cli/commands/`, grouped by topic. Slow libraries are imported inside the
commands that need them, so that `shortlist --help` is fast.
"""

import atexit
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import typer

from cli import show
from cli.commands import (
    alarms,
    care,
    experiment,
    features,
    forgetting,
    init,
    pipeline,
    quarantine,
    releases,
    serving,
    simulate,
    steps,
    tune,
)

app = typer.Typer(
    name="shortlist",
    help="Turns a log and a catalogue into a recommender that is trained, served and monitored.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
PANELS = {
    "Data": (
        "init",
        "ingest",
        "validate",
        "quarantine",
        "featurize",
        "refresh",
        "backfill",
        "features",
        "forget",
    ),
    "Models": ("run", "train", "tune", "evaluate", "package", "simulate", "bench"),
    "Serving": (
        "promote",
        "rollback",
        "releases",
        "serve",
        "recommend",
        "search",
        "similar",
        "replay",
    ),
    "Operations": (
        "up",
        "down",
        "status",
        "monitor",
        "report",
        "alarms",
        "experiment",
        "skew",
        "upgrade",
        "deploy",
        "doctor",
    ),
}
"""Panels of `shortlist --help` and their commands, in order."""


PARTS = (
    init,
    pipeline,
    steps,
    quarantine,
    features,
    forgetting,
    serving,
    releases,
    care,
    simulate,
    alarms,
    experiment,
    tune,
)
"""Modules with commands."""


def _in_panels() -> None:
    """Add the commands to the app, panel by panel."""
    commands = {
        command.name or getattr(command.callback, "__name__", ""): command
        for part in PARTS
        for command in part.app.registered_commands
    }
    groups = {group.name: group for part in PARTS for group in part.app.registered_groups}
    for panel, names in PANELS.items():
        for name in names:
            if name in groups:
                groups[name].rich_help_panel = panel
                app.registered_groups.append(groups[name])
            else:
                commands[name].rich_help_panel = panel
                app.registered_commands.append(commands[name])


_in_panels()


def main() -> Any:
    """Run the command line.

    Errors of this project's own exception types are shown as one message, without a traceback.
    """
    _quiet_environment()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_is_news)
    try:
        return app(standalone_mode=True)
    except Exception as error:
        if os.environ.get("SHORTLIST_DEBUG") or not show.is_for_users(error):
            raise
        show.error("\n".join([str(error), *getattr(error, "__notes__", ())]))
        sys.exit(2)
    finally:
        atexit.register(_silent_teardown)


ENDINGS = tuple(f"Finished in state {name}(" for name in ("Failed", "Refused", "Held"))


def _is_news(record: logging.LogRecord) -> bool:
    """Logging filter: return False for Prefect's reports of an error that `main` shows.

    Prefect logs an error with its traceback in each flow that it passes through, and again as the
    flow's final state.
    """
    if os.environ.get("SHORTLIST_DEBUG"):
        return True
    problem = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if problem is not None and show.is_for_users(problem):
        return False
    return not record.getMessage().startswith(ENDINGS)


def _silent_teardown() -> None:
    """Hide messages that libraries print at exit.

    Examples are Prefect's messages about its stopping server and DuckDB's about leaked instances.
    The function is registered last, so it runs before all other exit handlers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _quiet_environment() -> None:
    """Set environment variables that the user has not set.

    They turn telemetry off and keep the files of Prefect and BentoML under SHORTLIST_HOME.
    """
    home = Path(os.environ.get("SHORTLIST_HOME", "var")).absolute()
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        _private(home)
        _use_server_of(home)
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "BENTOML_DO_NOT_TRACK": "True",
        "GX_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home / "prefect"),
        "BENTOML_HOME": str(home / "bentoml"),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # Prefect's default of 20 s is too short for a first start on a busy laptop.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }.items():
        os.environ.setdefault(name, value)


def _private(home: Path) -> None:
    """Create the home and let only its owner read it; Prefect doesn't create parent folders."""
    home.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # it belongs to somebody else, e.g. a mounted volume
        home.chmod(0o700)


def _use_server_of(home: Path) -> None:
    """Use the Prefect server of `shortlist up`, if it answers, instead of starting one."""
    if "PREFECT_API_URL" in os.environ or not (home / "up.json").is_file():
        return
    if sys.argv[1] in ("up", "down", "status", "recommend", "similar", "serve"):
        return
    import httpx

    try:
        url = json.loads((home / "up.json").read_text())["processes"]["server"]["url"] + "/api"
        if httpx.get(f"{url}/health", timeout=1).status_code == 200:
            os.environ["PREFECT_API_URL"] = url
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError):
        return


if __name__ == "__main__":
    main()
