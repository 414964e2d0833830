"""Data sets of the benchmark as target events in order of time.

Shapes: E events.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.closed_loop.memory import Targets
from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import ConfigError, Settings
from shortlist.contracts import ITEMS, TIMESTAMP, check, event_codes, microseconds
from shortlist.datasets.batch import Batch, attribute_maps
from shortlist.datasets.public.movielens import load_movielens_100k
from shortlist.items.catalogue import Catalogue
from simulation import SimulatedConfig
from simulation.source import load_simulated

DATASETS = ("ml-1m", "movielens-100k", "shop")
MINUTE = 60_000_000
LAST_DAY = 12_000 * MICROSECONDS_PER_DAY
"""Midnight after the last event of a data set without times."""
WINDOWS = (0.8, 0.9)
"""Shares of the events before the ranker's window and before the test window."""


@dataclass(frozen=True)
class Log:
    """Target events of a data set, sorted by time. Users and items are rows from 0."""

    name: str
    items: pa.Table  # ITEMS contract, sorted by item_id: row i is item i
    user_ids: list[str]
    attributes: dict[str, dict[str, str]]
    events: Targets
    edges: tuple[int, int]
    """Microseconds: start of the ranker's window and of the test window."""
    grows: bool = False
    """Whether items are added to the catalogue during the log, at their publication time."""
    has_time: bool = True
    """False: the times only encode the order of a user's events."""

    @property
    def item_ids(self) -> list[str]:
        return self.items.column(c.ITEM_ID).to_pylist()


def load_log(name: str, path: Path | None) -> Log:
    """Load a data set by its name.

    Args:
        path: folder of the files. "shop" is simulated and takes none; "movielens-100k" without a
            path is downloaded as in the main job.

    Raises:
        ConfigError: the name is unknown, or a path is missing or has other files.
    """
    if name == "ml-1m":
        return load_ml_1m(path)
    if name == "movielens-100k":
        return load_100k(path)
    if name == "shop":
        if path is not None:
            raise ConfigError("--dataset shop is simulated, want it without --path")
        return load_shop()
    raise ConfigError(f"--dataset {name} is unknown, want one of {', '.join(DATASETS)}")


def load_100k(path: Path | None) -> Log:
    """Load MovieLens-100K; every rating is a target event, as in configs/movielens-100k.toml."""
    if path is not None and not (path / "u.data").is_file():
        raise ConfigError(f"--path {path}: has no file u.data, want the folder of MovieLens-100K")
    batch = load_movielens_100k(
        Settings().cache, origin="pip" if path is None else "grouplens", path=path, now=0
    )
    return from_batch("movielens-100k", batch, ("rating",))


def load_shop() -> Log:
    """Simulate the shop of configs/simulated-shop.toml, without its pictures' files."""
    batch = load_simulated(SimulatedConfig(preset="shop"), cache=Settings().cache, now=0)
    return from_batch("shop", batch, ("click", "purchase"))


def from_batch(name: str, batch: Batch, target_events: tuple[str, ...]) -> Log:
    """Return the target events of a batch; the windows are shares of them in order of time."""
    table = batch.interactions
    table = table.filter(pc.is_in(table.column(c.EVENT_TYPE), pa.array(target_events)))
    table = table.sort_by([(c.EVENT_TIMESTAMP, "ascending"), (c.EVENT_ORDER, "ascending")])
    items = batch.items.sort_by(c.ITEM_ID).combine_chunks()
    user_ids = batch.users.column(c.USER_ID).to_pylist()
    time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
    first, second = (int(time[int(share * len(time))]) for share in WINDOWS)
    rows = batch.users.column(c.ATTRIBUTES).to_pylist()
    return Log(
        name=name,
        items=items,
        user_ids=user_ids,
        attributes={u: dict(row or []) for u, row in zip(user_ids, rows, strict=True)},
        events=Targets(
            user=_rows(table.column(c.USER_ID), user_ids),
            item=_rows(table.column(c.ITEM_ID), items.column(c.ITEM_ID).to_pylist()),
            time=time,
            value=table.column(c.VALUE).to_numpy().astype(np.float64),
            type_code=event_codes(table.column(c.EVENT_TYPE)),
            context=np.full(len(time), "", dtype=str),
        ),
        edges=(first, second),
        grows=name == "shop",
    )


def load_ml_1m(folder: Path | None) -> Log:
    """Load MovieLens-1M in the order of `pos`, with overviews, directors and actors.

    The last event of each user is a minute before LAST_DAY, the one before it two minutes, and so
    on. So every user has one event in the ranker's window and one in the test window.
    """
    names = ("ml1m_sequences.parquet", "movies_text.parquet", "users.parquet")
    if folder is None or not all((folder / name).is_file() for name in names):
        raise ConfigError(f"--path {folder}: want the folder with {', '.join(names)}")
    table = pq.read_table(folder / names[0], columns=["user_id", "movie_id", "rating", "pos"])
    films = pq.read_table(folder / names[1])
    films = films.filter(pc.is_in(films.column("movie_id"), pc.unique(table.column("movie_id"))))
    people = pq.read_table(folder / names[2])
    items = _films(films)
    user = table.column("user_id").to_numpy()
    users, user = np.unique(user, return_inverse=True)
    user_ids = [str(each) for each in users]
    pos = table.column("pos").to_numpy()
    left = np.bincount(user)[user] - pos
    time = LAST_DAY - left * MINUTE
    order = np.lexsort((user, time))
    groups = {
        name: people.column(name).cast(pa.string()).to_pylist()
        for name in ("gender", "age", "occupation")
    }
    ids = people.column("userID").cast(pa.string()).to_pylist()
    item = _rows(table.column("movie_id").cast(pa.string()), items.column(c.ITEM_ID).to_pylist())
    value = table.column("rating").to_numpy().astype(np.float64)
    events = Targets(
        user=user.astype(np.int64),
        item=item,
        time=time,
        value=value,
        type_code=event_codes(pa.chunked_array([["rating"]] * 1)).repeat(len(time)),
        context=np.full(len(time), "", dtype=str),
    )
    return Log(
        name="ml-1m",
        items=items,
        user_ids=user_ids,
        attributes={
            user_id: {name: groups[name][row] for name in groups} for row, user_id in enumerate(ids)
        },
        events=events.take(order),
        edges=(LAST_DAY - 2 * MINUTE, LAST_DAY - MINUTE),
        has_time=False,
    )


def _films(films: pa.Table) -> pa.Table:
    director, actors, overview, genres = (
        films.column(name).fill_null("").to_pylist()
        for name in ("director", "actors", "overview", "Genres")
    )
    n = films.num_rows
    published = [f"{year:.0f}-01-01" if year else None for year in films.column("Year").to_pylist()]
    table = pa.table(
        {
            c.ITEM_ID: films.column("movie_id").cast(pa.string()),
            c.TITLE: films.column("Title"),
            c.DESCRIPTION: pa.array(
                [
                    ". ".join(part for part in (d, ", ".join(a.split("|")[:3]), o) if part)
                    for d, a, o in zip(director, actors, overview, strict=True)
                ]
            ),
            c.CATEGORIES: pa.array(
                [[name for name in g.split("|") if name] for g in genres], pa.list_(pa.string())
            ),
            c.BRAND: pa.array([d or None for d in director], pa.string()),
            c.PRICE: pa.nulls(n, pa.float64()),
            c.PUBLISHED_AT: pc.strptime(pa.array(published), "%Y-%m-%d", "us").cast(TIMESTAMP),
            c.AVAILABLE: pa.array([True] * n),
            c.IMAGE: pa.nulls(n, pa.string()),
            c.ATTRIBUTES: attribute_maps(
                {"language": films.column("original_language").to_pylist()}
            ),
            c.UPDATED_AT: pa.nulls(n, TIMESTAMP),
        }
    )
    return check(table, ITEMS, where="ml-1m: films").sort_by(c.ITEM_ID).combine_chunks()


def _rows(values: pa.ChunkedArray, ids: list[str]) -> np.ndarray:
    """Return the place of each value in `ids`, (E,) int64."""
    return pc.index_in(values, value_set=pa.array(ids)).to_numpy().astype(np.int64)


def without_items(log: Log, hidden: np.ndarray) -> tuple[Catalogue, np.ndarray]:
    """Return the catalogue without the hidden items, and the rows of the events on the others.

    Args:
        hidden: (N,) bool by item row.
    """
    catalogue = Catalogue.from_items(log.items.filter(pa.array(~hidden)))
    return catalogue, np.flatnonzero(~hidden[log.events.item])


def hidden_items(log: Log, *, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the hidden items: (N,) bool by item row.

    Items that the shop published after the first window count as hidden too.
    """
    n = log.items.num_rows
    hidden = np.zeros(n, dtype=bool)
    hidden[rng.choice(n, size=round(share * n), replace=False)] = True
    if log.grows:
        hidden |= published_at(log) >= log.edges[0]
    return hidden


def published_at(log: Log) -> np.ndarray:
    """Return the (N,) publication times in microseconds, 0 where unknown."""
    return microseconds(log.items.column(c.PUBLISHED_AT)).fill_null(0).to_numpy()


def items_at(log: Log, moment: int) -> pa.Table:
    """Return the catalogue; items that are published later are unavailable."""
    if not log.grows:
        return log.items
    column = log.items.schema.get_field_index(c.AVAILABLE)
    available = pa.array(published_at(log) <= moment)
    return log.items.set_column(column, log.items.schema.field(column), available)
