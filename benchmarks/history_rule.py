"""`shortlist bench history_rule`: compare rules for several events of a user on the same item.

In a shop, a user clicks an item and then buys it. A history contains each item only once. The rule
decides which event of the item it keeps: the first, the newest, or the strongest. A purchase is
stronger than a click; of equally strong events, the newest is kept.

The data are simulated shops, one per seed. Candidate sources are fitted on the first 80% of the
target events (clicks and purchases), tuned on the next 10%, and evaluated on the last 10% by
nDCG@10 of new items. Differences from the rule "first" have paired 95% bootstrap intervals over the
users of all shops.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks._event_log import EventLog
from benchmarks._result import about_machine, report
from models import registry
from models.data import TrainingData, Validation
from models.queries import Queries, Source
from models.training import TrainingOptions
from models.user_log import UserLog
from shortlist import columns as c
from shortlist.contracts import EVENT_CODE, microseconds, sort_by_time
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import bootstrap_mean, ndcg, paired_difference
from shortlist.splits import WINDOWS, draw_requests, split_windows
from simulation.source import SimulatedConfig, open_world, stream
from simulation.tables import Publisher

TARGETS = ("click", "purchase")
STRENGTH = {"purchase": 2, "click": 1}


class FirstEventLog(UserLog):
    """A log whose histories keep the first event of each item."""

    def newest(self, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        _, first = np.unique(key, return_index=True)
        return rows[np.sort(first)]


class StrongestEventLog(UserLog):
    """A log whose histories keep the strongest event of each item; ties go to the newest."""

    def newest(self, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        strength = np.zeros(len(EVENT_CODE) + 1)
        for name, value in STRENGTH.items():
            strength[EVENT_CODE[name]] = value
        order = np.lexsort((np.arange(len(rows)), strength[self.type_code[rows]]))[::-1]
        _, strongest = np.unique(key[order], return_index=True)
        return rows[np.sort(order[strongest])]


RULES: dict[str, type[UserLog]] = {
    "first": FirstEventLog,
    "newest": UserLog,
    "strongest": StrongestEventLog,
}
SOURCES: dict[str, dict[str, Any]] = {
    "item_knn": {"kind": "item_knn"},
    "ease": {"kind": "ease"},
    "two_tower": {
        "kind": "two_tower",
        "embedding_dim": 32,
        "num_negatives": 512,
        "optimiser": {"learning_rate": 3e-3, "num_epochs": 6},
    },
    "sasrec": {
        "kind": "sasrec",
        "embedding_dim": 32,
        "num_blocks": 1,
        "optimiser": {"learning_rate": 3e-3, "num_epochs": 8},
    },
}


class World(EventLog):
    """One simulated shop: its target events, its time windows, and the requests of a window."""

    def __init__(self, preset: str, seed: int):
        world = open_world(SimulatedConfig(preset=preset, seed=seed))
        publisher, days = Publisher(world), world.config.days
        every = sort_by_time(pa.concat_tables(stream(world, ingested_at=0, publisher=publisher)))
        items = publisher.items(0, world.items_on(days - 1))
        users = publisher.users(0, world.users_on(days - 1)).to_pylist()
        chosen = pc.is_in(every.column(c.EVENT_TYPE), value_set=pa.array(TARGETS))
        super().__init__(
            every.filter(chosen),
            catalogue=Catalogue.from_items(items),
            attributes={row[c.USER_ID]: dict(row[c.ATTRIBUTES] or []) for row in users},
        )
        self.asked = _page_times(every).filter(chosen).to_numpy()
        self.windows = split_windows(self.time, (0.7, 0.1, 0.1, 0.1))
        self.seed = seed

    def training(self, rule: type[UserLog]) -> TrainingData:
        return self.training_data(self.until(self.windows["ranker_train"][1], rule=rule))

    def requests(self, rule: type[UserLog], window: str) -> tuple[Queries, list[np.ndarray]]:
        """Return the requests of a window, and the relevant items of each.

        Relevant are items that the user chooses after the request for the first time. The histories
        of the requests are built by `rule`.
        """
        drawn = draw_requests(
            self.events,
            self.windows[window],
            rng=np.random.default_rng([self.seed, WINDOWS.index(window)]),
            asked=self.asked,
        )
        return self.queries(self.until(self.windows[window][1], rule=rule), drawn)


def _page_times(every: pa.Table) -> pa.Array:
    """Return the time at which each event's page was requested, in microseconds.

    It is the time of the first event of the request.
    """
    pages = every.select([c.USER_ID, c.REQUEST_ID])
    pages = pages.append_column("t", microseconds(every.column(c.EVENT_TIMESTAMP)))
    pages = pages.append_column("row", pa.array(np.arange(every.num_rows)))
    asked = pages.group_by([c.USER_ID, c.REQUEST_ID]).aggregate([("t", "min")])
    joined = pages.join(asked, [c.USER_ID, c.REQUEST_ID]).sort_by("row")
    # If an event is more than half an hour after its page's request, its own time is used.
    t, page = joined.column("t").to_numpy(), joined.column("t_min").to_numpy(zero_copy_only=False)
    page = np.where(np.isnan(page.astype(float)), t, page).astype(np.int64)
    return pa.array(np.where(t - page <= 30 * 60_000_000, page, t))


def per_user(source: Source, world: World, rule: type[UserLog]) -> tuple[list[str], np.ndarray]:
    queries, relevant = world.requests(rule, "test")
    found = source.retrieve(queries, world.no_items, k=10)
    users = [f"{world.seed}:{user}" for user in queries.user_ids]
    return users, ndcg(found.item_idx, relevant, k=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="shop")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    figures: dict[tuple[str, str], np.ndarray] = {}
    users: list[str] = []
    repeats, started = [], time.perf_counter()
    for seed in range(arguments.seeds):
        world = World(arguments.preset, seed)
        options = TrainingOptions(seed=seed, num_threads=arguments.threads)
        for rule, log_type in RULES.items():
            data = world.training(log_type)
            queries, relevant = world.requests(log_type, "validation")
            validation = Validation([(queries, world.no_items, relevant)])
            if rule == "first":
                repeats.append(1 - len(data.item_idx) / len(data.all_events.item_idx))
            for name, config in SOURCES.items():
                began = time.perf_counter()
                parsed = registry.parse_source(json.dumps(config))
                source = registry.fit(parsed, data, validation, options)
                asked, values = per_user(source, world, log_type)
                figures[rule, name] = np.concatenate(
                    [figures.get((rule, name), np.empty(0)), values]
                )
                print(
                    f"seed {seed}, {rule}, {name}: {np.nanmean(values):.4f},"
                    f" {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
        users += asked
    result = {
        "command": f"shortlist bench history_rule --preset {arguments.preset}"
        f" --seeds {arguments.seeds}",
        **about_machine(),
        "seconds_wall": round(time.perf_counter() - started, 1),
        "requests": len(users),
        "users": len(set(users)),
        "share_of_repeats": repeats,
        "sources": {
            name: {
                rule: {
                    "ndcg@10": _interval(bootstrap_mean, users, figures[rule, name]),
                    "above_first": _interval(
                        paired_difference, users, figures[rule, name], figures["first", name]
                    ),
                }
                for rule in RULES
            }
            for name in SOURCES
        },
    }
    report(result, arguments.out)


def _interval(of: Any, users: list[str], *values: np.ndarray) -> dict[str, float]:
    found = of(users, *values, rng=np.random.default_rng(0))
    return {name: round(found[name], 4) for name in ("mean", "low", "high")}


if __name__ == "__main__":
    main()
