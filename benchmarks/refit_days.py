"""`shortlist bench refit_days`: effect of the refit on nDCG@10 of the next day.

Each training fits its candidate sources twice: first on the first time window, to train the ranker
and choose the chain (sources + ranker), and then again on all events. The second fit is the refit.

The data are the last days of a simulated shop. Each night, new events are ingested and a release is
trained. The next day's requests are ranked twice: by that release, and by the same release with its
sources before the refit. Histories and item features are as of each request in both cases, so only
the models differ.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks._result import about_machine, peak_gb, report
from flows.runtime.configuration import RunConfig, load_run_config
from flows.runtime.runs import Run
from flows.training.release import train_release
from shortlist.config import Settings
from shortlist.metrics import bootstrap_mean
from simulation import open_world

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "simulated-shop.toml"
METHODS = ("refit", "without_refit")
DRAWS = 2000
"""Number of bootstrap samples."""
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SHORTLIST_HOME": folder, "PREFECT_HOME": f"{folder}/prefect"}
        started = time.perf_counter()
        days = train_and_judge_days(load_run_config(arguments.config), days=arguments.days)
        seconds = time.perf_counter() - started
    everyone = pa.concat_tables([day.pop("users") for day in days])
    config = arguments.config
    if config == DEFAULT_CONFIG:
        # Use a relative path, so that the result doesn't contain folder names of this machine.
        config = config.relative_to(DEFAULT_CONFIG.parents[1])
    result = {
        "command": f"shortlist bench refit_days --config {config} --days {arguments.days}",
        **about_machine(),
        f"ndcg@{K}": compare(everyone),
        "days": days,
        "seconds": round(seconds, 1),
        "peak_gb": peak_gb(),
    }
    report(result, arguments.out)


def train_and_judge_days(base: RunConfig, *, days: int) -> list[dict[str, Any]]:
    """Train on the log before each of the world's last `days` days, and evaluate on that day.

    Args:
        base: config of a simulated world.

    Returns:
        For each day: id of the run, whether its release was promoted, number of requests, nDCG of
        both methods, and the table of users.
    """
    assert base.data.simulated is not None
    world = open_world(base.data.simulated)
    settings = Settings()
    figures: list[dict[str, Any]] = []
    run, promoted = None, {}
    for day in range(world.config.days - days, world.config.days + 1):
        simulated = base.data.simulated.model_copy(update={"log_days": day})
        data = base.data.model_copy(update={"hold_back": 0.0, "simulated": simulated})
        config = base.model_copy(update={"data": data})
        ingest_and_featurize(settings, config)
        if run is not None:
            window = (world.midnight(day - 1), world.midnight(day))
            day_of_run = {"promoted": promoted["promoted"], "release": promoted["release_id"]}
            figures.append(day_of_run | judge(settings, run, window))
            print(json.dumps({k: v for k, v in figures[-1].items() if k != "users"}), flush=True)
        if day < world.config.days:
            run, promoted = train_release(settings, config)
    return figures


def ingest_and_featurize(settings: Settings, config: RunConfig) -> None:
    """Ingest, validate and featurize the log that `config` describes."""
    from flows.ingest import ingest_flow
    from flows.refresh import refresh
    from flows.validate import validate_flow

    batch = ingest_flow(config.data)
    validate_flow(batch["batch_id"], config.validation, clock=config.data.clock)
    refresh(settings, config)


def judge(settings: Settings, run: Run, window: tuple[int, int]) -> dict[str, Any]:
    """Compare nDCG@10 of a day's requests with the run's sources after and before the refit.

    Args:
        window: start and end of the day, in microseconds.
    """
    from benchmarks.rolling.requests import requests_of_day
    from flows.evaluate import judge_chain
    from flows.evaluation.requests import ndcg_of_users
    from models.recommend.loading import load_chain
    from shortlist.items.catalogue import Catalogue

    about = run.read("about.json", made_by="train")
    refit, before = (
        load_chain(run.staging, about, sources=sources)
        for sources in (run.staging / "sources", run.trial)
    )
    ticks = requests_of_day(
        settings,
        run.config,
        window,
        start=run.windows.edges[0],
        catalogue=Catalogue.from_items(run.items),
        profiles=refit.profiles,
    )
    lists = {
        "refit": judge_chain(refit, ticks, k=K),
        "without_refit": judge_chain(before, ticks, k=K),
    }
    users = ndcg_of_users({name: judged.lists for name, judged in lists.items()}, ticks, k=K)
    return {
        "run_id": run.run_id,
        "requests": sum(len(tick.queries) for tick in ticks),
        f"ndcg@{K}": compare(users),
        "users": users,
    }


def compare(users: pa.Table) -> dict[str, Any]:
    """Return mean nDCG@10 over users of both methods and of their paired difference.

    Each has a 95% bootstrap interval.
    """
    values = {
        name: users.filter(pc.equal(users.column("method"), name)).column("ndcg").to_numpy()
        for name in METHODS
    }
    names = users.filter(pc.equal(users.column("method"), METHODS[0])).column("user_id").to_pylist()
    values["difference"] = values["refit"] - values["without_refit"]
    return {
        name: bootstrap_mean(names, of_users, rng=np.random.default_rng(0), draws=DRAWS)
        for name, of_users in values.items()
    }


if __name__ == "__main__":
    main()
