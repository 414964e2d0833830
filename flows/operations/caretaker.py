"""The loop of `shortlist up`: carries out posted commands and starts the service when it can serve.

Clients post changes of items and requests to forget people to the service, which obeys them at once
and stores them as commands. Within seconds, this loop adds the changes to the lake and publishes
them with the item features, and removes the people from lake and states; without it the next
refresh does so. Run as `python -m flows.operations.caretaker CONFIG`.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flows.operations import processes
from flows.refresh import carry_out_commands, refresh
from flows.runtime.configuration import RunConfig, load_run_config
from shortlist.config import Settings
from shortlist.datasets.service.item_commands import carried_out, num_pending
from shortlist.feature_store import latest_pack, publish_pack
from shortlist.features.pack import PackError
from shortlist.forgetting.requests import ForgetInbox
from shortlist.home.home_lock import HomeLocked, home_lock
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseError, ReleaseStore

PAUSE = 2.0
"""Seconds between two looks at the inbox."""
LOCK_SECONDS = 1.0
"""Wait for a running refresh, which carries out the commands itself."""
MAX_PAUSE = 300.0
"""Greatest number of seconds until work that failed is tried again."""


@dataclass
class Work:
    """A part of the loop's work. After an error it is tried again later, and later each time."""

    do: Callable[[], int]
    """Does what is pending, and returns how much that was."""
    done: str
    """What was done, for the log."""
    pause: float = 0.0
    """Seconds from the last error to the next try; 0 if there was none."""
    due: float = 0.0

    def attempt(self) -> None:
        """Do the work if it is due; print an error, which the next refresh reports as well."""
        if time.monotonic() < self.due:
            return
        try:
            if count := self.do():
                print(f"caretaker: {count} {self.done}", flush=True)
            self.pause = 0.0
        except HomeLocked:
            pass
        except Exception as error:  # the loop must survive
            print(f"caretaker: {type(error).__name__}: {error}", flush=True)
            self.pause = min(max(self.pause, PAUSE) * 2, MAX_PAUSE)
            self.due = time.monotonic() + self.pause


def follow(settings: Settings, config: RunConfig, *, stopped: Callable[[], bool]) -> None:
    """Carry out commands until `stopped()` is true. An error in one part doesn't stop the other."""
    forgotten = set[int]()
    parts = (
        Work(lambda: carry_out(settings, config), "posted changes of items are in the lake"),
        Work(
            lambda: forget_requested(settings, config, forgotten),
            "people are out of lake and states",
        ),
    )
    while not stopped():
        for part in parts:
            part.attempt()
        time.sleep(PAUSE)


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


def forget_requested(settings: Settings, config: RunConfig, forgotten: set[int]) -> int:
    """Remove people who asked to be forgotten from the lake, and build states and features anew.

    The request stays pending until the next compaction has erased all other files.

    Args:
        forgotten: numbers of the requests that this process has seen to; the new ones are added.

    Returns:
        The number of new requests.

    Raises:
        HomeLocked: a refresh is running, which removes them itself.
        LakeError, ValidationFailed: as for `refresh`.
    """
    new = {request.number for request in ForgetInbox(settings).pending()} - forgotten
    if new:
        what = "requests to forget people"
        with home_lock(settings, "refresh", what=what, wait_seconds=LOCK_SECONDS):
            refresh(settings, config, source=False)
        forgotten |= new
    return len(new)


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
