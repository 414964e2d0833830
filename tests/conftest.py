"""Shared fixtures: a small data set with known structure, and a home after `shortlist run`."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.prefect_server import shared_server
from tests.preloaded import CommandServer

ROOT = Path(__file__).resolve().parents[1]
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "True",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # for busy machines
    # Pytest's workers already use all cores. More threads than cores would wait for each other.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
os.environ.update(QUIET)

DAY = 86_400
START = 1_700_006_400  # 2023-11-15, midnight UTC
NUM_USERS, NUM_ITEMS, NUM_DAYS = 80, 60, 40
CATEGORIES = ("comedy", "drama", "science")


def write_world(folder: Path, *, seed: int = 0, start: int = START) -> Path:
    """Write interactions.csv, items.csv and users.csv of users who each prefer one category.

    Each user has six sessions of up to 8 events, on random days of the NUM_DAYS days from `start`
    (seconds). For four of five events, only items of the preferred category are drawn.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    taste = rng.integers(len(CATEGORIES), size=NUM_USERS)
    kind = np.arange(NUM_ITEMS) % len(CATEGORIES)
    appeal = rng.gamma(2.0, size=NUM_ITEMS)
    events = []
    for user in range(NUM_USERS):
        seen: set[int] = set()
        for day in np.sort(rng.choice(NUM_DAYS, size=6, replace=False)):
            second = start + int(day) * DAY + int(rng.integers(DAY - 3_600))
            for _ in range(int(rng.integers(3, 9))):
                own = kind == taste[user] if rng.random() < 0.8 else np.ones(NUM_ITEMS, dtype=bool)
                weight = np.where(own, appeal, 0)
                weight[list(seen)] = 0
                if weight.sum() == 0:
                    continue
                item = int(rng.choice(NUM_ITEMS, p=weight / weight.sum()))
                seen.add(item)
                liking = 4 if kind[item] == taste[user] else 2.5
                rating = int(np.clip(rng.normal(liking, 0.8), 1, 5))
                second += int(rng.integers(0, 120))
                events.append((f"u{user + 1}", f"i{item + 1}", rating, second))
    events.sort(key=lambda event: event[3])
    _write(folder / "interactions.csv", ("user_id", "item_id", "rating", "timestamp"), events)
    _write(
        folder / "items.csv",
        ("item_id", "title", "genres", "year"),
        [
            (f"i{i + 1}", f"A {name} called {i + 1}", name, 1980 + i % 40)
            for i, name in enumerate(CATEGORIES[k] for k in kind)
        ],
    )
    _write(
        folder / "users.csv",
        ("user_id", "group"),
        [(f"u{u + 1}", "young" if u % 2 else "old") for u in range(NUM_USERS)],
    )
    return folder


def _write(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


WORLD_TOML = """
name = "tiny"
seed = 0

[data]
source = "files"
target_events = ["rating"]
like_threshold = 4.0
clock = "replay"
hold_back = 0.10

[data.files.interactions]
path = "{folder}/interactions.csv"
event_type = "rating"
timestamp_unit = "s"
[data.files.interactions.columns]
user_id = "user_id"
item_id = "item_id"
value = "rating"
event_timestamp = "timestamp"


[data.files.items]
path = "{folder}/items.csv"
columns = {{ item_id = "item_id", title = "title", categories = "genres", published_at = "year" }}

[data.files.users]
path = "{folder}/users.csv"
columns = {{ user_id = "user_id" }}
attributes = ["group"]

[split]
fractions = [0.55, 0.15, 0.10, 0.10]

[train]
sources = [
    {{ kind = "two_tower", optimiser = {{ num_epochs = 3 }} }},
    {{ kind = "content", optimiser = {{ num_epochs = 3 }} }},
    {{ kind = "item_knn" }},
]
rankers = [{{ kind = "lambdamart" }}, {{ kind = "deepfm" }}, {{ kind = "blend" }}]
candidates_per_source = 20

[monitor]
max_requests = 60
"""


ANY_GATES = """margin = 1.0
loss_budget = 1.0
min_users = 2
min_coverage = 0.0
min_reached = 0.0
min_overlap = 0.0
min_coverage_kept = 0.0
max_score_shift = 100.0
max_score_stretch = 100.0
"""
"""Gates that always pass, for data sets that are too small for a meaningful comparison."""

RUN_STDERR = "served_home.stderr"
"""Name of a file beside the served home, with the stderr of its run."""

SLOW_FIRST = (
    "live/test_wall_clock.py",
    "live/test_canary.py",
    "flows/test_champion.py",
    "services/test_faults.py",
    "flows/test_upgrade.py",
    "services/test_odd_posts.py",
    "services/test_items.py",
    "services/test_catalogue_changes.py",
    "services/test_service.py",
    "flows/test_end_to_end.py",
    "flows/test_deploy.py",
    "flows/test_served_releases.py",
    "flows/test_repeats_run.py",
    "flows/test_frozen_run.py",
    "live/test_swaps.py",
    "flows/test_gx_context.py",
    "flows/test_quarantine_mappings.py",
    "flows/test_validate_rules.py",
    "flows/test_steps.py",
    "services/test_bento.py",
    "shortlist/test_lake_kill.py",
    "flows/test_data_kill.py",
)
"""Files that take longest. They start first, so both workers of pytest end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files by SLOW_FIRST; all others keep their order."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


_shared: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Store the path of the folder that all pytest workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    _shared.append(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def new_prefect_home(folder: Path) -> Path:
    """Create a Prefect home with a migrated database in `folder`, unless `folder` exists.

    A migration takes 11 s of CPU time, so it is done once per test run and then copied.
    """
    migrated = _shared[0] / "migrated_prefect_home"
    with (_shared[0] / "migrated_prefect_home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not migrated.is_dir():
            partial = migrated.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            environment = os.environ | {"PREFECT_HOME": str(partial)}
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
            partial.rename(migrated)
        if not folder.exists():
            shutil.copytree(migrated, folder)
    return folder


def world_toml(folder: Path, *, train: str, hold_back: bool = True, clock: str = "replay") -> str:
    """Return a run's TOML for the data set in `folder`: WORLD_TOML with other sources and rankers.

    Args:
        train: the lines `sources = ...` and `rankers = ...`.
    """
    before, _, after = WORLD_TOML.partition("[train]\n")
    after = after[after.index("candidates_per_source") :]
    text = (before + "[train]\n").format(folder=folder) + train + after
    if not hold_back:
        text = text.replace("hold_back = 0.10\n", "")
    return text.replace('clock = "replay"', f'clock = "{clock}"')


@cache
def command_server() -> CommandServer:
    """Return the server of preloaded commands of this test run."""
    return CommandServer(_shared[0], owner=run_pid())


def run_pid() -> int:
    """Return the id of the process that was started, the parent of the workers of pytest-xdist."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def prefect_url() -> str:
    """Return the URL of the Prefect server that all commands of this test run share."""
    home = new_prefect_home(_shared[0] / "shared_prefect_home")
    return shared_server(_shared[0], home=home, owner=run_pid())


def command_environment(home: Path, *, own_server: bool = False) -> dict[str, str]:
    """Return the environment variables of a command in `home`.

    Args:
        own_server: the command starts a Prefect server of its own, with its database in `home`.
    """
    quiet = {"SHORTLIST_HOME": str(home), "SHORTLIST_GENTLE_REFRESH": "false"}
    if own_server:
        new_prefect_home(home / "prefect")
        return os.environ | quiet
    # The server would spend most of its time on storing log lines.
    shared = {"PREFECT_API_URL": prefect_url(), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    return os.environ | quiet | shared


def shortlist(
    *arguments: str,
    home: Path,
    timeout: float = 300,
    preloaded: bool = True,
    own_server: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process in the repository's root.

    Args:
        preloaded: fork it from a process that has imported the heavy libraries.
        own_server: the command starts a Prefect server of its own, with its database in `home`.
    """
    env = command_environment(home, own_server=own_server)
    if preloaded:
        return command_server().run(list(arguments), env=env, timeout=timeout)
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def world_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML of a run on the data set of `write_world`."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    path = folder / "tiny.toml"
    path.write_text(WORLD_TOML.format(folder=folder))
    return path


@pytest.fixture(scope="session")
def run_summary(world_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The summary of `shortlist run`, with replay and monitoring, in the home `summary["home"]`.

    It runs once for all tests and all pytest workers. Tests must not write into the home; those
    that write use a copy.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    home, summary = shared / "served_home", shared / "served_home.json"
    with FileLock(shared / "served_home.lock"):
        if not summary.exists():
            command = ("run", str(world_config), "--json")
            # As a user runs it: a new process, without a Prefect server.
            done = shortlist(*command, home=home, timeout=420, preloaded=False, own_server=True)
            assert done.returncode == 0, done.stderr[-5_000:]
            home.with_name(RUN_STDERR).write_text(done.stderr)
            summary.write_text(done.stdout)
    return json.loads(summary.read_text()) | {"home": str(home)}


@pytest.fixture(scope="session")
def served_home(run_summary: dict) -> Path:
    """A home with a promoted release, features, packs and an online store."""
    return Path(run_summary["home"])


@pytest.fixture(scope="module")
def prefect_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set a temporary Prefect home, and the shared Prefect server, for flows in this process."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = new_prefect_home(tmp_path_factory.mktemp("prefect") / "home")
    with temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: prefect_url()}):
        yield
