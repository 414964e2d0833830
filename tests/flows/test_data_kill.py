"""Ingest, validate and `quarantine restore` are killed at random times and started again.

In the end, each row is in the lake or in quarantine exactly once, as after an uninterrupted run.
`make test` runs two seeded kills of each, `make endurance` fifty.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shortlist.lake import Lake

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILLS = 50 if os.environ.get("SHORTLIST_ENDURANCE") else 2
WORKER = """
import os, signal, sys, time
from pathlib import Path
from flows.runtime.configuration import RunConfig
from flows.ingest import stage
from flows.validation.restore import restore
from flows.validate import validate_batch
import flows.validation.source  # Great Expectations, which a child would import again each time
from shortlist.config import Settings

home = Path(sys.argv[1])
columns = {"event_id": "id", "user_id": "user", "item_id": "item", "event_timestamp": "when"}
events = {"path": home / "log", "format": "csv", "columns": columns, "event_type": "view"}
items = {"path": home / "items.csv", "columns": {"item_id": "id"}}
data = {"source": "files", "clock": "replay", "files": {"interactions": events, "items": items}}
train = {"sources": [{"kind": "popularity"}], "rankers": [{"kind": "lambdamart"}]}
limits = {"failure_budget": 0.5, "unknown_items": "quarantine"}
config = RunConfig.model_validate(
    {"name": "k", "data": data, "validation": limits, "train": train}
)

def take_in():
    batch = stage(Settings(), config.data)
    validate_batch(Settings(), batch["batch_id"], config.validation, clock="replay")

def mend():
    for folder in sorted(Settings().quarantine.glob("*")):
        restore(folder.name, config)

print("ready", flush=True)
for line in sys.stdin:  # a child does the work, so that imports are paid for once
    task, seconds = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        {"take_in": take_in, "mend": mend}[task]()
        os._exit(0)
    ended, code = os.waitpid(child, os.WNOHANG)
    until = time.perf_counter() + float(seconds)
    while not ended and time.perf_counter() < until:
        time.sleep(0.002)
        ended, code = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print("killed" if not ended else "done" if code == 0 else "failed", flush=True)
"""


class Worker:
    """A process that starts tasks and kills each after a given time."""

    def __init__(self, home: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(home)],
            cwd=ROOT,
            env=os.environ | {"SHORTLIST_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, task: str, seconds: float = 600) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{task} {seconds}\n")
        self.process.stdin.flush()
        return self._line()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def write_log(home: Path, number: int, *, rows: int = 400) -> tuple[set[str], set[str]]:
    """Write log file `number`; return the ids of its good rows and of rows with an unknown item."""
    good, bad, lines = set(), set(), ["id,user,item,when"]
    for i in range(rows):
        event, known = f"{number}-{i}", i % 20 != 19
        (good if known else bad).add(event)
        lines.append(f"{event},u{i % 7},{'a' if known else 'z'},{1_700_000_000 + 90_000 * i}")
    (home / "log" / f"{number:03d}.csv").write_text("\n".join(lines) + "\n")
    return good, bad


def in_lake(home: Path) -> list[str]:
    lake = Lake(home / "lake")
    events = lake.interactions()
    assert events.num_rows == lake.manifest.rows
    return events.column("event_id").to_pylist()


def quarantined(home: Path) -> list[str]:
    files = sorted((home / "quarantine").glob("*/interactions.parquet"))
    return [one for file in files for one in pq.read_table(file).column("event_id").to_pylist()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "items.csv").write_text("id\na\n")
    return tmp_path


def test_killed_at_any_moment_no_row_is_lost_or_doubled(home: Path) -> None:
    rng = random.Random(20261125)
    good, bad = write_log(home, 0)
    worker = Worker(home)
    try:
        begun = time.perf_counter()
        assert worker.run("take_in") == "done"
        # The duration of an ingest determines when later ones are killed.
        whole = time.perf_counter() - begun
        killed = 0
        for number in range(1, KILLS + 1):
            more_good, more_bad = write_log(home, number)
            before = in_lake(home)
            outcome = worker.run("take_in", rng.uniform(0, whole))
            killed += outcome == "killed"
            seen = set(in_lake(home))
            assert seen in (set(before), good | more_good), "before or after, never between"
            good, bad = good | more_good, bad | more_bad
            assert worker.run("take_in") == "done"
            assert sorted(in_lake(home)) == sorted(good)
            assert sorted(quarantined(home)) == sorted(bad)
        assert killed > 0
        # The catalogue now has the item, so the quarantined rows can be restored.
        (home / "items.csv").write_text("id\na\nz\n")
        assert worker.run("take_in") == "done"
        for _ in range(KILLS):
            worker.run("mend", rng.uniform(0, whole))
            lake, kept_out = in_lake(home), quarantined(home)
            assert len(lake) == len(set(lake))
            assert set(lake) | set(kept_out) == good | bad, "in the lake or still quarantined"
        assert worker.run("mend") == "done"
        assert sorted(in_lake(home)) == sorted(good | bad)
        assert quarantined(home) == []
        assert not [path.name for path in (home / "lake").glob(".work-*")]
    finally:
        worker.end()
