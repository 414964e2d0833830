"""The world as a source: batches of events day by day in bounded memory, or one batch of it all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from shortlist.config import Config
from shortlist.datasets.batch import Batch
from shortlist.datasets.simulated.day import live_day
from shortlist.datasets.simulated.events import Events
from shortlist.datasets.simulated.images import draw_all
from shortlist.datasets.simulated.parameters import load_world_config
from shortlist.datasets.simulated.policy import LoggingPolicy
from shortlist.datasets.simulated.state import State
from shortlist.datasets.simulated.tables import Publisher
from shortlist.datasets.simulated.world import World


class SimulatedConfig(Config):
    """Which world, and how much of it."""

    preset: str = "shop"
    """A preset's name, or the path of a TOML file of your own."""
    seed: int | None = None
    """None: the preset's."""
    days: int | None = Field(default=None, ge=1)
    """None: the preset's."""

    def world(self) -> World:
        """Raises ConfigError: no such preset, or impossible parameters."""
        changes: dict[str, object] = {"seed": self.seed, "days": self.days}
        return World(load_world_config(self.preset, changes=changes))


def stream(
    world: World, *, ingested_at: int, threads: int = 2, publisher: Publisher | None = None
) -> Iterator[pa.Table]:
    """Events of all days as INTERACTIONS tables, a table for each chunk of users and day, under
    the logging policy. Chunks do not depend on each other, so threads change nothing.
    """
    publisher = publisher or Publisher(world)
    size = world.config.chunk
    edges = [*range(0, world.num_users, size), world.num_users]
    states = [State.fresh(world, a, b) for a, b in pairwise(edges)]

    def live(state: State, logging: LoggingPolicy) -> pa.Table:
        events = Events.concat(live_day(world, state, logging.day, logging=logging))
        return publisher.interactions(events, ingested_at=ingested_at)

    with ThreadPoolExecutor(threads) as pool:
        for day in range(world.config.days):
            logging = LoggingPolicy(world, day)
            there = [state for state in states if state.first < world.users_on(day)]
            for start in range(0, len(there), threads):
                some = there[start : start + threads]
                yield from pool.map(live, some, repeat(logging))


def load_simulated(config: SimulatedConfig, *, cache: Path, now: int) -> Batch:
    """The whole world as one batch; images, if it has some, are drawn into `cache`."""
    world = config.world()
    publisher = Publisher(world)
    interactions = pa.concat_tables(stream(world, ingested_at=now, publisher=publisher))
    images = None
    if world.config.catalogue.images:
        folder = cache / "simulated" / f"{world.config.name}-{world.config.seed}"
        images = draw_all(world, folder, until=world.num_items)
    return Batch.checked(
        f"simulated world '{world.config.name}'",
        interactions.combine_chunks(),
        publisher.items(0, world.num_items, images=images),
        publisher.users(0, world.num_users),
    )
