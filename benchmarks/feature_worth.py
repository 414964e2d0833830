"""`shortlist bench feature_worth`: ablation of the groups of ranking features.

It uses the newest finished run under SHORTLIST_HOME. It retrieves the candidates of the run's three
time windows (ranker training, validation, test) once. Then it fits the run's LambdaMART ranker with
all features and without each group, with several seeds. The metric is nDCG@10 on the test window,
averaged over seeds for each request. The worth of a group is nDCG@10 with all features minus
nDCG@10 without the group, with a paired 95% bootstrap interval over users. If the interval is above
zero, the group improves the lists.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._result import about_machine, report, rounded
from flows.runtime.runs import Run
from flows.training.assemble import load_run_data
from flows.training.ranking_data import assemble_ranking, gather
from flows.training.windows import read_windows
from models.ranking.protocol import RankingData
from models.ranking.trees.lambdamart import LambdamartConfig, fit_lambdamart
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, latest_pack
from shortlist.features.descriptions import GROUPS
from shortlist.features.event_groups import ITEM_GROUP_FEATURES, USER_GROUP_FEATURES
from shortlist.features.searches import USER_SEARCH_FEATURES
from shortlist.metrics import bootstrap_mean, paired_difference
from shortlist.releases.release import ReleaseStore

WINDOWS = ("ranker_train", "validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds to average")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    run, windows = windows_of(Settings())
    names = windows["test"].schema.names
    groups = groups_of(names)
    judged = {
        name: judge(windows, [names.index(f) for f in left_out], run, arguments)
        for name, left_out in ({"all": ()} | groups).items()
    }
    users = windows["test"].users
    of_all = judged["all"]
    result = {
        "command": f"shortlist bench feature_worth --seeds {arguments.seeds}",
        **about_machine(),
        "dataset": run.config.name,
        "requests": {name: len(data) for name, data in windows.items()},
        "features": len(names),
        "ndcg@10": rounded(bootstrap_mean(users, of_all, rng=np.random.default_rng(0))),
        "worth": {
            name: rounded(
                paired_difference(users, of_all, judged[name], rng=np.random.default_rng(0))
            )
            | {"features": len(left_out)}
            for name, left_out in groups.items()
        },
    }
    report(result, arguments.out)


def windows_of(settings: Settings) -> tuple[Run, dict[str, RankingData]]:
    """Return the newest run and its ranking data, recomputed with the sources of its release."""
    run = Run.open(settings)
    release = run.read("release.json", made_by="package")["release_id"]
    recommender = Recommender.load(
        ReleaseStore(settings.releases).open(release),
        OfflineReader(settings),
        pack=latest_pack(settings.packs),
    )
    run_data = load_run_data(settings, run)
    ticks, _ = read_windows(settings, run_data, run.config, windows=WINDOWS)
    chain = recommender.chain
    return run, {
        name: assemble_ranking(chain, ticks[name], gather(chain, ticks[name])).data
        for name in WINDOWS
    }


def groups_of(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return {group name: columns}: the groups that `shortlist features` lists, and finer ones."""
    groups = {
        group.name: tuple(
            name
            for name in names
            if name.rpartition(":")[2] in {feature.name for feature in group.features}
            and (":" in name) == (group.name == "source")
        )
        for group in GROUPS
    }
    return groups | {
        "event groups of user": USER_GROUP_FEATURES,
        "event groups of item": ITEM_GROUP_FEATURES,
        "event groups of both": (*USER_GROUP_FEATURES, *ITEM_GROUP_FEATURES),
        "all of searches": (*USER_SEARCH_FEATURES, *groups["search"]),
        "trends of value": ("user_value_trend", "item_value_trend"),
        "prices": tuple(name for name in names if name.startswith("price_")),
        "categories": tuple(name for name in names if name.startswith("category_")),
    }


def judge(
    windows: dict[str, RankingData], left_out: list[int], run: Run, arguments: argparse.Namespace
) -> np.ndarray:
    """Return nDCG@10 of each test request without the columns `left_out`, averaged over seeds."""
    started = time.perf_counter()
    data = {name: without(window, left_out) for name, window in windows.items()}
    config = next(
        (r for r in run.config.train.rankers if isinstance(r, LambdamartConfig)), LambdamartConfig()
    )
    found = []
    for seed in range(arguments.seeds):
        options = TrainingOptions(seed=seed, num_threads=arguments.threads)
        ranker = fit_lambdamart(config, data["ranker_train"], data["validation"], options)
        found.append(data["test"].ndcg(ranker.predict(data["test"].x, data["test"].item_idx)))
    ndcg = np.mean(found, axis=0)
    print(
        f"without {len(left_out)} columns: nDCG@10 {np.nanmean(ndcg):.4f}, mean over requests,"
        f" in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return ndcg


def without(data: RankingData, columns: list[int]) -> RankingData:
    """Return the same requests with these columns set to 0, so that no tree can split on them."""
    x = data.x.copy()
    x[:, columns] = 0
    return replace(data, x=x)


if __name__ == "__main__":
    main()
