"""`shortlist forget USER --now` leaves nothing of the person in any file of a home."""

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.forget import erase_pending, forget
from shortlist.behaviour.shown_items import ShownItems
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.feature_store import Tail
from shortlist.feature_store.online.keys import entity_keys
from shortlist.forgetting.requests import ForgetInbox
from shortlist.lake import Lake, LakeError
from shortlist.lake.leases import take_lease
from shortlist.lake.snapshot import current_folder
from shortlist.releases.release import MANIFEST, ReleaseStore, rewritten_manifest
from tests.conftest import ROOT
from tests.decoded import files_with

ID = "person-7f3a@example.com"
DAY = 86_400_000_000
START = 19_000 * DAY


def rename_user(home: Path, old: str, new: str) -> None:
    """Rename a user in all tables, logs and databases of a home, and name them in texts."""
    for path in home.rglob("*.parquet"):
        if not path.is_symlink() and "user_id" in pq.read_schema(path).names:
            _rename_in_table(path, old, new)
    for path in home.rglob("*.jsonl"):
        path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))
    with closing(sqlite3.connect(home / "feast" / "online_store.db")) as connection, connection:
        keys = [entity_keys("user_id", [one])[0] for one in (new, old)]
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%_user_%'"
        for (table,) in connection.execute(query).fetchall():
            connection.execute(f"UPDATE {table} SET entity_key = ? WHERE entity_key = ?", keys)
    for release in (home / "releases").glob("[!.]*/" + MANIFEST):
        _sign(release.parent)


def _rename_in_table(path: Path, old: str, new: str) -> None:
    table = pq.read_table(path)
    for column in {"user_id", "request_id", "session_id"} & set(table.column_names):
        values = [
            value
            if value is None
            else new
            if value == old
            else value.replace(f"-{old}", f"-{new}")
            if value.endswith(f"-{old}")
            else value
            for value in table.column(column).to_pylist()
        ]
        place = table.schema.get_field_index(column)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    path.unlink()  # it may be a hard link
    pq.write_table(table, path)


def _sign(release: Path) -> None:
    from shortlist.releases.release import hash_files

    (release / MANIFEST).write_text(rewritten_manifest(release, hash_files(release)))


def add_texts(home: Path, *, at: int = START) -> None:
    """Add traces at a time (microseconds), also in formats that usually hold no users."""
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / "refresh-1.log").write_text(f"user {ID} has 700 events in a minute\n")
    (home / "logs" / "old.log.gz").write_bytes(gzip.compress(f"event of {ID}\n".encode()))
    (home / "reports").mkdir(exist_ok=True)
    (home / "reports" / "page.html").write_text("<td>person-7f3a@example.com</td>")
    (home / "reports" / "page.json").write_text(json.dumps({"top": [{"user": ID, "n": 9}]}))
    (home / "cache").mkdir(exist_ok=True)
    (home / "cache" / "source.csv").write_text(f"user,item\n{ID},i1\n")
    settings = Settings()
    Tail.of(settings).insert([posted(1, event_timestamp=at, received_at=at)])
    shown = ShownItems.of(settings, days=lambda: 9.0)
    shown.record({"user_id": ID, "event_timestamp": at, "items": [{"item_id": "i1"}]})
    shown.flush()
    staged = home / "lake" / "incoming" / "abc" / "interactions"
    staged.mkdir(parents=True)
    pq.write_table(events(ID, [at]), staged / "00000.parquet")
    quarantine = home / "quarantine" / "abc"
    quarantine.mkdir(parents=True)
    bad = {"user_id": [None, "u2"], "original": [f'{{"user_id": "{ID}"}}', "{}"]}
    pq.write_table(pa.table(bad), quarantine / "interactions.parquet")


def posted(number: int, **fields: object) -> dict:
    row = {"event_id": f"e{number}", "user_id": ID, "item_id": "i1", "event_type": "view"}
    return row | {"event_timestamp": START + number, "received_at": START + number} | fields


def events(user_id: str, times: list[int]) -> pa.Table:
    rows = [
        {
            "event_id": f"{user_id[:3]}{time}",
            "user_id": user_id,
            "item_id": "i1",
            "event_type": "view",
            "event_timestamp": time,
            "event_order": 0,
            "ingested_at": time,
            "source": "file",
        }
        for time in times
    ]
    columns = [
        pa.array([row.get(f.name) for row in rows], pa.int64()).cast(f.type)
        if pa.types.is_timestamp(f.type)
        else pa.array([row.get(f.name) for row in rows], f.type)
        for f in INTERACTIONS
    ]
    return pa.table(columns, schema=INTERACTIONS)


def publish(lake: Lake, *tables: pa.Table) -> None:
    table = pa.concat_tables(tables)
    items = [{"item_id": "i1", "categories": [], "available": True}]
    users = [{"user_id": one} for one in sorted(set(table.column("user_id").to_pylist()))]
    lake.publish(
        f"b{lake.manifest.version}",
        table,
        pa.Table.from_pylist(items, schema=ITEMS),
        pa.Table.from_pylist(users, schema=USERS),
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A small home with traces of the person in the lake, the inbox and files of many formats."""
    home = tmp_path / "home"
    monkeypatch.setenv("SHORTLIST_HOME", str(home))
    lake = Lake(home / "lake")
    publish(lake, events(ID, [START + n * DAY for n in range(3)]), events("u2", [START]))
    publish(lake, events("u2", [START + DAY]))  # the first snapshot still exists
    inbox = home / "events" / "date=2026-11-30"
    inbox.mkdir(parents=True)
    lines = [posted(1), posted(2) | {"user_id": "u2"}]
    (inbox / "1-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    add_texts(home)
    return Settings()


def test_nothing_is_left_after_now_and_others_stay(settings: Settings) -> None:
    before = files_with(settings.home, ID)
    assert len(before) >= 12, before
    done = forget(settings, ID, now=True)
    assert done["left"] == []
    assert files_with(settings.home, ID) == []
    assert done["removed"]["lake"] == 5  # 3 events, the user, and a staged row
    assert done["removed"]["tail"] == done["removed"]["shown items"] == 1
    assert done["removed"]["quarantine"] == done["removed"]["posted events"] == 1
    lake = Lake(settings.lake)
    assert lake.interactions().column("user_id").to_pylist() == ["u2", "u2"]
    assert lake.manifest.rows == 2
    (proof,) = map(Path, done["proofs"])
    assert json.loads(proof.read_text())["complete"]
    assert erase_pending(settings)["proofs"] == []


def test_without_now_the_request_waits_for_the_compaction(settings: Settings) -> None:
    done = forget(settings, ID)
    assert done["removed"] == {"tail": 1, "shown items": 1}
    assert "posted events: erased by the next compaction" in done["left"]
    assert [one.user_id for one in ForgetInbox(settings).pending()] == [ID]
    assert erase_pending(settings)["left"] == []
    assert files_with(settings.home, ID) == []


def test_a_person_who_comes_back_keeps_only_later_events(settings: Settings) -> None:
    forget(settings, ID)
    (request,) = ForgetInbox(settings).pending()
    publish(Lake(settings.lake), events(ID, [request.received_at + 5]))
    done = erase_pending(settings)
    assert done["left"] == []
    table = Lake(settings.lake).interactions()
    assert table.column("user_id").to_pylist().count(ID) == 1
    assert ID in Lake(settings.lake).users().column("user_id").to_pylist()


def test_a_running_process_that_reads_the_lake_is_not_disturbed(settings: Settings) -> None:
    take_lease(settings.lake, "run-1", version=1)
    with pytest.raises(LakeError, match="run-1 reads a snapshot of the lake"):
        forget(settings, ID, now=True)
    assert (settings.lake / "snapshots" / "000001").is_dir()
    assert ForgetInbox(settings).pending()


KILLED = """
import os, signal, sys
from flows.forget import forget
from shortlist.config import Settings
from shortlist.forgetting import erase
name, left = sys.argv[1], int(sys.argv[2])
original = getattr(erase, name)
def dying(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)
setattr(erase, name, dying)
forget(Settings(), sys.argv[3], now=True)
"""


@pytest.mark.parametrize(
    ("step", "call"), [("remove_from_lake", 1), ("erase_file", 4), ("mentions", 1)]
)
def test_a_killed_erasure_is_finished_by_the_next(settings: Settings, step: str, call: int) -> None:
    environment = os.environ | {"SHORTLIST_HOME": str(settings.home)}
    arguments = [sys.executable, "-c", KILLED, step, str(call), ID]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert [one.user_id for one in ForgetInbox(settings).pending()] == [ID]
    assert erase_pending(settings)["left"] == []
    assert files_with(settings.home, ID) == []
    assert Lake(settings.lake).manifest.rows == 2


def test_a_served_home_forgets(
    served_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All formats of a real home: states, online store, runs, releases, logs, reports, FAISS."""
    home = tmp_path / "home"
    shutil.copytree(
        served_home, home, symlinks=True, ignore=shutil.ignore_patterns("prefect", "bentoml")
    )
    monkeypatch.setenv("SHORTLIST_HOME", str(home))
    forget_in_a_served_home(home)


def forget_in_a_served_home(home: Path) -> None:
    settings = Settings()
    log = next((home / "serving_log").rglob("*.jsonl"))
    user = next(u for u in map(user_of, log.read_text().splitlines()) if u != "anonymous")
    rename_user(home, user, ID)
    add_texts(home, at=DAY)
    before = files_with(home, ID)
    for place in ("lake", "features", "feast", "runs", "serving_log", "events", "reports"):
        assert any(path.startswith(place) for path in before), place
    serves = ReleaseStore(settings.releases).current_id()
    done = forget(settings, ID, now=True)
    assert (done["left"], files_with(home, ID)) == ([], [])
    assert done["removed"]["states"] > 0
    ReleaseStore(settings.releases).open(serves)  # its hashes are right
    folder = current_folder(settings.lake)
    assert folder is not None
    rows = sum(pq.read_metadata(path).num_rows for path in folder.glob("interactions/**/*.parquet"))
    assert Lake(settings.lake).manifest.rows == rows


def user_of(line: str) -> str:
    return json.loads(line)["user_id"]
