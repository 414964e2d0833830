"""The closed loop of one arm (a policy that fills the home pages) with a real service over HTTP.

Users request pages and post events to /events. Every night the events are ingested and features
are rebuilt; every few days a new release is trained.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.closed_loop.journal import DayLog
from flows.closed_loop.loop import ArmLoop
from flows.closed_loop.nights import (
    drop_unfinished_events,
    first_release,
    ingest_night,
    release_info,
    run_config,
    train_new_release,
)
from flows.closed_loop.observe import TARGET_EVENTS, Observer
from flows.closed_loop.service_policy import EventPoster, ServicePolicy, call_each
from flows.releases.service_process import running_service
from flows.training.release import at_home
from shortlist.config import Settings
from shortlist.datasets import DataConfig
from shortlist.http.client import ServiceError, ShortlistClient
from simulation.day import simulate_day

PACK_SECONDS = 30.0
"""How long to wait for the service to load new item features."""


@dataclass
class ServiceLoop(ArmLoop):
    """An ArmLoop whose pages are filled by a service, with releases trained by the pipeline."""

    def run(self, report: Callable[[str], None]) -> list[DayLog]:
        """Simulate the days that are not on disk; return the logs of all days.

        Raises:
            StartError, ServiceError: the service did not start, or stopped answering.
        """
        start = self.setting.schedule.start
        for day in range(len(self.logs), start):
            self._keep(self.run_day(day))
        if len(self.logs) == self.setting.end:
            return self.logs
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        config = run_config(self.setting, self.arm)
        with at_home(home.absolute()) as settings:
            if not (home / "first").is_file():
                report(f"{self.arm.name}: training the first release")
                first_release(config)
                (home / "first").touch()
            while len(self.logs) < self.setting.end:
                day = len(self.logs)
                learned = home / f"learned-{day}"
                if self._due(day) == day and day > start and not learned.is_file():
                    report(f"{self.arm.name}: day {day}: training a new release")
                    train_new_release(settings, config)
                    learned.touch()
                self._serve(settings, home, config.data, report)
        return self.logs

    def _serve(
        self, settings: Settings, home: Path, data: DataConfig, report: Callable[[str], None]
    ) -> None:
        """Run the service and simulate days until the next release is due, or until the end."""
        from flows.featurize import featurize

        world, day = self.setting.world, len(self.logs)
        drop_unfinished_events(settings, since=world.midnight(day))
        featurize(settings, TARGET_EVENTS, until=world.midnight(day), lists=data.lists)
        known = release_info(settings)["items"]
        log = home / "service.log"
        if_down = f"see {log}; run the same command again to continue from day {day + 1}"
        with (
            running_service(log=log, clock="replay") as url,
            ShortlistClient(url, if_down=if_down) as client,
        ):
            while day < self.setting.end:
                started = time.perf_counter()
                day_log, poster = self.serve_day(client, day, known_items=known)
                ingest_night(self.setting, settings, data, poster.kept, day=day)
                wait_for_pack(client, as_of=world.midnight(day + 1))
                self._keep(day_log)
                seconds = time.perf_counter() - started
                report(f"{self.arm.name}: {day + 1} of {self.setting.end} days, {seconds:.1f} s")
                day += 1
                if self._due(day) == day:
                    return

    def serve_day(
        self, client: ShortlistClient, day: int, *, known_items: int
    ) -> tuple[DayLog, EventPoster]:
        """Simulate one day with pages from the service; return its log and the event poster.

        Args:
            known_items: number of item rows in the service's release.
        """
        policy = ServicePolicy(self.setting, client)
        poster = EventPoster(self.setting, policy, known_items)
        observer = Observer(setting=self.setting, day=day, store=None, allowed=self.allowed)
        watch = call_each(poster, observer)
        parts = simulate_day(self.setting.world, self.state, day, policy=policy, watch=watch)
        poster.post(parts[0])  # customers' returns of earlier purchases
        return observer.log(self.state.copy()), poster

    def _keep(self, log: DayLog) -> None:
        log.save(self.folder)
        self.logs.append(log)


def wait_for_pack(client: ShortlistClient, *, as_of: int) -> None:
    """Wait until the service has loaded the item features of `as_of` (microseconds).

    Raises:
        ServiceError: the service still uses older item features after PACK_SECONDS.
    """
    deadline = time.monotonic() + PACK_SECONDS
    while (found := client.ready().pack_as_of) < as_of:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{client.base_url}: serves item features of {found} after {PACK_SECONDS:.0f} s,"
                f" expected those of {as_of}"
            )
        time.sleep(0.2)
