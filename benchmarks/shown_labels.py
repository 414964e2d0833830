"""`shortlist bench shown_labels`: what rankers gain by learning from lists that were shown.

For each seed, a simulated world's log (with impressions, positions and propensities) becomes the
lake of a new home. Sources are fitted once. Then each ranker is trained on the requests of the
ranker-train window (the sources' candidates), on the lists that were shown in it, and on both; and
on shown lists without a correction of positions, or with clipped inverse propensities as weights.
All are compared with training on candidates, on the same validation requests:

- nDCG@10 and value@10 of what users did within a day. They could only choose what was shown to
  them, so these figures favour lists like the shown ones.
- Clicks and satisfaction that the world's oracle expects of the first ten items, for users with
  their lasting taste (without mood, boredom and needs). No figure of a real log can show these.

Intervals are of a bootstrap over the users of all seeds.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, peak_gb, report, rounded
from flows.featurize import featurize
from flows.ingest import stage
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import as_validation, load_run_data, training_data
from flows.training.ranking_data import RankingWindows, chain_of_all, gather
from flows.training.shown_lists import SHOWN
from flows.training.windows import read_windows
from flows.validate import validate_batch
from models import registry
from models.ranking.neural.ranker import NETWORKS
from models.ranking.protocol import RankingData, scores_of
from models.ranking.registry import RankerConfig, fit_ranker
from models.recommend.chain import Chain
from models.training import TrainingOptions
from shortlist.config import Settings
from shortlist.files.plain_json import write_json
from shortlist.lake import Lake
from shortlist.metrics import bootstrap_mean, paired_difference
from simulation import open_world
from simulation.behaviour import NO_ITEM, LatentState
from simulation.oracle import Oracle
from simulation.tables import Publisher
from simulation.world import World

K = 10
DRAWS = 1000
VALUE = {"click": 0.1, "purchase": 1.0, "rating": 0.3, "survey": 0.3, "hide": -0.5, "dislike": -0.5}
"""The formula of configs/simulated-shop.toml."""
SOURCES = ("item_knn", "ease", "recent_popularity")
BASE = "candidates"
WEIGHTED = "shown with inverse propensities"
MAX_WEIGHT = 10.0
"""Clip of the inverse propensities, relative to their median."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny", help="preset of the simulated world")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rankers", default="lambdamart,value")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    started = time.perf_counter()
    kinds = arguments.rankers.split(",")
    users: list[str] = []
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    sizes: list[dict[str, int]] = []
    result: dict[str, Any] = {}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            of_seed = measure(Settings(home=Path(folder)), arguments.preset, kinds, seed=seed)
        users += [f"{seed}/{user}" for user in of_seed["users"]]
        sizes.append(of_seed["sizes"])
        for name, figures in of_seed["figures"].items():
            for figure, values in figures.items():
                found.setdefault(name, {}).setdefault(figure, []).append(values)
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        result = summary(arguments, users, found, sizes, seconds=time.perf_counter() - started)
        if arguments.out is not None:
            write_json(arguments.out, result)
    report(result, arguments.out)


def summary(
    arguments: argparse.Namespace,
    users: list[str],
    found: dict[str, dict[str, list[np.ndarray]]],
    sizes: list[dict[str, int]],
    *,
    seconds: float,
) -> dict[str, Any]:
    """Return the figures of all seeds so far.

    Args:
        found: {training: {figure: values of the requests of each seed}}.
    """
    joined = {
        name: {figure: np.concatenate(parts) for figure, parts in figures.items()}
        for name, figures in found.items()
    }
    options = f"--preset {arguments.preset} --seeds {arguments.seeds}"
    return {
        "command": f"shortlist bench shown_labels {options} --rankers {arguments.rankers}",
        **about_machine(),
        "window": "validation",
        "seeds": len(sizes),
        "sizes": sizes,
        "figures": {name: compare(users, name, joined) for name in joined},
        "seconds": round(seconds, 1),
        "peak_gb": peak_gb(),
    }


def compare(
    users: list[str], name: str, figures: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Return the figures of one training, and their differences from training on candidates."""
    base = figures[f"{name.split(' ')[0]} {BASE}"]
    out = {}
    for figure, values in figures[name].items():
        rng = np.random.default_rng(0)
        out[figure] = {
            "mean": round(bootstrap_mean(users, values, rng=rng, draws=1)["mean"], 4),
            "over_candidates": rounded(
                paired_difference(
                    users, values, base[figure], rng=np.random.default_rng(0), draws=DRAWS
                )
            ),
        }
    return out


def measure(settings: Settings, preset: str, kinds: list[str], *, seed: int) -> dict[str, Any]:
    """Return the figures of all trainings on one world, per validation request."""
    configs = [{"kind": kind, "labels": "shown"} for kind in kinds]
    config = RunConfig.model_validate(
        {
            "name": "shown",
            "seed": seed,
            "data": {
                "source": "simulated",
                "target_events": ["click", "purchase"],
                "clock": "replay",
                "simulated": {"preset": preset, "seed": seed},
            },
            "train": {"sources": [{"kind": kind} for kind in SOURCES], "rankers": configs},
            "value": VALUE,
        }
    )
    batch = stage(settings, config.data)
    validate_batch(settings, batch["batch_id"], config.validation, clock="replay")
    newest = Lake(settings.lake).manifest.latest
    assert newest is not None, "there are events"
    featurize(settings, config.data.target_events, until=newest + 1, tick=config.tick)
    run = Run.start(settings, config)
    window, chain = windows_of(settings, run)
    valid = window.valid.data
    assert config.data.simulated is not None
    judge = WorldJudge(open_world(config.data.simulated), chain.catalogue.vocab.ids, valid)
    figures: dict[str, dict[str, np.ndarray]] = {}
    for ranker in config.rankers:
        for name, data in trainings(window).items():
            tried: RankerConfig = ranker
            if name == WEIGHTED:
                if ranker.kind in NETWORKS:  # they read no weights
                    continue
                tried = ranker.model_copy(update={"max_propensity_weight": MAX_WEIGHT})
            options = TrainingOptions(seed=seed, num_threads=1)
            started = time.perf_counter()
            fitted = fit_ranker(tried, data, valid, options)
            scores = scores_of(fitted, valid)
            figures[f"{ranker.kind} {name}"] = {
                "ndcg@10": valid.ndcg(scores),
                "value@10": valid.value(scores, VALUE),
            } | judge(scores)
            seconds = time.perf_counter() - started
            print(f"{ranker.kind} {name}: {seconds:.1f} s", file=sys.stderr)
    assert window.shown is not None
    shown = window.shown.data
    return {
        "users": valid.users,
        "figures": figures,
        "sizes": {
            "train_requests": len(window.train.data),
            "shown_lists": len(shown),
            "shown_lists_with_a_chosen_item": len(shown.learnable_requests()),
            "validation_requests": len(valid),
            "validation_users": len(set(valid.users)),
            "events": Lake(settings.lake).interactions().num_rows,
        },
    }


def windows_of(settings: Settings, run: Run) -> tuple[RankingWindows, Chain]:
    """Fit the sources on the first window; return the ranking data and the chain."""
    config, run_data = run.config, load_run_data(settings, run)
    names = ("ranker_train", "validation")
    ticks, profiles = read_windows(
        run.states(settings), run_data, config, windows=names, rankers=config.rankers
    )
    if SHOWN not in ticks:
        raise SystemExit("too few shown lists in this world; want a larger preset")
    data = training_data(run_data, profiles, end=run_data.windows["retrieval_train"][1])
    validation = as_validation(ticks["validation"])
    options = TrainingOptions(seed=config.seed, num_threads=1)
    sources = {
        source.kind: registry.fit(source, data, validation, options)
        for source in config.train.sources
    }
    chain = chain_of_all(config, run_data, profiles, sources)
    gathered = {name: gather(chain, ticks[name]) for name in ticks}
    return RankingWindows.of(chain, ticks, gathered), chain


def trainings(window: RankingWindows) -> dict[str, RankingData]:
    """Return {name: training data}; the first is the base of all comparisons."""
    assert window.shown is not None
    candidates, shown = window.train.data, window.shown.data
    return {
        BASE: candidates,
        "shown": shown,
        "shown without positions": replace(shown, position=None),
        WEIGHTED: shown,
        "both": RankingData.concat([candidates, shown]),
    }


class WorldJudge:
    """Expected results of the first ten items, by the oracle of the simulated world."""

    def __init__(self, world: World, item_ids: list[str], data: RankingData):
        publisher = Publisher(world)
        row_of = {item_id: row for row, item_id in enumerate(publisher.item_ids.to_pylist())}
        user_of = {user_id: row for row, user_id in enumerate(publisher.user_ids.to_pylist())}
        self.oracle, self.data = Oracle(world), data
        self.item_row = np.array([NO_ITEM, *(row_of[item_id] for item_id in item_ids)])
        user = np.array([user_of[user_id] for user_id in data.users])
        people, count = world.users, len(user)
        self.moment = LatentState(
            user=user,
            taste=people.taste[user],
            boredom=np.zeros((count, world.config.catalogue.topics), dtype=np.float32),
            trust=np.ones(count, dtype=np.float32),
            intent=np.zeros(count, dtype=np.float32),
            price_sense=people.price_sense[user],
            activity=people.activity[user],
            due=np.empty((count, 0), dtype=np.int64),
        )

    def __call__(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Return the expected clicks and satisfaction of each request's first ten items."""
        best = self.data.best(scores, k=K)
        slate = self.item_row[np.append(self.data.item_idx, 0)[best]]
        expected = self.oracle.expect(self.moment, slate)
        return {
            "oracle clicks": expected.clicks.astype(np.float64),
            "oracle satisfaction": expected.satisfaction.astype(np.float64),
        }


if __name__ == "__main__":
    main()
