"""One arm's life against the real service, over HTTP, in fast motion: asked, told, fed back through
/events, ingestion and features every night, trained anew now and then.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.closed_loop.journal import DayLog
from flows.closed_loop.loop import ArmLoop
from flows.closed_loop.nights import (
    about_release,
    first_release,
    forget_unfinished,
    ingest_night,
    learn_again,
    run_config,
)
from flows.closed_loop.observe import TARGET_EVENTS, Observer
from flows.closed_loop.service_policy import ServicePolicy, Teller, both
from flows.releases.service_process import running_service
from flows.training.release import at_home
from shortlist.client import ServiceError, ShortlistClient
from shortlist.config import Settings
from shortlist.datasets import DataConfig
from simulation.day import simulate_day

PACK_SECONDS = 30.0


@dataclass
class ServiceLoop(ArmLoop):
    """As ArmLoop; pages come from the service of a release trained by the pipeline itself."""

    def run(self, say: Callable[[str], None]) -> list[DayLog]:
        """Live the days that are missing.

        Raises:
            StartError, ServiceError: the service did not start, or stopped answering.
        """
        start = self.setting.schedule.start
        for day in range(len(self.logs), start):
            self._keep(self.live(day))
        if len(self.logs) == self.setting.end:
            return self.logs
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        config = run_config(self.setting, self.arm)
        with at_home(home.absolute()) as settings:
            if not (home / "first").is_file():
                say(f"{self.arm.name}: the pipeline makes its first release")
                first_release(config)
                (home / "first").touch()
            while len(self.logs) < self.setting.end:
                day = len(self.logs)
                learned = home / f"learned-{day}"
                if self._due(day) == day and day > start and not learned.is_file():
                    say(f"{self.arm.name}: day {day}: the pipeline makes a new release")
                    learn_again(settings, config)
                    learned.touch()
                self._serve(settings, home, config.data, say)
        return self.logs

    def _serve(
        self, settings: Settings, home: Path, data: DataConfig, say: Callable[[str], None]
    ) -> None:
        """One service, from now to the next release."""
        from flows.featurize import featurize

        world, day = self.setting.world, len(self.logs)
        forget_unfinished(settings, since=world.midnight(day))
        featurize(settings, TARGET_EVENTS, until=world.midnight(day), lists=data.lists)
        known = about_release(settings)["items"]
        log = home / "service.log"
        if_down = f"{log} says why; run the same command again to go on from day {day + 1}"
        with (
            running_service(log=log, clock="replay") as url,
            ShortlistClient(url, if_down=if_down) as client,
        ):
            while day < self.setting.end:
                started = time.perf_counter()
                lived, teller = self.ask(client, day, known_items=known)
                ingest_night(self.setting, settings, data, teller.kept, day=day)
                wait_for_pack(client, as_of=world.midnight(day + 1))
                self._keep(lived)
                seconds = time.perf_counter() - started
                say(f"{self.arm.name}: {day + 1} of {self.setting.end} days, {seconds:.1f} s")
                day += 1
                if self._due(day) == day:
                    return

    def ask(self, client: ShortlistClient, day: int, *, known_items: int) -> tuple[DayLog, Teller]:
        """Live one day with the pages of a service."""
        policy = ServicePolicy(self.setting, client)
        teller = Teller(self.setting, policy, known_items)
        observer = Observer(setting=self.setting, day=day, store=None, allowed=self.allowed)
        watch = both(teller, observer)
        parts = simulate_day(self.setting.world, self.state, day, policy=policy, watch=watch)
        teller.tell(parts[0])  # purchases of earlier days that came back
        return observer.log(self.state.copy()), teller

    def _keep(self, log: DayLog) -> None:
        log.save(self.folder)
        self.logs.append(log)


def wait_for_pack(client: ShortlistClient, *, as_of: int) -> None:
    """Until the service has swapped in the night's pack.

    Raises:
        ServiceError: it has not after PACK_SECONDS.
    """
    deadline = time.monotonic() + PACK_SECONDS
    while (found := client.ready().pack_as_of) < as_of:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{client.base_url}: still serves the pack of {found} after {PACK_SECONDS:.0f} s,"
                f" {as_of} is published"
            )
        time.sleep(0.2)
