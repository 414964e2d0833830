"""Trains and judges the policies of `shortlist bench rollout` on one day."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rolling.requests import requests_of_day
from flows.evaluate import evaluate, judge_chain, ndcg_of_users
from flows.package import package
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.train import train
from flows.training.incremental import train_incrementally
from models.incremental import Increment
from models.recommend.loading import load_served
from shortlist.config import Settings, load_toml
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake
from shortlist.releases.gates import GatesConfig, judge_gates
from shortlist.releases.release import ReleaseStore

STALE, FULL, INCREMENTAL = "stale", "full", "incremental"
K = 10


@dataclass(frozen=True)
class Policy:
    """When models are trained, and how."""

    name: str
    every: int | None
    """Number of days between two trainings; None: only on the first day."""
    increment: dict[str, Any] | None = None
    """Changes of `Increment`'s defaults; None: full training."""

    def trains_on(self, number: int) -> bool:
        """Whether it trains on day `number`, counted from 0, where all share a full training."""
        return number > 0 and self.every is not None and number % self.every == 0


@dataclass
class Trained:
    """A release and what its training took."""

    release_id: str
    seconds: float
    cpu_seconds: float
    gates: list[str] = field(default_factory=list)
    """Gates that the release failed; only of incremental releases."""


def train_policy(
    settings: Settings, policy: Policy, config: RunConfig, base: str | None, *, gated: bool
) -> Trained:
    """Train a release on the current lake, and publish it without promotion by gates.

    Args:
        base: release that an incremental policy continues.
        gated: also evaluate an incremental release and judge it by the gates.
    """
    store = ReleaseStore(settings.releases)
    if base is not None:
        store.promote(base)
    incremental = policy.increment is not None
    run = Run.start(settings, config, incremental=incremental)
    wall, cpu = time.perf_counter(), time.process_time()
    if policy.increment is None:
        train(settings, run, baselines=False)
    else:
        found = run.base(settings)
        assert found is not None
        train_incrementally(
            settings, run, increment=Increment(since=found.data_end, **policy.increment)
        )
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    failed: list[str] = []
    if incremental and gated:
        evaluate(settings, run.run_id)
        release_id = package(settings, run.run_id, bento=False)["release_id"]
        gates = load_toml(config.gates, GatesConfig)
        verdict = judge_gates(store.open(release_id), gates, history=store.history())
        failed = [f"{gate.name}: {gate.reason}" for gate in verdict.gates if not gate.passed]
    else:
        about = run.read("about.json", made_by="train") | {"run_id": run.run_id}
        with store.publishing(about) as (folder, about):
            shutil.copytree(run.staging, folder, dirs_exist_ok=True)
        release_id = about["release_id"]
    run.end(settings)
    for folder in (run.staging, run.trial, run.path / "backtest"):
        shutil.rmtree(folder, ignore_errors=True)
    return Trained(release_id, round(seconds, 2), round(cpu_seconds, 2), failed)


def judge_release(
    settings: Settings, release_id: str, config: RunConfig, window: tuple[int, int]
) -> dict[str, float]:
    """Return {user: mean nDCG@10} of a release on the requests of a day, as it would serve.

    Args:
        window: start and end of the day, in microseconds; the lake has its events.
    """
    release = ReleaseStore(settings.releases).open(release_id)
    known = Catalogue.load(release.file("items.parquet"))
    catalogue = known.with_current(Lake(settings.lake).items())
    chain = load_served(release, catalogue)
    ticks = requests_of_day(
        settings,
        config,
        window,
        start=release.about["windows"]["retrieval_train"][0],
        catalogue=catalogue,
        profiles=chain.profiles,
    )
    users = ndcg_of_users({"it": judge_chain(chain, ticks, k=K).lists}, ticks, k=K)
    return dict(
        zip(users.column("user_id").to_pylist(), users.column("ndcg").to_pylist(), strict=True)
    )


def prepare_day(settings: Settings, config: RunConfig, marker: Path) -> None:
    """Bring the lake and the features to the start of a day, once."""
    from benchmarks.refit_days import ingest_and_featurize

    if not marker.is_file():
        ingest_and_featurize(settings, config)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
