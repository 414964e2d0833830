"""Value ranker: predicts the value of an impression to the user instead of a click.

The label of an impression is a weighted sum of the user's observed reactions: purchase, like,
rating, watch time, survey, hide. Boosted regression trees (LightGBM) predict it from the features
logged with the impression. Wu et al. 2017 and YouTube's multi-objective ranker of 2019 also combine
weighted reactions, but predict each reaction separately. If only clicks have a weight, this is a
click ranker. So a value ranker and a click ranker differ only in their label.

Shapes: R impressions, F features.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from models.ranking.protocol import RankingError
from models.ranking.trees.base import TreeRanker, reproducible
from models.ranking.trees.scores import MAX_LEAVES
from models.training import TrainingOptions
from shortlist.config import Config

MIN_ROWS = 200
"""Minimum number of impressions to train on."""


class ValueWeights(Config):
    """Weight of each signal (reaction) in the value of an impression."""

    click: float = 0.0
    """0 by default: a click only shows that an item looked attractive."""
    purchase: float = 0.5
    like: float = 1.0
    dislike: float = -1.0
    hide: float = -0.5
    rating: float = 0.5
    """Weight per star above three; stars below three are negative."""
    survey: float = 0.5
    """Weight per point above three; points below three are negative."""
    watch: float = 1.0
    """Value of a fully watched item. A watched share of 0 has the negative of it; shares between
    are interpolated linearly."""

    def value(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the value of R impressions, (R,), from signal name -> (R,).

        `rating` and `survey` are 1 to 5, or 0 without an answer. `watch` is the watched share, or
        NaN if there was no watch event. Other signals are 0 or 1.
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
"""Weights of a click ranker."""


class ValueConfig(Config):
    """Hyperparameters of the value ranker, named as in LightGBM."""

    num_leaves: int = Field(default=15, ge=2, le=MAX_LEAVES)
    learning_rate: float = Field(default=0.06, gt=0)
    num_rounds: int = Field(default=120, ge=1)
    min_data_in_leaf: int = Field(default=60, ge=1)
    feature_fraction: float = Field(default=0.5, gt=0, le=1)
    lambda_l2: float = Field(default=5.0, ge=0)


class ValueRanker(TreeRanker):
    """Boosted trees whose score is the expected value, which is comparable between requests."""

    name = "value"


def fit_value(
    config: ValueConfig, x: np.ndarray, value: np.ndarray, options: TrainingOptions
) -> ValueRanker:
    """Return a ranker fitted by squared error on (R, F) logged features and (R,) values.

    Raises:
        RankingError: too few impressions, or all have the same value.
    """
    if len(x) < MIN_ROWS or np.ptp(value) == 0:
        raise RankingError(
            f"value ranker: {len(x)} impressions with values from {value.min(initial=0):g} to"
            f" {value.max(initial=0):g}, want at least {MIN_ROWS} with different values"
        )
    import lightgbm as lgb

    params = {
        "objective": "regression",
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        "lambda_l2": config.lambda_l2,
    } | reproducible(options, name="value")
    return ValueRanker(lgb.train(params, lgb.Dataset(x, label=value), config.num_rounds))
