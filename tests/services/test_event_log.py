"""The inbox after SIGKILL, with a full disk, a locked tail, and repeated or parallel posts."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.events import event_log
from services.events.event_log import EventLog
from shortlist.feature_store.online import tail

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 30 if os.environ.get("SHORTLIST_ENDURANCE") else 3

WRITER = """
import sys
from pathlib import Path
from services.events.event_log import EventLog
log, first = EventLog(Path(sys.argv[1])), int(sys.argv[2])
for post in range(100_000):
    events = [{"event_id": f"{first}-{post}-{i}", "text": "x" * 500} for i in range(7)]
    assert len(log.append(events)) == 7
    print(post, flush=True)
"""

FULL_DISK = """
import json, resource, sys
from pathlib import Path
from services.events.event_log import EventLog

def on_disk():
    paths = sorted(Path(sys.argv[1]).rglob("*.jsonl"))
    return [json.loads(line)["event_id"] for path in paths for line in path.open()]

log = EventLog(Path(sys.argv[1]))
assert len(log.append([{"event_id": "a"}])) == 1
post = [{"event_id": f"b{i}", "text": "x" * 1_000} for i in range(20)]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
try:
    log.append(post)
except OSError as error:
    print("refused", error.errno)
assert on_disk() == ["a"]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert len(log.append(post)) == 20
assert on_disk() == ["a", *(event["event_id"] for event in post)]
"""


def on_disk(folder: Path) -> list[str]:
    """Return the event ids of all complete lines."""
    return [
        json.loads(line)["event_id"]
        for path in sorted(folder.rglob("*.jsonl"))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def event(event_id: str) -> dict[str, str]:
    return {"event_id": event_id, "item_id": "i1"}


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_what_was_acknowledged_survives_kill_9(tmp_path, round_):
    """Acknowledged events survive a SIGKILL, and posting them again doesn't duplicate them."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), str(round_)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout
    heard = [process.stdout.readline() for _ in range(random.Random(round_).randint(5, 60))]
    process.send_signal(signal.SIGKILL)
    heard += process.stdout.readlines()  # acknowledgements just before the kill
    process.wait()
    last = max(int(line) for line in heard if line.endswith(b"\n"))
    assert last >= 4
    kept = on_disk(tmp_path)
    promised = [f"{round_}-{post}-{i}" for post in range(last + 1) for i in range(7)]
    assert kept[: len(promised)] == promised
    log = EventLog(tmp_path)
    assert log.append([event(event_id) for event_id in promised]) == []
    assert log.append([event("after")]) == [event("after")]
    log.close()
    assert on_disk(tmp_path) == [*kept, "after"]


def test_a_full_disk_keeps_nothing_of_the_post_and_it_can_be_posted_again(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused")


def test_each_event_once_in_a_post_over_posts_and_over_restarts(tmp_path):
    first = EventLog(tmp_path)
    assert first.append([event("a"), event("b"), event("a")]) == [event("a"), event("b")]
    assert first.append([event("b"), event("c")]) == [event("c")]
    first.close()
    second = EventLog(tmp_path)
    assert second.append([event("c"), event("a"), event("d")]) == [event("d")]
    second.close()
    assert sorted(on_disk(tmp_path)) == ["a", "b", "c", "d"]


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A second connection that holds a lock, so that the tail can't be written."""
    monkeypatch.setattr(tail, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(event_log, "RETRY_SECONDS", 0.01)
    EventLog(tmp_path).close()  # creates the file
    other = sqlite3.connect(tmp_path / "tail.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_post_is_acknowledged_while_the_tail_cannot_be_written(tmp_path, locked):
    """A post is acknowledged once it is in the inbox, even if the tail is locked.

    After an error, the client would post the event again with another id.
    """
    log = EventLog(tmp_path)
    rated = [event(name) | {"user_id": "u", "event_timestamp": 5} for name in "abc"]
    assert log.append(rated[:2]) == rated[:2]
    assert log.append(rated) == rated[2:]  # a and b wait for the tail, but are known
    assert on_disk(tmp_path) == ["a", "b", "c"]
    assert (log.num_waiting, log.tail.read(["u"])) == (3, {})
    locked.execute("COMMIT")
    while log.num_waiting:
        threading.Event().wait(0.005)
    assert [row["event_id"] for row in log.tail.read(["u"])["u"]] == ["a", "b", "c"]
    assert log.append(rated) == []
    log.close()


def test_too_many_waiting_events_are_refused_before_they_are_written(tmp_path, locked, monkeypatch):
    monkeypatch.setattr(event_log, "MAX_WAITING", 2)
    log = EventLog(tmp_path)
    assert len(log.append([event("a"), event("b")])) == 2
    with pytest.raises(OSError, match=r"tail.db could not be written for long"):
        log.append([event("c")])
    assert on_disk(tmp_path) == ["a", "b"]
    log.close()
    locked.execute("COMMIT")
    restarted = EventLog(tmp_path)
    assert restarted.append([event("a"), event("b"), event("c")]) == [event("c")]
    restarted.close()


def test_parallel_posts_of_the_same_events_are_accepted_once(tmp_path):
    log = EventLog(tmp_path)
    posts = [[event(f"e{i}") for i in range(n, n + 40)] for n in range(0, 160, 10)]
    with ThreadPoolExecutor(8) as pool:
        accepted = sum(len(new) for new in pool.map(log.append, posts))
    log.close()
    assert accepted == 190
    assert sorted(on_disk(tmp_path)) == sorted(f"e{i}" for i in range(190))


def test_a_cut_line_is_not_remembered_and_a_damaged_one_does_not_stop_the_start(tmp_path, caplog):
    folder = tmp_path / "date=2026-01-01"
    folder.mkdir()
    (folder / "1-1.jsonl").write_text('{"event_id": "a"}\n[1]\n{"event_id": "b"}\n{"event_id": "c"')
    log = EventLog(tmp_path)
    assert "1-1.jsonl: line 2: not an event" in caplog.text
    assert log.append([event("a"), event("b"), event("c")]) == [event("c")]
    log.close()
