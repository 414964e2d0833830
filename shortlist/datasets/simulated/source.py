"""The world as a source: batches of events day by day in bounded memory, or one batch of it all."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from shortlist.config import Config, beside_file
from shortlist.datasets.batch import Batch
from shortlist.datasets.simulated.config import MAX_DAYS, load_world_config
from shortlist.datasets.simulated.day import live_day
from shortlist.datasets.simulated.events import Events
from shortlist.datasets.simulated.images import draw_all
from shortlist.datasets.simulated.policy import LoggingPolicy
from shortlist.datasets.simulated.state import State
from shortlist.datasets.simulated.tables import Publisher
from shortlist.datasets.simulated.world import World


class SimulatedConfig(Config):
    """Which world, and how much of it."""

    preset: str = "shop"
    """A preset's name, or the path of a TOML file of your own."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """None: the preset's."""
    days: int | None = Field(default=None, ge=1, le=MAX_DAYS)
    """Length of the world's calendar; None: the preset's."""
    log_days: int | None = Field(default=None, ge=1)
    """Days of the log that are published, with whoever and whatever is there by then; None: all."""

    @field_validator("preset")
    @classmethod
    def _beside_file(cls, value: str, info: ValidationInfo) -> str:
        return beside_file(value, info) if value.endswith(".toml") else value

    def world(self) -> World:
        """Raises ConfigError: no such preset, or impossible parameters."""
        changes: dict[str, object] = {"seed": self.seed, "days": self.days}
        return World(load_world_config(self.preset, changes=changes))

    def published_days(self, world: World) -> int:
        return min(self.log_days or world.config.days, world.config.days)


def stream(
    world: World,
    *,
    ingested_at: int,
    days: int | None = None,
    threads: int = 2,
    publisher: Publisher | None = None,
) -> Iterator[pa.Table]:
    """Events of the first `days` days (None: of all) as INTERACTIONS, under the logging policy: a
    table for each day and chunk of users. Chunks do not depend on each other, so threads change
    nothing.
    """
    publisher = publisher or Publisher(world)
    size = world.config.chunk
    edges = [*range(0, world.num_users, size), world.num_users]
    states = [State.fresh(world, a, b) for a, b in pairwise(edges)]

    def live(state: State, logging: LoggingPolicy) -> pa.Table:
        events = Events.concat(live_day(world, state, logging.day, logging=logging))
        return publisher.interactions(events, ingested_at=ingested_at)

    # One chunk more than threads is under way, so that none waits while a table is being read.
    under_way: deque[tuple[State, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for day in range(days or world.config.days):
            logging = LoggingPolicy(world, day)
            for state in states:
                if state.first >= world.users_on(day):
                    continue
                while len(under_way) > threads or any(state is other for other, _ in under_way):
                    yield under_way.popleft()[1].result()
                under_way.append((state, pool.submit(live, state, logging)))
        while under_way:
            yield under_way.popleft()[1].result()


def load_simulated(config: SimulatedConfig, *, cache: Path, now: int) -> Batch:
    """The world's log as one batch; images, if it has some, are drawn into `cache`."""
    world = config.world()
    days = config.published_days(world)
    publisher = Publisher(world)
    tables = stream(world, ingested_at=now, days=days, publisher=publisher)
    images = drawn_images(world, cache, days=days)
    return Batch.checked(
        f"simulated world '{world.config.name}'",
        pa.concat_tables(tables).combine_chunks(),
        publisher.items(0, world.items_on(days - 1), images=images),
        publisher.users(0, world.users_on(days - 1)),
    )


def drawn_images(world: World, cache: Path, *, days: int) -> list[str] | None:
    """Paths of the images of whatever is there by the end of that many days; None for a world
    without images.
    """
    if not world.config.catalogue.images:
        return None
    folder = cache / "simulated" / f"{world.config.name}-{world.config.seed}"
    return draw_all(world, folder, until=world.items_on(days - 1))
