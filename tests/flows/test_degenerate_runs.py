"""Whole runs on logs with one user, three items, or equal ratings.

They end with a promoted release, with a release and the gates that it fails, or with one sentence.

Each takes a minute or so, so they belong to `make endurance`.
"""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shortlist.releases.release import ReleaseStore
from tests.conftest import shortlist
from tests.examples import endurance

pytestmark = endurance("whole runs")
START = 1_735_689_600  # 1 January 2025
HOUR = 3_600
SOURCES = (
    '"recent_popularity" }, { kind = "popularity" }, { kind = "item_knn" }, { kind = "ease" }]'
)


def write(path: Path, rows: Iterator[tuple]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id", "rating", "timestamp"))
        writer.writerows(sorted(rows, key=lambda row: row[-1]))
    return path


def one_user() -> Iterator[tuple]:
    for i in range(200):
        yield "me", f"i{i}", 1 + i % 5, START + i * HOUR


def three_items() -> Iterator[tuple]:
    rng = np.random.default_rng(0)
    for user in range(100):
        for place, item in enumerate(rng.permutation(3)):
            at = START + int(rng.integers(0, 500)) * HOUR + place
            yield f"u{user}", f"i{item}", int(rng.integers(1, 6)), at


def equal_ratings() -> Iterator[tuple]:
    rng = np.random.default_rng(0)
    for user in range(60):
        for item in rng.permutation(80)[:20]:
            yield f"u{user}", f"i{item}", 5, START + int(rng.integers(0, 500)) * HOUR


def run(folder: Path, rows: Iterator[tuple]) -> subprocess.CompletedProcess[str]:
    """Run `init`, then `run` with sources that train fast."""
    log = write(folder / "log.csv", rows)
    toml = folder / "run.toml"
    done = shortlist("init", str(log), "--out", str(toml), home=folder / "home")
    assert done.returncode == 0, done.stderr
    before, _, after = toml.read_text().partition("sources = [")
    toml.write_text(f"{before}sources = [{{ kind = {SOURCES}{after[after.index(']') + 1 :]}")
    return shortlist("run", str(toml), "--json", home=folder / "home", timeout=600)


@pytest.mark.parametrize("rows", [one_user, three_items, equal_ratings])
def test_a_run_ends_with_a_release_or_one_sentence(rows, tmp_path: Path) -> None:
    done = run(tmp_path, rows())
    assert "Traceback" not in done.stdout + done.stderr
    store = ReleaseStore(tmp_path / "home" / "releases")
    if not done.stdout.strip():
        *_, last = done.stderr.strip().splitlines()
        assert last.startswith("error: "), done.stderr[-2_000:]
        assert "want" in last or "set" in last
        assert done.returncode != 0
        assert store.current_id() is None
        return
    summary = json.loads(done.stdout)
    failed = [gate["reason"] for gate in summary["gates"] if not gate["passed"]]
    assert summary["release_id"] in store.ids()
    assert summary["promoted"] == (not failed) == (done.returncode == 0)
    assert all(failed), "each failed gate gives its reason"
    assert store.current_id() == (None if failed else summary["release_id"])
