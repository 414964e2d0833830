"""Forgetting people: keyed hashes, the register, mentions in texts, and erasing single files."""

import gzip
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.forgetting.formats import (
    erase_gzip,
    erase_lines,
    erase_parquet,
    erase_sqlite,
    erase_text,
)
from shortlist.forgetting.hashed_users import REFERENCE, hash_release, restore_releases, with_ids
from shortlist.forgetting.keys import HomeKeyError, hash_sql, home_key, user_hash
from shortlist.forgetting.lines import overwrite_lines
from shortlist.forgetting.person import Person
from shortlist.forgetting.register import Register
from shortlist.releases.release import ReleaseStore
from tests.decoded import contains

ID = "person-7f3a@example.com"
T = 1_700_000_000_000_000
PERSON = Person(ID, T)


def test_the_key_is_secret_and_the_hash_depends_on_it(tmp_path: Path) -> None:
    key = home_key(tmp_path / "a")
    assert home_key(tmp_path / "a") == key != home_key(tmp_path / "b")
    assert (tmp_path / "a" / "key").stat().st_mode & 0o777 == 0o600
    assert user_hash(key, ID) != user_hash(home_key(tmp_path / "b"), ID)
    with duckdb.connect() as connection:
        for user_id in (ID, "ü' 9"):
            query = f"SELECT {hash_sql(key, 'u')} FROM (SELECT ? AS u)"
            assert connection.execute(query, [user_id]).fetchall() == [(user_hash(key, user_id),)]


def test_a_lost_key_is_an_error_because_old_hashes_would_be_useless(tmp_path: Path) -> None:
    Register(tmp_path).add(ID, T)
    (tmp_path / "key").unlink()
    with pytest.raises(HomeKeyError, match="restore it from a backup"):
        Register(tmp_path).at(ID)


def test_the_register_hides_the_past_in_all_processes(tmp_path: Path) -> None:
    reader = Register(tmp_path)
    assert not reader.hides(ID, T - 1)
    Register(tmp_path).add(ID, T)
    assert reader.hides(ID, T - 1)
    assert not reader.hides(ID, T)
    assert not reader.hides("another", T - 1)
    Register(tmp_path).add(ID, T + 10)
    assert reader.among([ID, "another"]) == {ID: T + 10}
    assert ID not in reader.path.read_text()


def test_erased_lines_keep_the_length_and_an_interrupted_one_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3}')
    size = path.stat().st_size
    assert overwrite_lines(path, lambda line: None if b"2" in line else line) == 1
    assert path.read_bytes() == b'{"a": 1}\n        \n{"a": 3}'
    path.write_bytes(b'   a": 1}\n{"a": 2}\n')
    assert overwrite_lines(path, lambda line: line) == 0
    assert path.read_bytes() == b'         \n{"a": 2}\n'
    assert size == 26


@pytest.mark.parametrize(
    ("user_id", "text", "masked"),
    [
        ("90", b'{"user_id": "90", "items": 90}', b'{"user_id": "**", "items": 90}'),
        ("90", b"user 90 saw 90 items", b"user ** saw 90 items"),
        ("90", b"users: ['90']", b"users: ['**']"),
        ("90", b"user 901 and item 90", b"user 901 and item 90"),
        (ID, f"<td>{ID}</td>".encode(), b"<td>" + b"*" * 23 + b"</td>"),
        (ID, b"/users/person-7f3a%40example.com?", b"/users/" + b"*" * 25 + b"?"),
        (ID, f"x{ID}".encode(), f"x{ID}".encode()),
        ("Zoë <z@x.org>", b'"Zo\\u00eb <z@x.org>"', b'"' + b"*" * 18 + b'"'),
        ("Zoë <z@x.org>", "<b>Zoë &lt;z@x.org&gt;</b>".encode(), b"<b>" + b"*" * 20 + b"</b>"),
    ],
)
def test_mentions_are_masked(user_id: str, text: bytes, masked: bytes) -> None:
    assert Person(user_id, T).masked(text)[0] == masked


def test_rows_of_a_table_go_unless_they_are_later(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    users, times = [ID, "b", ID, "c"], [T - 1, T - 1, T, T - 1]
    columns = {"user_id": users, "session_id": ["s", "t", "u", f"{ID}@17"]}
    stamps = pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns | {"event_timestamp": stamps}), path, row_group_size=3)
    assert erase_parquet(path, [PERSON]) == 2
    assert pq.read_table(path).column("user_id").to_pylist() == ["b", ID]
    assert pq.read_schema(path).field("event_timestamp").type == stamps.type
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["i"], "title": [f"by {ID}"]}), items)
    assert erase_parquet(items, [PERSON]) == 0


def test_lines_of_a_log_go_unless_they_are_later(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [
        {"user_id": ID, "event_timestamp": T - 1},
        {"user_id": ID, "event_timestamp": T},
        {"user_id": "b", "event_timestamp": T - 1, "text": f"thanks, {ID}!"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert erase_lines(path, [PERSON]) == 2
    left = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    assert left == [rows[1], rows[2] | {"text": f"thanks, {'*' * len(ID)}!"}]


def test_free_pages_texts_and_gzip_are_erased(tmp_path: Path) -> None:
    database, page, archive = (tmp_path / name for name in ("a.db", "a.html", "a.log.gz"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{ID} {n}",) for n in range(300)])
        connection.commit()
        connection.execute("DELETE FROM t WHERE a NOT LIKE '% 7'")
        connection.commit()
    page.write_text(f"<a href='/users/person-7f3a%40example.com'>{ID}</a>")
    archive.write_bytes(gzip.compress(f"user {ID} refused\n".encode()))
    assert all(contains(path, ID) for path in (database, page, archive))
    assert erase_sqlite(database, [PERSON]) == 1
    assert erase_text(page, [PERSON]) == 2
    assert erase_gzip(archive, [PERSON]) == 1
    assert not any(contains(path, ID) for path in tmp_path.iterdir())


def reference_log() -> pa.Table:
    columns = {"user_id": [ID, "b", ID], "request_id": [f"test-1-{ID}", "test-1-b", "other"]}
    return pa.table(columns)


def test_a_release_of_an_earlier_version_gets_hashes_and_stays_valid(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path / "releases")
    with store.publishing({"clock": "wall"}) as (folder, about):
        (folder / "reference").mkdir()
        pq.write_table(reference_log(), folder / REFERENCE)
        (folder / "model.bin").write_bytes(b"weights")
    release_id = about["release_id"]
    release = store.root / release_id
    key = home_key(tmp_path / "forgotten")
    assert hash_release(release, key) == 3
    log = pq.read_table(store.open(release_id).file(*REFERENCE.parts))
    assert log.column("request_id").to_pylist()[0] == f"test-1-{user_hash(key, ID)}"
    assert not contains(release / REFERENCE, ID)
    named = with_ids(log, tmp_path / "forgotten", ["b"]).column("user_id").to_pylist()
    assert named == [user_hash(key, ID), "b", user_hash(key, ID)]  # monitoring finds known users
    assert store.ids() == [release_id]


def test_an_interrupted_swap_of_a_release_is_ended(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "r1"
    for kind, content in ((".plain-r1", "old"), (".hashed-r1", "new")):
        (release.parent / kind).mkdir(parents=True)
        (release.parent / kind / "file").write_text(content)
    restore_releases(tmp_path)  # killed between the two renames: undone
    assert (release / "file").read_text() == "old"
    (release.parent / ".plain-r1").mkdir()
    restore_releases(tmp_path)  # killed after them
    assert os.listdir(release.parent) == ["r1"]
