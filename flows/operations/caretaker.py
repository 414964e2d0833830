"""The loop of `shortlist up`: carries out posted commands and starts the service when it can serve.

Clients post changes of items to the service, which shows them at once and stores them as commands.
This loop adds them to the lake within seconds and publishes them with the item features; without it
the next refresh does so. Run as `python -m flows.operations.caretaker CONFIG`.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flows.operations import processes
from flows.refresh import carry_out_commands
from flows.runtime.configuration import RunConfig, load_run_config
from shortlist.config import Settings
from shortlist.datasets.item_commands import carried_out, num_pending
from shortlist.feature_store import latest_pack, publish_pack
from shortlist.features.pack import PackError
from shortlist.home_lock import HomeLocked, home_lock
from shortlist.lake import Lake
from shortlist.release import ReleaseError, ReleaseStore

PAUSE = 2.0
"""Seconds between two looks at the inbox."""
LOCK_SECONDS = 1.0
"""Wait for a running refresh, which carries out the commands itself."""


def follow(settings: Settings, config: RunConfig, *, stopped: Callable[[], bool]) -> None:
    """Carry out commands until `stopped()` is true. An error is printed and tried again later."""
    delay = PAUSE
    while not stopped():
        try:
            done = carry_out(settings, config)
            delay = PAUSE
        except HomeLocked:
            done = 0
        except Exception as error:  # the loop must survive: the next refresh reports the error
            print(f"caretaker: {type(error).__name__}: {error}", flush=True)
            done, delay = 0, min(delay * 2, 300.0)
        if done:
            print(f"caretaker: {done} posted changes of items are in the lake", flush=True)
        time.sleep(delay)


def carry_out(settings: Settings, config: RunConfig) -> int:
    """Add posted changes of items to the lake and publish them with the item features.

    States and features aren't computed again. Returns the number of commands that were carried out.

    Raises:
        HomeLocked: a refresh is running.
        CommandError, ValidationFailed: the inbox can't be read, or the changes were refused.
        PackError: nothing is published yet.
    """
    if num_pending(settings) == 0:
        return 0
    with home_lock(settings, "refresh", what="posted commands", wait_seconds=LOCK_SECONDS):
        pending = num_pending(settings)
        if pending == 0:
            return 0
        pack = latest_pack(settings.packs)
        failed = carry_out_commands(settings, config, until=config.clock(settings).cut())
        if failed is not None:
            raise failed
        lake = Lake(settings.lake)
        publish_pack(
            replace(pack, items=lake.items(), commands=carried_out(lake.manifest)), settings.packs
        )
    return pending


def can_serve(settings: Settings) -> bool:
    """Return whether a release is promoted and item features are published."""
    try:
        latest_pack(settings.packs)
        return ReleaseStore(settings.releases).current_id() is not None
    except (PackError, ReleaseError):
        return False


def main() -> None:
    from flows.operations.up import start_service

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, required=True, help="port of the service")
    arguments = parser.parse_args()
    settings = Settings()
    # Validation needs it. Its import takes ten seconds, which the first command would wait.
    importlib.import_module("flows.validation.site")

    def serve_when_possible() -> bool:
        if "service" not in processes.read(settings) and can_serve(settings):
            start_service(settings, arguments.port)
            print("caretaker: the first release is promoted; the service starts", flush=True)
        return False

    follow(settings, load_run_config(arguments.config), stopped=serve_when_possible)


if __name__ == "__main__":
    main()
