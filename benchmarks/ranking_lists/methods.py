"""The methods of `shortlist bench ranking`: settings, training, and what they cost.

The settings were chosen on validation with one seed (docs/experiments/ranking.md).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.ranking_lists.data import Lists
from models.ranking.neural.dcnv2 import Dcnv2Config
from models.ranking.neural.deepfm import DeepfmConfig
from models.ranking.neural.din import DinConfig
from models.ranking.neural.transformer import TransformerConfig
from models.ranking.neural.wide_deep import WideDeepConfig
from models.ranking.protocol import Ranker
from models.ranking.registry import AnyRankerConfig, fit_ranker
from models.ranking.requests import Requests
from models.ranking.stack import StackConfig
from models.ranking.trees.lambdamart import LambdamartConfig
from models.training import OptimiserConfig, TrainingOptions, limited_threads

REQUEST = 500
"""Candidates of the request whose latency is measured."""

OPTIMISER = OptimiserConfig(
    learning_rate=1e-3, weight_decay=0.05, average_decay=0.995, num_epochs=6, patience=2
)
NO_ID = 10**6
"""More than all rows of an item: most hotels are shown once, so their ids would be memorised."""
NEURAL: dict[str, Any] = {
    "batch_size": 64,
    "dropout": 0.3,
    "min_item_rows": NO_ID,
    "logarithms": True,
    "optimiser": OPTIMISER,
}
TREES = LambdamartConfig(num_models=1, num_leaves=15, min_data_in_leaf=200)
SETTINGS: dict[str, AnyRankerConfig] = {
    "lambdamart": TREES,
    "wide_deep": WideDeepConfig(**NEURAL),
    "deepfm": DeepfmConfig(**NEURAL),
    "dcnv2": Dcnv2Config(**NEURAL),
    "din": DinConfig(**NEURAL),
    "transformer": TransformerConfig(**NEURAL),
    "stack": StackConfig(members=("dcnv2", "din"), folds=2, trees=TREES),
}


@dataclass(frozen=True)
class Fitted:
    """A trained ranker and the processor seconds of its training.

    The seconds of a stack include those of its members.
    """

    ranker: Ranker
    seconds: float


def fit(
    config: AnyRankerConfig,
    lists: Mapping[str, Lists],
    *,
    seed: int,
    threads: int,
    fitted: dict[str, Fitted],
) -> Fitted:
    """Train a ranker on the train window, with early stopping on validation.

    Args:
        fitted: rankers of this seed that are already trained; members of a stack are added.
    """
    options = TrainingOptions(seed=seed, num_threads=threads)
    train, validation = lists["train"].data, lists["validation"].data
    seconds = 0.0
    if isinstance(config, StackConfig):
        for name in config.members:
            if name not in fitted:
                fitted[name] = fit(SETTINGS[name], lists, seed=seed, threads=threads, fitted=fitted)
            seconds += fitted[name].seconds
    started = time.process_time()
    trained = {name: one.ranker for name, one in fitted.items()}
    ranker = fit_ranker(config, train, validation, options, fitted=trained)
    return Fitted(ranker, seconds + time.process_time() - started)


def milliseconds(ranker: Ranker, lists: Lists, *, repeats: int = 30) -> float:
    """Return the median processor time to score one request of REQUEST candidates, one thread."""
    data = lists.data
    history = data.requests.history
    longest = np.argsort((history.item_idx > 0).sum(1))[-1:]
    requests = Requests(np.array([REQUEST]), lambda: history.take(longest))
    rows = np.arange(REQUEST) % len(data.x)
    x, items = data.x[rows], data.item_idx[rows]
    spent = []
    with limited_threads(1):
        for _ in range(repeats + 3):
            started = time.process_time()
            ranker.predict(x, items, requests)
            spent.append(time.process_time() - started)
    return round(float(np.median(spent[3:])) * 1000, 2)
