"""Chooses, on validation, how searches combine words, vectors and the ranker's order.

A request is a search of the log at its time; relevant are the items that the user chose from it
(shortlist/lake/searches.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import EvaluationBatch, RunData
from flows.training.windows import read_windows
from models.queries import pad_lists
from models.recommend.chain import Chain
from models.recommend.search import VECTORS, Matches, match
from models.search.text_index import TextIndex
from models.search.weights import SearchWeights
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.metrics import ndcg, paired_difference
from shortlist.splits import Requests

WORD_WEIGHTS, PERSONAL_WEIGHTS = (0.0, 0.3, 1.0), (0.0, 0.5, 1.0, 2.0, 4.0)
"""Weights of words and of the ranker that are tried; that of vectors is 1."""
FEW_USERS = 20
"""With fewer users who searched, the default weights stay."""
MAX_SEARCHES = 2_000
K = 10


@dataclass(frozen=True)
class Searches:
    """A batch of searches, and the items chosen from each."""

    batch: EvaluationBatch
    texts: list[str]


@dataclass
class SearchChoice:
    """The chosen weights, with the figures behind them."""

    weights: SearchWeights = field(default_factory=SearchWeights)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if not self.figures:
            return "too few searches to choose how a search orders items"
        w = self.weights
        return (
            f"a search weighs words {w.words:g}, vectors {w.vectors:g}, the ranker {w.personal:g}"
        )


def choose_search(settings: Settings, run: Run, run_data: RunData, chain: Chain) -> SearchChoice:
    """Compare weights on the searches of the validation window.

    Other weights than the default need a gain in nDCG@10 whose interval is above zero.
    """
    searches = searches_of(settings, run, run_data, window="validation")
    users = [user for each in searches for user in each.batch.queries.user_ids]
    if len(set(users)) < FEW_USERS:
        return SearchChoice()
    index = TextIndex(chain.catalogue.texts)
    matches = [
        match(
            each.batch.over(chain), lambda: index, each.batch.queries, each.batch.items, each.texts
        )
        for each in searches
    ]
    default = SearchWeights()
    of_default = ndcg_of(matches, searches, default)
    tried = {
        weights: ndcg_of(matches, searches, weights)
        for weights in (
            SearchWeights(words=w, personal=p) for w in WORD_WEIGHTS for p in PERSONAL_WEIGHTS
        )
        if weights.words or weights.personal or has_vectors(matches)
    }
    best = max(tried, key=lambda weights: mean_of(tried[weights]))
    gain = paired_difference(users, tried[best], of_default, rng=np.random.default_rng(0))
    figures = {
        "searches": len(users),
        "users": len(set(users)),
        "default_ndcg@10": round(mean_of(of_default), 4),
        "best": best.model_dump(),
        "gain": {name: round(gain[name], 4) for name in ("mean", "low", "high")},
    }
    return SearchChoice(best if gain["low"] > 0 else default, figures)


def has_vectors(matches: Sequence[Matches]) -> bool:
    return any(VECTORS in each.shortlist.ranks for each in matches)


def ndcg_of(
    matches: Sequence[Matches], searches: Sequence[Searches], weights: SearchWeights
) -> np.ndarray:
    """Return the nDCG@10 of each search."""
    return np.concatenate(
        [
            ndcg(pad_lists(each.best(weights, k=K).item_idx, K), of.batch.relevant, k=K)
            for each, of in zip(matches, searches, strict=True)
        ]
    )


def mean_of(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def searches_of(settings: Settings, run: Run, run_data: RunData, *, window: str) -> list[Searches]:
    """Return up to MAX_SEARCHES random searches of a window with their point-in-time features."""
    config = run.config
    requests, texts = drawn_searches(run_data, config, window)
    if not len(requests):
        return []
    key = (window, config.seed, config.split.max_requests_per_user)
    data = replace(run_data, drawn={key: requests})
    batches, _ = read_windows(run.states(settings), data, config, windows=(window,), searched=texts)
    asked = zip(requests.user_ids, requests.at.tolist(), strict=True)
    text_of = dict(zip(asked, texts, strict=True))
    out = []
    for batch in batches[window]:
        queries = batch.queries
        # Consumed items may be found. `seen` doesn't tell them from refused ones, so those may too.
        queries = replace(queries, seen=[np.zeros(0, dtype=np.int64)] * len(queries))
        own = [text_of[row] for row in zip(queries.user_ids, queries.at.tolist(), strict=True)]
        out.append(Searches(replace(batch, queries=queries), own))
    return out


def drawn_searches(run_data: RunData, config: RunConfig, window: str) -> tuple[Requests, list[str]]:
    """Return random searches of a window as requests, sorted by time, and their texts.

    Of searches of a user at the same time, one is taken.
    """
    start, end = run_data.windows[window]
    pairs = run_data.searches
    if pairs is None:
        return Requests([], np.zeros(0, dtype=np.int64), [], [], []), []
    asked = microseconds(pairs.column("searched_at")).to_numpy()
    chosen_at = microseconds(pairs.column(c.EVENT_TIMESTAMP)).to_numpy()
    pairs = pairs.filter(pa.array((asked >= start) & (chosen_at < end)))
    grouped = pairs.group_by([c.USER_ID, "searched_at"]).aggregate(
        [(c.QUERY, "min"), (c.ITEM_ID, "distinct")]
    )
    rng = np.random.default_rng([config.seed, *b"searches"])
    rows = np.sort(rng.permutation(grouped.num_rows)[:MAX_SEARCHES])
    table = grouped.take(pa.array(rows)).sort_by(
        [("searched_at", "ascending"), (c.USER_ID, "ascending")]
    )
    items = table.column(f"{c.ITEM_ID}_distinct").to_pylist()
    requests = Requests(
        user_ids=table.column(c.USER_ID).to_pylist(),
        at=microseconds(table.column("searched_at")).to_numpy() + 1,
        relevant=items,
        next_set=items,
        contexts=[("search", None)] * table.num_rows,
    )
    return requests, table.column(f"{c.QUERY}_min").to_pylist()
