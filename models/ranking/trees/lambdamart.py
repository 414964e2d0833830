"""LambdaMART ranker: boosted trees (LightGBM) with pairwise gradients weighted by nDCG changes.

Source: Burges 2010, "From RankNet to LambdaRank to LambdaMART". Choices:

- Early stopping uses this project's nDCG@10: mean per user, then over users; relevant items that no
  source retrieved count as missed. LightGBM's built-in metric has neither property.
- Each user has the same total weight, as in the evaluation.
- Positions of shown items have a bias that is estimated with the trees and not used in prediction
  (Unbiased LambdaMART, Hu et al. 2019, as in LightGBM).
- Codes of user attributes, surface (the place that shows the list) and device are categorical
  features of LightGBM.
- On logs of a few thousand requests, results vary with the seed, and small leaves memorise popular
  items. Therefore several models are averaged, and the minimum leaf size grows with the data
  (docs/experiments/ranking.md).
"""

from typing import Literal

import numpy as np
from pydantic import Field

from models.ranking.protocol import RankingData
from models.ranking.schema import Schema
from models.ranking.shown import WeighedLabelsConfig, inverse_propensities
from models.ranking.trees.base import TreeRanker, reproducible, rows_in_batches
from models.ranking.trees.scores import MAX_LEAVES
from models.training import TrainingOptions


class LambdamartConfig(WeighedLabelsConfig):
    """Hyperparameters of LambdaMART, named as in LightGBM."""

    kind: Literal["lambdamart"] = "lambdamart"
    num_models: int = Field(default=3, ge=1)
    """Number of models with different seeds whose scores are averaged."""
    num_leaves: int = Field(default=7, ge=2, le=MAX_LEAVES)
    learning_rate: float = 0.07
    num_rounds: int = 300
    early_stopping_rounds: int = 40
    min_data_in_leaf: int | None = None
    """Minimum number of candidates per leaf. None: 1/150 of the training candidates
    (MIN_LEAF_SHARE), but at least 20 and at most 2000 (MAX_MIN_LEAF)."""
    lambdarank_truncation_level: int = 20
    feature_fraction: float = 0.25
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0


MIN_LEAF_SHARE = 1 / 150
MAX_MIN_LEAF = 2000


class Lambdamart(TreeRanker):
    """LambdaMART ranker: the mean of several models, each cut at its best round."""

    name = "lambdamart"

    def importance(self, schema: Schema) -> dict[str, float]:
        """Return feature name -> share of the total gain of all splits, largest first."""
        gain = np.sum([b.feature_importance("gain") for b in self.boosters], axis=0)
        share = gain / max(gain.sum(), 1e-12)
        order = np.argsort(-share, kind="stable")
        return {schema.names[i]: float(share[i]) for i in order}


def fit_lambdamart(
    config: LambdamartConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
) -> Lambdamart:
    """Train the models, with early stopping on the nDCG@10 of `validation`.

    Args:
        validation: if it has fewer features than `train`, only these are read.

    Raises:
        RankingError: no request of `train` has both a relevant and an irrelevant candidate.
    """
    import lightgbm as lgb

    requests = train.learnable_requests()
    rows = train.rows[requests]
    rows = rows[rows >= 0]
    schema = validation.schema
    columns = np.array([train.schema.names.index(name) for name in schema.names])
    group = train.group[requests]
    leaf = config.min_data_in_leaf
    if leaf is None:
        leaf = int(np.clip(len(rows) * MIN_LEAF_SHARE, 20, MAX_MIN_LEAF))
    params = {
        "objective": "lambdarank",
        "metric": "None",
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": leaf,
        "lambdarank_truncation_level": config.lambdarank_truncation_level,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.lambda_l2,
    }
    weight = np.repeat(train.user_weights(requests), group)
    inverse = inverse_propensities(train.propensity, clip=config.max_propensity_weight)
    dataset = lgb.Dataset(
        rows_in_batches(train.x, rows, columns),
        label=train.label[rows],
        group=group,
        weight=weight if inverse is None else weight * inverse[rows],
        position=None if train.position is None else train.position[rows],
        # By position: LightGBM refuses some characters that names of user attributes may contain.
        categorical_feature=[schema.names.index(name) for name in schema.categorical],
        params=params | reproducible(options, name="lambdamart 0"),
    ).construct()
    watched = dataset.create_valid(validation.x, label=validation.label, group=validation.group)
    boosters = []
    for n in range(config.num_models):
        booster = lgb.train(
            params | reproducible(options, name=f"lambdamart {n}"),
            dataset,
            num_boost_round=config.num_rounds,
            valid_sets=[watched],
            feval=lambda scores, _: ("ndcg@10", validation.mean_ndcg(scores), True),
            callbacks=[lgb.early_stopping(config.early_stopping_rounds, verbose=False)],
        )
        # Cut the model at the best round, through LightGBM's text as `save` and `load` do.
        best = booster.model_to_string(num_iteration=booster.best_iteration)
        boosters.append(lgb.Booster(model_str=best))
    return Lambdamart(*boosters)
