"""Reading from real databases: SQLite always, PostgreSQL on a server started by the test."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy

from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.lake import Lake, open_staged
from shortlist.lake.staging import staged_events

TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]
NOW = 1_700_000_000_000_000
POSTGRES = shutil.which("postgres") or next(
    (str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None
)
COLUMNS = {
    **{"user_id": "customer", "item_id": "sku", "event_timestamp": "at"},
    **{"value": "paid", "event_type": "kind"},
}
EVENTS = {
    "columns": COLUMNS,
    "timestamp_unit": "iso",
    "time_zone": "Europe/Berlin",
}


def fill(engine: sqlalchemy.Engine, *, first: int, last: int) -> None:
    with engine.begin() as connection:
        for i in range(first, last):
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO orders VALUES (:id, :customer, :sku, :kind, :paid, :at)"
                ),
                {
                    **{"id": i, "customer": i % 7, "sku": f"s{i % 5}", "kind": "purchase"},
                    **{
                        "paid": "abc" if i == 3 else f"{i / 4}",
                        "at": f"2024-01-{i % 28 + 1:02d} 12:00:00",
                    },
                },
            )


def make(engine: sqlalchemy.Engine, *, time_type: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "CREATE TABLE orders (id INTEGER, customer INTEGER, sku TEXT, kind TEXT, paid TEXT,"
                f" at {time_type})"
            )
        )
        connection.execute(sqlalchemy.text("CREATE TABLE items (sku TEXT, name TEXT)"))
        for i in range(5):
            row = {"sku": f"s{i}", "name": f"S {i}"}
            connection.execute(sqlalchemy.text("INSERT INTO items VALUES (:sku, :name)"), row)
    fill(engine, first=0, last=25)


def config(url: str, **more: Any) -> DataConfig:
    database = {
        "url": url,
        "interactions": EVENTS | {"table": "orders", "watermark": "id"},
        "items": {"table": "items", "columns": {"item_id": "sku", "title": "name"}},
        "chunk_rows": 10,
    }
    return DataConfig.model_validate(
        {"source": "database", "database": database | more, "target_events": ["purchase"]}
    )


def check_a_database(url: str, engine: sqlalchemy.Engine, home: Path, take_in: TakeIn) -> None:
    """Check chunks, a bad row, the watermark, a query and errors, with any database."""
    settings = Settings(home=home)
    result, bad = take_in(config(url), settings)
    assert (result["read"], result["accepted"], result["quarantined"]) == (25, 24, 1)
    assert bad[0]["expectation"] == "value.number"
    assert json.loads(bad[0]["original"])["paid"] == "abc"
    events = Lake(settings.lake).interactions().to_pylist()
    noon = next(row for row in events if row["user_id"] == "1" and row["item_id"] == "s1")
    assert noon["event_timestamp"].hour == 11  # noon in Berlin in winter, in UTC
    assert Lake(settings.lake).items().num_rows == 5

    fill(engine, first=25, last=40)
    batch = stage_source(config(url), settings, now=NOW)
    assert batch.read["interactions"] == 16  # 15 new rows, and the row of the watermark again
    folder, _ = open_staged(settings.lake, batch.batch_id)
    parts = sorted(path.name for path in (folder / "interactions").iterdir())
    assert parts == ["00000.parquet", "00001.parquet"]  # ten rows per chunk
    with duckdb.connect() as connection:
        original = connection.sql(
            f"SELECT to_json(original)::VARCHAR FROM {staged_events(folder, original=True)} LIMIT 1"
        ).fetchall()[0][0]
    assert '"customer":"3"' in original
    result, _ = take_in(config(url), settings)
    assert (result["accepted"], result["duplicates"]) == (15, 1)

    query = "SELECT * FROM orders WHERE kind = 'purchase' AND id >= 38"
    asked = config(url, interactions=EVENTS | {"query": query})
    result, _ = take_in(asked, settings)
    assert (result["read"], result["duplicates"]) == (2, 2)
    missing = {**EVENTS, "columns": {**COLUMNS, "value": "nowhere"}}
    with pytest.raises(DatasetError, match="no column 'nowhere'"):
        take_in(config(url, interactions=missing | {"table": "orders"}), settings)
    with pytest.raises(DatasetError, match="no_such"):
        take_in(config(url, interactions=EVENTS | {"table": "no_such"}), settings)


def test_sqlite(tmp_path: Path, take_in: TakeIn) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = sqlalchemy.create_engine(url)
    make(engine, time_type="TEXT")
    check_a_database(url, engine, tmp_path / "home", take_in)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_nobody() -> list[str]:
    """Return a command prefix that drops root privileges; PostgreSQL refuses to run as root."""
    return (
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    )


@pytest.fixture
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server in a temporary folder, which is stopped after the test."""
    if POSTGRES is None:
        pytest.fail("the test is left out where PostgreSQL is not installed")
    programs = Path(POSTGRES).resolve().parent
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        data = Path(folder) / "data"
        if as_nobody():
            os.chown(folder, 65534, 65534)
        subprocess.run(
            [*as_nobody(), str(programs / "initdb"), "-D", str(data), "-U", "shop", "-A", "trust"],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        server = subprocess.Popen(
            [
                *(*as_nobody(), str(programs / "postgres"), "-D", str(data), "-p", str(port)),
                *("-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            url = f"postgresql+psycopg://shop@127.0.0.1:{port}/postgres"
            wait_for(url)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def wait_for(url: str) -> None:
    import time

    engine = sqlalchemy.create_engine(url)
    deadline = time.monotonic() + 60
    while True:
        try:
            engine.connect().close()
            break
        except sqlalchemy.exc.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL did not come up in a minute"
            time.sleep(0.2)
    engine.dispose()


if POSTGRES is None:
    print("PostgreSQL is not installed: its test is left out")
else:

    def test_postgresql(
        postgres: str, tmp_path: Path, take_in: TakeIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = sqlalchemy.create_engine(postgres)
        make(engine, time_type="TIMESTAMP")
        monkeypatch.setenv("SHOP_USER", "shop")
        url = postgres.replace("shop@", "$SHOP_USER@")
        check_a_database(url, engine, tmp_path / "home", take_in)
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "database url: Could not parse"),
        ("oracle://x", "database url: .*want e.g. sqlite:///shop.db"),
        ("sqlite:///$NOT_SET_ANYWHERE", r"\$NOT_SET_ANYWHERE is not set in the environment"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_reached(tmp_path: Path, url: str, complaint: str) -> None:
    with pytest.raises(DatasetError, match=complaint):
        stage_source(config(url), Settings(home=tmp_path), now=NOW)


def test_a_watermark_must_be_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make(sqlalchemy.create_engine(url), time_type="TEXT")
    wrong = config(url, interactions=EVENTS | {"table": "orders", "watermark": "nr"})
    with pytest.raises(DatasetError, match=r"nr"):
        stage_source(wrong, Settings(home=tmp_path / "home"), now=NOW)
    for table in ({}, {"table": "orders", "query": "SELECT 1"}):
        with pytest.raises(ValueError, match="want either `table` or `query`"):
            config(url, interactions=EVENTS | table)
