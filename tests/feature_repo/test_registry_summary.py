"""A process that reads online states by the summary of the registry doesn't import Feast."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, open_store
from shortlist.feature_store.online.tables import connect, oldest_stamp, read_rows
from shortlist.feature_store.registry_summary import SUMMARY, RegistrySummary
from shortlist.feature_store.store import REGISTRY
from tests.feature_repo.conftest import UNTIL

MakeHome = Callable[[], tuple[Settings, dict]]

READ = """
import sys
import numpy as np
from shortlist.config import Settings
from shortlist.feature_store import OnlineReader

rows = OnlineReader(Settings()).read(["u1"], [""], np.array([int(sys.argv[1])]))
print(rows.user["user_events"].tolist(), sorted({"feast", "pandas"} & set(sys.modules)))
"""


def read_elsewhere(settings: Settings) -> str:
    """Read a user's states in another process; return them and the slow modules it imported."""
    environment = os.environ | {"SHORTLIST_HOME": str(settings.home)}
    command = [sys.executable, "-c", READ, str(UNTIL)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_states_are_read_without_feast(home: Settings) -> None:
    assert read_elsewhere(home) == "[5.0] []"


def test_without_a_summary_of_this_registry_the_registry_is_read(make_home: MakeHome) -> None:
    settings, _ = make_home()
    registry = settings.feast / REGISTRY
    written = RegistrySummary.read(registry)
    assert written == RegistrySummary.of(open_store(settings))
    content = json.loads((settings.feast / SUMMARY).read_text())
    for changed in ("no json", json.dumps(content | {"registry": "0"}), json.dumps([])):
        (settings.feast / SUMMARY).write_text(changed)
        assert RegistrySummary.read(registry) is None
    rows = OnlineReader(settings).read(["u1"], [""], np.array([UNTIL]))
    assert rows.user["user_events"].tolist() == [5]


def test_rows_older_than_the_ttl_count_as_unknown(tmp_path: Path) -> None:
    connection = connect(tmp_path / "online.db")
    connection.execute('CREATE TABLE "p_v" (entity_key BLOB, event_ts INTEGER, x REAL)')
    connection.executemany(
        'INSERT INTO "p_v" VALUES (?, ?, ?)', [(b"a", 100, 1.0), (b"b", 50, 2.0)]
    )
    connection.execute("CREATE TABLE materialized (view TEXT PRIMARY KEY, until INTEGER)")
    connection.execute("INSERT INTO materialized VALUES ('v', 160)")
    assert oldest_stamp(connection, "v", ttl=0, clock="replay") is None
    assert oldest_stamp(connection, "v", ttl=60, clock="replay") == 100
    keys = [b"b", b"a", b"c"]
    assert read_rows(connection, "p_v", keys, ["x"], since=100) == [None, (100, 1.0), None]
    assert read_rows(connection, "p_v", keys, ["x"], since=None) == [(50, 2.0), (100, 1.0), None]
