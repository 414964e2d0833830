"""Fixtures: a small featurized lake, shared by the tests of the feature store, and Redis."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.feast_stores.redis_server import running_redis
from flows.featurize import featurize
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.lake import Lake

START = 19_000 * DAY
UNTIL = START + 3 * DAY + 6 * HOUR
EVENTS = [  # user, item, microseconds after START, value; sorted by time
    ("u1", "a", 0, 4.0),
    ("u1", "b", 0, None),
    ("u2", "a", 1, 2.0),
    ("u1", "a", DAY, 5.0),
    ("u1", "c", DAY + 5, 3.0),
    ("u2", "c", 2 * DAY - 1, 1.0),
    ("u1", "d", 2 * DAY, 3.0),
    ("u3", "a", 3 * DAY + HOUR, 5.0),
    ("u2", "d", UNTIL - START - 1, 5.0),
    ("u4", "a", UNTIL - START, 1.0),  # not yet known to anyone
    ("u1", "e", UNTIL - START + 7, 1.0),
]
GROUPED = [  # user, item, microseconds after START, event type; no target events
    ("u1", "a", 5, "impression"),
    ("u1", "f", 5, "impression"),
    ("u1", "f", 9, "click"),
    ("u2", "f", DAY, "impression"),
    ("u2", "f", 2 * DAY, "hide"),
    ("u3", "c", 3 * DAY + 2 * HOUR, "purchase"),
    ("u4", "a", UNTIL - START, "view"),  # not yet known to anyone
]
SEARCHES = [  # user, item, microseconds after START, query
    ("u1", "b", DAY + 2, "red a"),
    ("u1", "b", 2 * DAY + 7, "b"),
    ("u2", "c", 2 * DAY - 1, "c c"),
    ("u4", "a", UNTIL - START, "a"),  # not yet known to anyone
]


def publish(settings: Settings) -> None:
    events = [(*event, "rating", None) for event in EVENTS]
    events += [(user, item, after, None, kind, None) for user, item, after, kind in GROUPED]
    events += [(user, item, after, None, "search", query) for user, item, after, query in SEARCHES]
    time = pa.array([START + event[2] for event in events], pa.int64()).cast(TIMESTAMP)
    n = len(events)
    columns = {
        "event_id": [f"e{i}" for i in range(n)],
        "user_id": [event[0] for event in events],
        "item_id": [event[1] for event in events],
        "event_type": [event[4] for event in events],
        "event_timestamp": time,
        "event_order": range(n),
        "ingested_at": time,
        "value": [event[3] for event in events],
        "query": [event[5] for event in events],
        "surface": ["web"] * n,
        "source": ["test"] * n,
    }
    interactions = pa.table(
        [pa.array(columns.get(field.name, [None] * n), field.type) for field in INTERACTIONS],
        schema=INTERACTIONS,
    )
    items = [{"item_id": i, "title": i, "categories": [], "available": True} for i in "abcdef"]
    users = [{"user_id": f"u{i}", "attributes": [("group", f"g{i % 2}")]} for i in range(1, 5)]
    Lake(settings.lake).publish(
        "tiny",
        interactions,
        pa.Table.from_pylist(items, schema=ITEMS),
        pa.Table.from_pylist(users, schema=USERS),
    )


ONLINE_STORES = ["sqlite", *(["redis"] if shutil.which("redis-server") else [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "redis" not in ONLINE_STORES:
        terminalreporter.write_line("redis-server is not installed: tests against Redis left out")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the argument `online_store` with each available online store."""
    if "online_store" in metafunc.fixturenames:
        metafunc.parametrize("online_store", ONLINE_STORES, indirect=True)


@pytest.fixture
def online_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The setting of an online store: `sqlite`, or the URI of an empty Redis server."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    with running_redis(tmp_path / "redis") as address:
        yield f"redis://{address}/0"


@pytest.fixture(scope="session")
def make_home(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], tuple[Settings, dict[str, Any]]]:
    """A function that makes a new featurized home, for tests that write."""

    def make() -> tuple[Settings, dict[str, Any]]:
        settings = Settings(home=Path(tmp_path_factory.mktemp("home")))
        publish(settings)
        return settings, featurize(settings, ("rating",), until=UNTIL)

    return make


@pytest.fixture(scope="session")
def featurized(make_home: Callable[[], tuple[Settings, dict[str, Any]]]) -> tuple[Settings, dict]:
    return make_home()


@pytest.fixture(scope="session")
def home(featurized: tuple[Settings, dict]) -> Settings:
    """A featurized home that all tests share; they must not write into it."""
    return featurized[0]
