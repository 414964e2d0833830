"""`shortlist bench off_policy`: do the 95% intervals of off-policy estimates hold the truth?

Each log has users of a simulated world who are shown a champion's lists with exploration, by the
code of the service. Policies are other orders of the champion's candidates. The oracle knows the
expected clicks of each policy over the whole population. Logs are added until `--policies`
estimates were not refused for lack of support. `--open-bandit` names the folder of the Open Bandit
Dataset (Saito et al. 2021): the uniformly random policy is estimated from the log of the other
policy, and compared with its clicks in its own log.
"""

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._result import about_machine, command_line, report
from models.recommend.exploring.exploration import epsilon_greedy, plackett_luce
from monitoring.off_policy.chances import LoggedLists
from monitoring.off_policy.estimate import METHODS, OffPolicy
from monitoring.off_policy.support import problem_of_outcomes, problem_of_policy
from monitoring.traffic.estimate import Estimate
from shortlist.config import EpsilonGreedy, Softmax
from simulation.behaviour import NO_ITEM, LatentState, attraction, examination
from simulation.config import WorldConfig, load_world_config
from simulation.world import World

K, POOL = 10, 50
POPULATION, USERS = 12_000, 2_000
"""Users of the world, and users of one log."""
POLICIES_OF_A_LOG = 20
SETTINGS: tuple[tuple[Softmax | EpsilonGreedy, int], ...] = (
    (Softmax(temperature=0.1, pool=POOL), 3),
    (EpsilonGreedy(share=0.4), 5),
)
"""Exploration settings, one log each in turn, and the lists of each user."""


@dataclass(frozen=True)
class Shop:
    """A world's users with the champion's candidates and what other policies know about them."""

    world: World
    candidates: np.ndarray  # (U, POOL) item rows, in the champion's order
    score: np.ndarray  # (U, POOL) the champion's score
    signals: np.ndarray  # (U, POOL, 4) score, liking, appeal and price, standardised

    @classmethod
    def open(cls, *, seed: int) -> "Shop":
        config = load_world_config("shop").model_dump()
        config |= {"days": 1, "seed": seed}
        config["population"] |= {"users": POPULATION}
        world = World(WorldConfig.model_validate(config))
        rng = np.random.default_rng([seed, 1])
        items, taste = world.items, world.users.taste[:POPULATION]
        known = items.vector + 0.5 * rng.standard_normal(items.vector.shape)
        score = taste @ known.T + 0.3 * (items.appeal + rng.standard_normal(len(items.appeal)))
        best = np.argpartition(-score, POOL, axis=1)[:, :POOL]
        order = np.argsort(-np.take_along_axis(score, best, axis=1), axis=1)
        candidates = np.take_along_axis(best, order, axis=1)
        score = np.take_along_axis(score, candidates, axis=1)
        liking = np.einsum("ud,upd->up", taste, items.vector[candidates])
        raw = np.stack(
            [score, liking, items.appeal[candidates], items.log_price[candidates]], axis=2
        )
        return cls(world, candidates, score, (raw - raw.mean((0, 1))) / raw.std((0, 1)))

    def moment(self, users: np.ndarray) -> LatentState:
        """Return the latent state of users who are neither bored nor in need of staples."""
        of, count = self.world.users, len(users)
        return LatentState(
            user=users,
            taste=of.taste[users],
            boredom=np.zeros((count, len(self.world.topics)), dtype=np.float32),
            trust=np.ones(count, dtype=np.float32),
            intent=np.zeros(count, dtype=np.float32),
            price_sense=of.price_sense[users],
            activity=of.activity[users],
            due=np.full((count, of.staples.shape[1]), NO_ITEM),
        )

    def lists(self, weights: np.ndarray) -> np.ndarray:
        """Return (U, K) item rows: the candidates with the highest weighted sum of signals."""
        order = np.argsort(-(self.signals @ weights), axis=1)[:, :K]
        return np.take_along_axis(self.candidates, order, axis=1)

    def true_clicks(self, lists: np.ndarray) -> float:
        """Return the expected clicks per list over the population, as the oracle knows them."""
        moment = self.moment(np.arange(POPULATION))
        params = self.world.config.behaviour
        attracted = attraction(params, self.world.items, moment, lists)[1]
        return float((attracted @ examination(params, K)).mean())

    def log(
        self, setting: Softmax | EpsilonGreedy, *, lists: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, LoggedLists]:
        """Serve `lists` explored lists of the champion to each of USERS, and draw their clicks.

        Returns:
            The user of each list, and the log.
        """
        users = np.repeat(rng.choice(POPULATION, size=USERS, replace=False), lists)
        every = np.arange(1, self.world.items_on(0) + 1)
        items = np.empty((len(users), K), dtype=np.int64)
        propensity, is_random = np.empty(items.shape), np.zeros(items.shape, dtype=bool)
        for row, user in enumerate(users):
            best = self.candidates[user] + 1  # item_idx start at 1
            if isinstance(setting, Softmax):
                places, propensity[row] = plackett_luce(
                    self.score[user], k=K, setting=setting, rng=rng
                )
                items[row] = best[places]
                continue
            free = np.delete(every, best[:K] - 1)
            is_random[row], items[row], propensity[row] = epsilon_greedy(
                best[:K], free, share=setting.share, rng=rng
            )
        params = self.world.config.behaviour
        attracted = attraction(params, self.world.items, self.moment(users), items - 1)[1]
        clicks = rng.random(items.shape) < examination(params, K) * attracted
        number = np.unique(users, return_inverse=True)[1]
        return users, LoggedLists(number, items, clicks.astype(float), propensity, is_random)


def judge_policies(shop: Shop, *, policies: int, seed: int) -> tuple[pd.DataFrame, Counter]:
    """Judge random policies until `policies` estimates are not refused.

    Returns:
        A row per judged policy and estimate (see `_row`), and the number of refused policies by
        exploration type.
    """
    rng = np.random.default_rng([seed, 2])
    champion = shop.lists(np.array([1.0, 0, 0, 0]))
    of_champion = shop.true_clicks(champion)
    rows: list[dict[str, Any]] = []
    judged, refused, number = 0, Counter(), 0
    while judged < policies:
        setting, lists_of_user = SETTINGS[number % len(SETTINGS)]
        users, logged = shop.log(setting, lists=lists_of_user, rng=rng)
        judge = OffPolicy(logged, num_items=shop.world.num_items, seed=number)
        number += 1
        base = judge.judge(champion[users] + 1)
        for _ in range(POLICIES_OF_A_LOG):
            weights = np.array([1.0, 0, 0, 0]) + rng.uniform(0, 1.5) * rng.normal(size=4)
            lists = shop.lists(weights)
            value = judge.judge(lists[users] + 1)
            if (problem_of_outcomes(judge) or problem_of_policy(value)) is not None:
                refused[setting.kind] += 1
                continue
            judged += 1
            truth = shop.true_clicks(lists)
            about = {"exploration": setting.kind, "effective": value.effective}
            for method in METHODS:
                rows.append(_row(value.estimates[method], truth) | about | {"method": method})
                lead = judge.difference(value, base, method=method)
                lead_row = _row(lead, truth - of_champion, scale=of_champion)
                rows.append(lead_row | about | {"method": f"{method} minus champion"})
    return pd.DataFrame(rows), refused


def _row(estimate: Estimate, truth: float, *, scale: float | None = None) -> dict[str, Any]:
    """Return whether the interval holds the truth, and error and half width in units of `scale`."""
    scale = truth if scale is None else scale
    return {
        "covered": estimate.low <= truth <= estimate.high,
        "error": (estimate.value - truth) / scale,
        "width": 1.96 * estimate.error / scale,
    }


def summary(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return coverage, bias, error and width by method."""
    return {
        str(method): {
            "coverage_95": round(float(group["covered"].mean()), 4),
            "relative_bias": round(float(group["error"].mean()), 4),
            "relative_rmse": round(float((group["error"] ** 2).mean() ** 0.5), 4),
            "relative_half_width": round(float(group["width"].mean()), 4),
        }
        for method, group in rows.groupby("method", sort=False)
    }


def open_bandit(folder: Path) -> dict[str, Any]:
    """Estimate the uniformly random policy from the log of Thompson sampling, per campaign.

    Every row is one shown item, a list of length 1. The random policy is the mean of the policies
    that always show one item.
    """
    out = {}
    for campaign in ("men", "women"):
        log = pd.read_csv(folder / "bts" / campaign / f"{campaign}.csv")
        own = pd.read_csv(folder / "random" / campaign / f"{campaign}.csv")["click"]
        num_items = int(log["item_id"].max()) + 1
        logged = LoggedLists(
            user=np.arange(len(log)),
            item_idx=log[["item_id"]].to_numpy() + 1,
            reward=log[["click"]].to_numpy(float),
            propensity=log[["propensity_score"]].to_numpy(),
            is_random=np.ones((len(log), 1), dtype=bool),
        )
        judge = OffPolicy(logged, num_items=num_items)
        values = [judge.judge(np.full((len(log), 1), item)) for item in range(1, num_items + 1)]
        estimates: dict[str, Any] = {"lists": len(log), "clicks": int(log["click"].sum())}
        for method in METHODS:
            value = float(np.mean([each.estimates[method].value for each in values]))
            influence = np.mean([each.influence[method] for each in values], axis=0)
            error = float(influence.std(ddof=1) / len(log) ** 0.5)
            estimates[method] = {
                "value": value,
                "low": value - 1.96 * error,
                "high": value + 1.96 * error,
            }
        error = 1.96 * float(own.std() / len(own) ** 0.5)
        mean = float(own.mean())
        estimates["own log"] = {"value": mean, "low": mean - error, "high": mean + error}
        out[campaign] = estimates
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--open-bandit", type=Path, help="folder of the Open Bandit Dataset")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    started = time.perf_counter()
    shop = Shop.open(seed=arguments.seed)
    rows, refused = judge_policies(shop, policies=arguments.policies, seed=arguments.seed)
    methods = summary(rows)
    result = {
        "coverage_95": methods["dr"]["coverage_95"],
        "policies": arguments.policies,
        "methods": methods,
        "by_exploration": {
            str(kind): {"policies": len(group) // len(methods)} | summary(group)
            for kind, group in rows.groupby("exploration", sort=False)
        },
        "refused": dict(refused),
        "settings": [
            setting.model_dump() | {"lists": USERS * lists} for setting, lists in SETTINGS
        ],
        "seed": arguments.seed,
    }
    if arguments.open_bandit is not None:
        result["open_bandit"] = open_bandit(arguments.open_bandit)
    result["seconds"] = round(time.perf_counter() - started, 1)
    about = {"command": command_line("off_policy")} | about_machine()
    report(result | about, arguments.out, shown=result)


if __name__ == "__main__":
    main()
