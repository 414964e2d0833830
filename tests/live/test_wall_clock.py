"""A deployment on the wall clock, with clients that send requests and posts all the time.

Meanwhile, refreshes, a training, promotions and rollbacks run, and some are killed. Then
`make endurance` (SHORTLIST_ENDURANCE=1) runs all commands in random order for 20 minutes, kills
half of them, and resumes a run that was killed after its training.
"""

import json
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks.swap import publish_again
from shortlist.config import Settings
from shortlist.datasets.service.service_log import read_lines
from shortlist.feature_store import OfflineReader, OnlineReader, apply, build_states
from shortlist.feature_store.packs import latest_pack, read_pack
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.features.finalize import context_id
from shortlist.home.workers import live_workers
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore
from tests.background import in_background
from tests.conftest import (
    ANY_GATES,
    DAY,
    NUM_DAYS,
    NUM_USERS,
    command_environment,
    command_server,
    shortlist,
    world_toml,
    write_world,
)
from tests.feature_repo.streams import assert_same
from tests.live.clients import SURFACES, Crowd
from tests.preloaded import Command
from tests.services.conftest import serving

pytestmark = pytest.mark.slow
LONG = bool(os.environ.get("SHORTLIST_ENDURANCE"))
SECONDS = int(os.environ.get("SHORTLIST_ENDURANCE_SECONDS", "1200"))
SEED = int(time.time()) // 86_400
"""Seed of the order of commands and of the moments of kills: another one each day."""
WORKERS = 2
FOLLOW = 45.0
"""Seconds after a killed promotion in which workers may still respond with the previous release."""
SETTLED = 5.0
"""The same in seconds after the end of a successful promotion, which waits for the workers."""
TRAIN = """sources = [
    { kind = "two_tower", optimiser = { num_epochs = 1 } },
    { kind = "item_knn" },
    { kind = "recent_popularity" },
]
rankers = [{ kind = "lambdamart", num_models = 1, num_rounds = 30 }]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run on a data set whose log ends a minute ago."""
    folder = tmp_path_factory.mktemp("now")
    write_world(folder, start=int(time.time()) - NUM_DAYS * DAY - 60)
    (folder / "gates.toml").write_text(ANY_GATES)
    text = world_toml(folder, train=TRAIN, hold_back=False, clock="wall")
    text = text.replace("seed = 0\n", f'seed = 0\ngates = "{folder / "gates.toml"}"\n')
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def settings(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with two releases of the same models; the second one is promoted."""
    home = tmp_path_factory.mktemp("deployment")
    done = shortlist("run", str(config), "--json", home=home)
    assert done.returncode == 0, done.stderr[-5_000:]
    settings = Settings(home=home)
    ReleaseStore(settings.releases).promote(publish_again(settings))
    return settings


@dataclass
class Operator:
    """An operator who runs random commands in a home and kills about half of them."""

    settings: Settings
    config: Path
    rng: random.Random
    done: list[tuple[float, float]] = field(default_factory=list)
    """(start, end) of each command that succeeded, in seconds of time.monotonic."""

    def start(self, command: str) -> Command:
        """Start a command as a process."""
        store = ReleaseStore(self.settings.releases)
        others = [release for release in store.ids() if release != store.current_id()]
        gates = self.config.with_name("gates.toml")
        arguments = {
            "refresh": [str(self.config)],
            "run": [str(self.config), "--no-monitor"],
            # Forced: after a rollback, a release was compared with another one than serves.
            "promote": [
                *("--release", self.rng.choice(others), "--gates", str(gates)),
                *("--force", "--reason", "the trial"),
            ],
            "rollback": [],
        }[command]
        with open(os.devnull, "r+b") as nothing:
            return command_server().start(
                [command, *arguments],
                env=command_environment(self.settings.home),
                out=nothing,
                errors=nothing,
            )

    def run(self, command: str) -> int:
        """Run a command to its end; return its exit code."""
        start = time.monotonic()
        return self.ended(start, self.start(command).wait(600))

    def ended(self, start: float, code: int) -> int:
        if code == 0:
            self.done.append((start, time.monotonic()))
        return code

    def one(self) -> tuple[str, bool]:
        """Run a random command, and kill it with probability 1/2 unless it ends early.

        Returns:
            The command's name, and whether it was killed.
        """
        command = self.rng.choice(["refresh", "refresh", "run", "promote", "rollback"])
        start, process = time.monotonic(), self.start(command)
        longest = {"run": 45.0, "refresh": 20.0}.get(command, 8.0)
        patience = self.rng.uniform(1.0, longest) if self.rng.random() < 0.5 else 300.0
        try:
            self.ended(start, process.wait(patience))
        except subprocess.TimeoutExpired:
            process.kill()
            return command, True
        return command, False

    def killed(self, command: str, *, watched: Callable[[], object]) -> tuple[str, bool]:
        """Run a command and kill it as soon as `watched()` changes, unless it ends before."""
        before = watched()
        start, process = time.monotonic(), self.start(command)
        while process.poll() is None and watched() == before:
            time.sleep(0.005)
        if (code := process.poll()) is not None:
            self.ended(start, code)
            return command, False
        process.kill()
        return command, True

    @property
    def moments(self) -> list[tuple[str, Callable[[], object]]]:
        """Commands in a random order, each with a function whose result changes in the middle of
        its work. A rollback comes after a promotion, so that there is a release to go back to.
        """
        moments = [
            ("refresh", self.staging),
            ("refresh", self.snapshots),
            ("refresh", self.manifest),
            ("promote", self.pointer),
            ("promote", self.pointer),
            ("run", self.trained),
        ]
        self.rng.shuffle(moments)
        last = max(place for place, (name, _) in enumerate(moments) if name == "promote")
        moments[last] = ("rollback", self.pointer)
        return moments

    def staging(self) -> bool:
        return any((self.settings.lake / "incoming").glob(".staging-*"))

    def snapshots(self) -> set[Path]:
        return set((self.settings.lake / "snapshots").iterdir())

    def manifest(self) -> int:
        return (self.settings.features / "manifest.json").stat().st_mtime_ns

    def pointer(self) -> str | None:
        return ReleaseStore(self.settings.releases).current_id()

    def trained(self) -> set[Path]:
        """Return the sources that runs have fitted for their rankers."""
        return set(self.settings.runs.glob("*/trial/*"))

    def resume(self) -> "Resumed":
        """Start a run, kill it after its training, and resume it."""
        runs = self.settings.runs
        before = set(runs.iterdir())
        process = self.start("run")
        while not {path.parents[1] for path in runs.glob("*/steps/train.json")} - before:
            assert process.poll() is None, "the run ended before its training"
            time.sleep(0.02)
        process.kill()
        (run,) = set(runs.iterdir()) - before
        models = written(run)
        assert not (run / "summary.json").exists()
        start = time.monotonic()
        done = shortlist(
            "run", "--resume", run.name, "--no-monitor", "--json", home=self.settings.home
        )
        assert self.ended(start, done.returncode) == 0, done.stderr[-5_000:]
        return Resumed(run, models, json.loads(done.stdout))


@dataclass(frozen=True)
class Resumed:
    """A run that was killed after its training and resumed."""

    run: Path
    models: dict[Path, int]
    """Modification time of each model file at the kill, in nanoseconds."""
    summary: dict


def written(run: Path) -> dict[Path, int]:
    """Return the modification time of each model file of a run, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in (run / "release" / "sources").rglob("*.*")}


class Pointer:
    """The history of the release pointer, recorded by polling its file."""

    def __init__(self, settings: Settings):
        self._store = ReleaseStore(settings.releases)
        self.seen: list[tuple[float, str]] = []

    def watched(self) -> AbstractContextManager[None]:
        return in_background(self._watch)

    def _watch(self, over: threading.Event) -> None:
        while True:
            current = self._store.current_id()
            if current is not None and (not self.seen or self.seen[-1][1] != current):
                self.seen.append((time.monotonic(), current))
            if over.wait(0.02):
                return

    def allowed(
        self, release_id: str, start: float, end: float, *, done: list[tuple[float, float]]
    ) -> bool:
        """Return whether a release may respond to a request that lasted from `start` to `end`.

        Args:
            done: (start, end) of each command that succeeded.
        """
        for number, (since, named) in enumerate(self.seen):
            later = self.seen[number + 1 :]
            until = self._followed(later[0][0], done) if later else float("inf")
            first = since - 0.5 if number else float("-inf")
            if named == release_id and end >= first and start <= until:
                return True
        return False

    def _followed(self, moved: float, done: list[tuple[float, float]]) -> float:
        """Return until when workers may respond with the previous release, after a pointer move."""
        by = [end for start, end in done if start <= moved <= end]
        return by[0] + SETTLED if by else moved + FOLLOW


@dataclass(frozen=True)
class Trial:
    """The home, and the records of clients, pointer and operator, after all have finished."""

    settings: Settings
    crowd: Crowd
    pointer: Pointer
    operator: Operator
    done: list[tuple[str, bool]]
    """(command, whether it was killed)"""
    resumed: "Resumed | None"
    """None in `make test`."""


@pytest.fixture(scope="module")
def trial(settings: Settings, config: Path) -> Iterator[Trial]:
    with serving(settings.home, SHORTLIST_WORKERS=str(WORKERS)) as served:
        deadline = time.monotonic() + 120
        while len(live_workers(settings)) < WORKERS:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        crowd = Crowd(served.url, [f"u{number + 1}" for number in range(NUM_USERS)])
        operator = Operator(settings, config, random.Random(SEED))
        pointer, done = Pointer(settings), []
        with pointer.watched(), crowd.busy():
            # First each command once without a kill, then kills at different moments. Both in a
            # random order; the seed is part of a failure's message.
            commands, moments = ["refresh", "run", "rollback", "promote"], operator.moments
            operator.rng.shuffle(commands)
            for command in commands:
                assert operator.run(command) == 0, (SEED, command)
            for command, watched in moments:
                done.append(operator.killed(command, watched=watched))
            resumed = None
            if LONG:
                over = time.monotonic() + SECONDS
                while time.monotonic() < over:
                    done.append(operator.one())
                resumed = operator.resume()
        # The next refresh completes the work of killed commands (docs/operations.md).
        last = shortlist("refresh", str(config), home=settings.home)
        assert last.returncode == 0, last.stderr[-5_000:]
        yield Trial(settings, crowd, pointer, operator, done, resumed)


def test_every_answer_is_right(trial: Trial) -> None:
    assert len(trial.crowd.answers) > 200
    # Each of the first commands was killed in the middle of its work.
    assert all(killed for _, killed in trial.done[:6]), (SEED, trial.done)
    assert trial.crowd.wrong == [], SEED


def test_every_answer_is_of_a_release_that_was_promoted_then(trial: Trial) -> None:
    done = trial.operator.done
    wrong = [
        (release_id, start, end)
        for start, end, release_id in trial.crowd.answers
        if not trial.pointer.allowed(release_id, start, end, done=done)
    ]
    assert wrong == []


def test_what_the_log_says_about_a_user_never_falls(trial: Trial) -> None:
    """The event count of a user, as served over time, never decreases."""
    store = ReleaseStore(trial.settings.releases)
    columns: dict[str, int] = {}
    counts: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for _, _, entry in read_lines(trial.settings.serving_log):
        release_id = entry["release_id"]
        if release_id not in columns:
            names = store.open(release_id).about["ranking_schema"]["names"]
            columns[release_id] = names.index("user_events_log")
        value = entry["items"][0]["features"][columns[release_id]]
        counts[entry["user_id"]].append((entry["event_timestamp"], value))
    assert len(counts) == NUM_USERS
    for user, series in counts.items():
        values = np.array([value for _, value in sorted(series)])
        assert (np.diff(values) > -1e-6).all(), (user, values)


def test_the_lake_has_each_posted_event_once(trial: Trial) -> None:
    events = Lake(trial.settings.lake).interactions()
    rows = events.select(["event_id", "event_type", "source"]).to_pylist()
    # Ingest derives a `like` from each rating of 4 or more; likes weren't posted.
    posted = [
        row["event_id"]
        for row in rows
        if row["source"].startswith("service:") and row["event_type"] != "like"
    ]
    assert sorted(posted) == sorted(trial.crowd.posted)
    ids = [row["event_id"] for row in rows]
    assert len(ids) == len(set(ids))


def test_online_rows_are_a_fresh_recomputation(trial: Trial, tmp_path: Path) -> None:
    settings, lake = trial.settings, Lake(trial.settings.lake)
    snapshots = Snapshots.read(settings.features)
    assert snapshots is not None
    fresh = Settings(home=tmp_path)
    build_states(
        lake.interaction_files(),
        lake.users(),
        folder=fresh.features,
        target_events=snapshots.target_events,
        until=snapshots.until,
        tick=snapshots.tick,
        lists=snapshots.lists,
    )
    apply(fresh)
    users = [f"u{number + 1}" for number in range(NUM_USERS)]
    at = np.full(NUM_USERS, snapshots.until + 1)
    # The clients posted from these places, and at any hour.
    contexts = [
        context_id(surface=SURFACES[i % len(SURFACES)], device=None, at=i * 3_600_000_000)
        for i in range(NUM_USERS)
    ]
    expected = OfflineReader(fresh).read(users, contexts, at)
    found = OnlineReader(settings).read(users, contexts, at)
    assert (expected.user["user_events"] > 0).all()
    assert any(held.items for held in expected.refusals)
    assert_same(found, expected)
    for name, values in expected.context.items():
        np.testing.assert_allclose(found.context[name], values, rtol=1e-9, err_msg=name)
    assert (expected.context["context_events"] > 0).any()
    served = latest_pack(settings.packs)
    pack = read_pack(fresh, snapshots.until)
    assert (served.as_of, served.item_ids) == (pack.as_of, pack.item_ids)
    for name, values in pack.state.items():
        np.testing.assert_allclose(served.state[name], values, rtol=1e-9, err_msg=name)


def test_served_features_are_what_the_lake_says(trial: Trial) -> None:
    done = shortlist("skew", "--json", home=trial.settings.home)
    assert done.returncode == 0, done.stderr[-5_000:]
    report = json.loads(done.stdout)
    assert report["requests"] > 100
    assert (report["exact_share"], report["reasons"], report["passed"]) == (1.0, [], True)


@pytest.mark.skipif(not LONG, reason="a whole run more; tests/flows/test_steps.py resumes as well")
def test_a_run_that_was_killed_after_its_training_is_resumed(trial: Trial) -> None:
    resumed = trial.resumed
    assert resumed is not None
    assert resumed.models
    assert written(resumed.run) == resumed.models  # not trained again
    assert (resumed.summary["run_id"], resumed.summary["promoted"]) == (resumed.run.name, True)


def test_releases_that_were_trained_meanwhile_answered(trial: Trial, settings: Settings) -> None:
    answered = {release_id for _, _, release_id in trial.crowd.answers}
    if trial.resumed is not None:
        assert trial.resumed.summary["release_id"] in answered
    assert len(answered) >= 2  # a first release and that of a whole run
