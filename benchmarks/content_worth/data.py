"""Data sets of `shortlist bench content`: logs with hidden items, and their requests.

A tenth of the items is hidden: their events are removed from training, validation and all
histories. In the test window they are wanted, as items that were added yesterday would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._event_log import EventLog
from models.content.reviews import Reviews
from models.data import TrainingData, Validation
from models.queries import Queries
from shortlist import columns as c
from shortlist.contracts import TIMESTAMP, microseconds, sort_by_time
from shortlist.datasets.batch import interactions_table
from shortlist.datasets.config import SimulatedConfig
from shortlist.items.catalogue import Catalogue
from shortlist.splits import WINDOWS, Windows, draw_requests, split_windows
from simulation.source import drawn_images, open_world, stream
from simulation.tables import Publisher
from simulation.world import World

HIDDEN = 0.1
"""Share of the items that are hidden."""
REQUESTS = {"validation": 1, "test": 2}
"""Maximum number of requests of each user."""
HOUR = c.MICROSECONDS_PER_HOUR


@dataclass(frozen=True)
class Log:
    """A log, its catalogue and its windows, before items are hidden."""

    name: str
    seed: int
    events: pa.Table  # target events, sorted by time
    items: pa.Table
    reviews: pa.Table  # events with a text, sorted by time
    attributes: dict[str, dict[str, str]]
    windows: Windows
    world: World | None = None

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.from_items(self.items)


def simulated(
    preset: str, *, seed: int, targets: Sequence[str], days: int, cache: Path, least: float = 0
) -> Log:
    """Return a simulated world's log.

    Args:
        targets: event types that models learn to predict.
        least: smallest value of a target event; others are dropped.
    """
    config = SimulatedConfig(preset=preset, seed=seed, days=days)
    world = open_world(config)
    publisher = Publisher(world)
    every = sort_by_time(pa.concat_tables(stream(world, ingested_at=0, publisher=publisher)))
    images = drawn_images(world, cache, days=days)
    chosen = pc.is_in(every.column(c.EVENT_TYPE), value_set=pa.array(targets))
    if least:
        chosen = pc.and_(
            chosen, pc.fill_null(pc.greater_equal(every.column(c.VALUE), least), False)
        )
    events = every.filter(chosen)
    users = publisher.users(0, world.users_on(days - 1)).to_pylist()
    times = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
    return Log(
        name=f"simulated {preset}",
        seed=seed,
        events=events,
        items=publisher.items(0, world.items_on(days - 1), images=images),
        reviews=every.filter(every.column(c.TEXT).is_valid()),
        attributes={row[c.USER_ID]: dict(row[c.ATTRIBUTES] or []) for row in users},
        windows=split_windows(times, (0.75, 0.05, 0.1, 0.1)),
        world=world,
    )


def movielens_1m(folder: Path, *, seed: int, users: int, newest: int) -> Log:
    """Return the newest films of some users of MovieLens-1M, with plot summaries.

    The data has no times. Each user's last five films are the test window, the five before the
    validation window.
    """
    table = pq.read_table(folder / "ml1m_sequences.parquet", columns=["user_id", "movie_id", "pos"])
    user, film, order = (table.column(name).to_numpy() for name in table.column_names)
    drawn = np.random.default_rng([seed, 1]).permutation(np.unique(user))[:users]
    length = np.zeros(user.max() + 1, dtype=np.int64)
    np.maximum.at(length, user, order.astype(np.int64) + 1)
    to_end = length[user] - order  # 1 for a user's last film
    kept = np.isin(user, drawn) & (to_end <= newest)
    end = 10_000 * HOUR
    events = interactions_table(
        user_id=user[kept].astype(str),
        item_id=film[kept].astype(str),
        event_type="rating",
        value=None,
        seconds=(end - to_end[kept] * HOUR) / 1e6,
        source="ml-1m",
        ingested_at=0,
    )
    films = pq.read_table(folder / "movies_text.parquet").to_pylist()
    known = set(events.column(c.ITEM_ID).to_pylist())
    films = [row for row in films if str(row["movie_id"]) in known]
    items = pa.table(
        {
            c.ITEM_ID: [str(row["movie_id"]) for row in films],
            c.TITLE: [row["Title"] for row in films],
            c.DESCRIPTION: pa.array([row["overview"] for row in films], pa.string()),
            c.CATEGORIES: pa.array(
                [(row["Genres"] or "").split("|") for row in films], pa.list_(pa.string())
            ),
            c.AVAILABLE: [True] * len(films),
        }
    )
    edges = (0, end - 14 * HOUR, end - 10 * HOUR, end - 5 * HOUR, end)
    events = sort_by_time(events)
    return Log("MovieLens-1M", seed, events, items, events.slice(0, 0), {}, Windows(edges))


class HiddenItemsLog(EventLog):
    """A log without the events of the hidden items, and the requests of its windows."""

    def __init__(self, log: Log):
        self.log = log
        rng = np.random.default_rng([log.seed, 2])
        n = log.catalogue.num_items
        self.hidden = np.zeros(n + 1, dtype=bool)
        self.hidden[1 + rng.permutation(n)[: round(HIDDEN * n)]] = True
        item_idx = log.catalogue.vocab.encode(log.events.column(c.ITEM_ID).to_pylist())
        kept = log.events.filter(pa.array(~self.hidden[item_idx] & (item_idx > 0)))
        super().__init__(kept, catalogue=log.catalogue, attributes=log.attributes)

    @cached_property
    def cold(self) -> np.ndarray:
        """(N + 1,) bool: items without a training event, hidden or really new."""
        cold = self.training.item_counts == 0
        cold[0] = False
        return cold

    @cached_property
    def training(self) -> TrainingData:
        """Everything before validation, without hidden items. Their reviews are hidden too."""
        end = self.log.windows["ranker_train"][1]

        def read_reviews() -> Reviews:
            written = self.log.reviews
            table = written.filter(
                pc.less(written.column(c.EVENT_TIMESTAMP), pa.scalar(end, TIMESTAMP))
            )
            items = self.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist())
            return Reviews(np.where(self.hidden[items], 0, items), table.column(c.TEXT).to_pylist())

        return self.training_data(self.until(end), read_reviews=read_reviews)

    @cached_property
    def validation(self) -> Validation:
        queries, relevant = self.requests("validation")
        warm = [items[~self.cold[items]] for items in relevant]
        return Validation([(queries, self.no_items, warm)])

    def requests(self, window: str) -> tuple[Queries, list[np.ndarray]]:
        """Return the requests of a window, and the relevant items of each, hidden ones included.

        Histories don't contain hidden items.
        """
        drawn = draw_requests(
            self.log.events,
            self.log.windows[window],
            rng=np.random.default_rng([self.log.seed, WINDOWS.index(window)]),
            max_per_user=REQUESTS[window],
        )
        rows = np.array([i for i, name in enumerate(drawn.user_ids) if name in self.places])
        return self.queries(self.until(self.log.windows[window][1]), drawn.take(rows))
