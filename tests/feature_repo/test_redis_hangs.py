"""A request gives up a Redis that doesn't answer, and reads it again when it does."""

import shutil
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.feast_stores.redis_server import running_redis
from flows.featurize import featurize
from shortlist.config import Settings
from shortlist.feature_store import ReopeningReader
from tests.feature_repo.conftest import UNTIL, publish

pytestmark = pytest.mark.skipif(
    not shutil.which("redis-server"), reason="redis-server is not installed"
)


def server(port: int) -> psutil.Process:
    """Return the process that listens on a port."""
    (pid,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    assert pid is not None
    return psutil.Process(pid)


def test_a_request_gives_up_at_its_deadline_and_the_next_one_works(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as address:
        assert address is not None
        settings = Settings(
            home=tmp_path / "home", online_store=f"redis://{address}/0", online_timeout_ms=200
        )
        publish(settings)
        featurize(settings, ("rating",), until=UNTIL)
        reader = ReopeningReader(settings)

        def events() -> list[float]:
            rows = reader.read(["u1", "u2"], ["", ""], np.full(2, UNTIL))
            return rows.user["user_events"].tolist()

        assert events() == [5, 3]
        process = server(int(address.split(":")[1]))
        process.suspend()  # connections stay open, nothing is answered
        failures: list[BaseException] = []

        def fail() -> None:
            try:
                events()
            except Exception as error:
                failures.append(error)

        try:
            thread = threading.Thread(target=fail, daemon=True)
            thread.start()
            thread.join(20)  # redis-py itself would try four times, with pauses
            assert not thread.is_alive()
        finally:
            process.resume()
        assert "Timeout" in repr(failures)
        assert events() == [5, 3]
