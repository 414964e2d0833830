"""A ranker trained on what a shown item was worth, not on whether it was clicked.

The label of an impression is a weighted sum of what the user then did, all of it observed: bought,
liked, rated, watched, answered, hid. Boosted regression trees predict it from the features that
were logged with the impression (LightGBM; Wu et al. 2017 and YouTube's 2019 multi-objective ranker
weigh outcomes in the same way, with several heads). With weight on clicks alone the same code is a
click ranker, so that the two differ in their label and in nothing else.

Shapes: R impressions, F features.
"""

from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
from pydantic import Field

from models.ranking.protocol import RankingError
from models.ranking.trees import TreeRanker, reproducible
from models.training import TrainingOptions
from shortlist.config import Config

MIN_ROWS = 200


class ValueWeights(Config):
    """What each signal of an impression adds to its worth."""

    click: float = 0.0
    """A click alone says that something looked good."""
    purchase: float = 0.5
    like: float = 1.0
    dislike: float = -1.0
    hide: float = -0.5
    rating: float = 0.5
    """For each star above three, taken away for each below."""
    survey: float = 0.5
    """For each point above three, taken away for each below."""
    watch: float = 1.0
    """For a film watched to its end, taken away for one left at once; nothing at half."""

    def value(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """{signal: values} -> their weighted sum. `rating` and `survey` are 1 to 5 and 0 where
        nothing was said; `watch` is the watched share and NaN without a film; others are 0 or 1.
        """
        weights = self.model_dump()
        total = np.zeros(np.shape(next(iter(signals.values()))))
        for name, given in signals.items():
            if name in ("rating", "survey"):
                worth = np.where(given > 0, given - 3, 0)
            elif name == "watch":
                worth = np.nan_to_num(2 * given - 1)
            else:
                worth = given
            total += weights[name] * worth
        return total


CLICKS_ALONE = ValueWeights(
    click=1.0, purchase=0, like=0, dislike=0, hide=0, rating=0, survey=0, watch=0
)


class ValueConfig(Config):
    """Hyperparameters, the names LightGBM's."""

    num_leaves: int = Field(default=15, ge=2)
    learning_rate: float = Field(default=0.06, gt=0)
    num_rounds: int = Field(default=120, ge=1)
    min_data_in_leaf: int = Field(default=60, ge=1)
    feature_fraction: float = Field(default=0.5, gt=0, le=1)
    lambda_l2: float = Field(default=5.0, ge=0)


class ValueRanker(TreeRanker):
    """Boosted trees whose scores are expected worth, comparable between requests."""

    name = "value"


def fit_value(
    config: ValueConfig, x: np.ndarray, value: np.ndarray, options: TrainingOptions
) -> ValueRanker:
    """Boost squared error on (R, F) logged features and (R,) worths.

    Raises:
        RankingError: too few impressions, or all were worth the same.
    """
    if len(x) < MIN_ROWS or np.ptp(value) == 0:
        raise RankingError(
            f"value ranker: {len(x)} impressions with worths between {value.min(initial=0):g} and"
            f" {value.max(initial=0):g} teach nothing; want {MIN_ROWS} or more that differ"
        )
    params = {
        "objective": "regression",
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        "lambda_l2": config.lambda_l2,
    } | reproducible(options, name="value")
    return ValueRanker(lgb.train(params, lgb.Dataset(x, label=value), config.num_rounds))
