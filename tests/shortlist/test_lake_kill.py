"""A writer killed at a random time leaves the old or the new snapshot, and the next run works.

`make test` runs ten seeded kills, `make endurance` a hundred.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortlist.lake import Lake

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILLS = 100 if os.environ.get("SHORTLIST_ENDURANCE") else 10
WRITER = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.lake import publish_batch

root, number = Path(sys.argv[1]), int(sys.argv[2])
rows = 3_000
ids = np.arange(number * rows, (number + 1) * rows)
# Spread over twelve partitions, late ones among them, so that a commit writes many files.
time = pa.array((ids * 7919) % 12 * 366 * 86_400_000_000 + ids).cast(TIMESTAMP)
given = {
    "event_id": [f"e{i}" for i in ids], "user_id": [f"u{i % 50}" for i in ids],
    "item_id": ["a"] * rows, "event_type": ["view"] * rows, "event_timestamp": time,
    "event_order": ids, "ingested_at": time, "source": ["test"] * rows,
}
events = pa.table(
    [pa.array(given.get(f.name, [None] * rows), f.type) for f in INTERACTIONS], schema=INTERACTIONS
)
events = events.append_column("operation", pa.array(["delete" if i % 100 == 99 and number else
                                                     "insert" for i in ids]))
if number:  # every batch also deletes some events of the one before
    at = events.schema.get_field_index("event_id")
    gone = [f"e{i - rows}" if i % 100 == 99 else f"e{i}" for i in ids]
    events = events.set_column(at, "event_id", pa.array(gone))
item = pa.Table.from_pylist(
    [{"item_id": "a", "title": str(number), "categories": [], "available": True}], schema=ITEMS
)
print("ready", flush=True)
sys.stdin.readline()
publish_batch(root, str(number), events=events, items=item,
              users=pa.Table.from_pylist([{"user_id": "u"}], schema=USERS), given_ids=True,
              operations=True, session_gap=60_000_000)
"""


def start(root: Path, number: int) -> subprocess.Popen[str]:
    """Start a process that is ready to publish batch `number`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(number)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def state(root: Path) -> tuple[int, list[str], list[str]]:
    """Read the lake: (version, event ids, item titles). Fails if a file is incomplete."""
    lake = Lake(root)
    manifest = lake.manifest
    events = lake.interactions()
    assert events.num_rows == manifest.rows
    return (
        manifest.version,
        events.column("event_id").to_pylist(),
        lake.items().column("title").to_pylist(),
    )


def expected(number: int) -> set[str]:
    """Return the ids of the events that remain after batches 0 .. number."""
    ids = {f"e{i}" for i in range(3_000 * (number + 1)) if i % 100 != 99 or i < 3_000}
    deleted = {f"e{i - 3_000}" for i in range(3_000, 3_000 * (number + 1)) if i % 100 == 99}
    return ids - deleted


def test_a_killed_writer_leaves_before_or_after(tmp_path: Path) -> None:
    rng = random.Random(20261124)
    root = tmp_path / "lake"
    first = start(root, 0)
    begun = time.perf_counter()
    go(first)
    assert first.wait(60) == 0
    whole = time.perf_counter() - begun  # duration of a commit, to choose the times of the kills
    number, outcomes = 1, {"before": 0, "after": 0}
    for _ in range(KILLS):
        before = state(root)
        process = start(root, number)
        go(process)
        time.sleep(rng.uniform(0, 1.1 * whole))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        after = state(root)
        if after[0] == before[0]:
            assert after == before, "nothing of a commit that did not happen is seen"
            outcomes["before"] += 1
        else:
            assert after[0] == before[0] + 1
            assert set(after[1]) == expected(number)
            assert len(after[1]) == len(set(after[1]))
            assert after[2] == [str(number)]
            outcomes["after"] += 1
            number += 1
    # The next writer succeeds and removes the files that killed writers left.
    last = start(root, number)
    go(last)
    assert last.wait(60) == 0
    assert set(state(root)[1]) == expected(number)
    assert not [path.name for path in root.glob(".work-*")]
    assert len(list((root / "snapshots").iterdir())) <= 3
    assert outcomes["before"] > 0, f"some kills came in time: {outcomes}"
