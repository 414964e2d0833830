"""A simulated world as a data source for `shortlist ingest`.

Its log is published as a stream of daily tables in bounded memory, or as one batch.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from shortlist.datasets.batch import Batch
from shortlist.datasets.config import SimulatedConfig
from shortlist.datasets.staging import Stager
from shortlist.datasets.tables import is_new, stage_catalogue, stage_stream
from simulation.config import load_world_config
from simulation.day import simulate_day
from simulation.events import Events
from simulation.images import draw_all
from simulation.policy import LoggingPolicy
from simulation.state import State
from simulation.tables import Publisher
from simulation.world import World


def open_world(config: SimulatedConfig) -> World:
    """Build the world that a data source's config describes.

    Raises:
        ConfigError: the preset doesn't exist, or a parameter is out of bounds.
    """
    changes: dict[str, object] = {"seed": config.seed, "days": config.days}
    return World(load_world_config(config.preset, changes=changes))


def published_days(config: SimulatedConfig, world: World) -> int:
    """Return the number of days whose events are published: `log_days`, or else all days."""
    return min(config.log_days or world.config.days, world.config.days)


def stream(
    world: World,
    *,
    ingested_at: int,
    days: int | None = None,
    threads: int = 2,
    publisher: Publisher | None = None,
) -> Iterator[pa.Table]:
    """Simulate days under the logging policy; yield one INTERACTIONS table per day and user chunk.

    A chunk is a group of users. Chunks are independent of each other, so the number of threads
    doesn't change the events.

    Args:
        ingested_at: value of the column `ingested_at`, in microseconds.
        days: number of days from day 0; None simulates all days of the config.
        publisher: builder of the tables; None builds it.
    """
    publisher = publisher or Publisher(world)
    size = world.config.chunk
    edges = [*range(0, world.num_users, size), world.num_users]
    states = [State.fresh(world, a, b) for a, b in pairwise(edges)]

    def run_day(state: State, logging: LoggingPolicy) -> pa.Table:
        events = Events.concat(simulate_day(world, state, logging.day, logging=logging))
        return publisher.interactions(events, ingested_at=ingested_at)

    # Jobs in the queue: one more than threads, so that no thread idles while the caller reads. A
    # chunk has at most one job, because a day starts from the chunk's state after the day before.
    under_way: deque[tuple[State, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for day in range(days or world.config.days):
            logging = LoggingPolicy(world, day)
            for state in states:
                if state.first >= world.users_on(day):
                    continue
                while len(under_way) > threads or any(state is other for other, _ in under_way):
                    yield under_way.popleft()[1].result()
                under_way.append((state, pool.submit(run_day, state, logging)))
        while under_way:
            yield under_way.popleft()[1].result()


def stage_simulated(stager: Stager) -> None:
    """Write a world's tables for validation, one day at a time to bound memory.

    This is the reader of the source type "simulated". It does nothing if the same world was
    ingested before.
    """
    config = stager.config.simulated or SimulatedConfig()
    world = open_world(config)
    days = published_days(config, world)
    if not is_new(stager, "simulated", f"{world.config.model_dump_json()} {days}"):
        return
    publisher = Publisher(world)
    images = drawn_images(world, stager.settings.cache, days=days)
    tables = stream(world, ingested_at=stager.now, days=days, publisher=publisher)
    stage_stream(stager, "simulated", tables)
    stage_catalogue(
        stager,
        publisher.items(0, world.items_on(days - 1), images=images),
        publisher.users(0, world.users_on(days - 1)),
    )


def load_simulated(config: SimulatedConfig, *, cache: Path, now: int) -> Batch:
    """Return a world's log, items and users as one batch; write any images below `cache`."""
    world = open_world(config)
    days = published_days(config, world)
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
    """Draw images of the items that exist after `days` days; return their paths.

    Returns None if the world's config turns images off.
    """
    if not world.config.catalogue.images:
        return None
    folder = cache / "simulated" / f"{world.config.name}-{world.config.seed}"
    return draw_all(world, folder, until=world.items_on(days - 1))
