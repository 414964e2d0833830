"""Value ranker: one model (head) per outcome, and the weighted sum of their predictions as score.

Each head is a model of boosted trees (LightGBM) over the features of the other rankers. Outcomes
that happen or not (click, purchase, return) have the logistic loss, amounts (watch minutes, grades)
the squared error. Predictions of the former are calibrated by Platt's scaling on validation (Platt
1999), so that weights mean what they say: a purchase of weight 1 counts ten times a click of weight
0.1. `with_weights` changes the weights of trained heads. Separate heads with a formula follow Zhao
et al. 2019; heads share features but no layers.

Heads that are trained on shown lists (`shown.py`) predict probabilities at the first position.
Amounts aren't corrected for the position. Outcomes are more frequent in shown lists than among the
candidates of a request. So validation scales amounts too.

Shapes: R candidates, F features, S outcomes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from models.ranking.head_metrics import (
    auc,
    calibration_error,
    correlation,
    grouped_auc,
    has_enough,
    log_loss,
    platt,
    sigmoid,
)
from models.ranking.protocol import RankingData, RankingError
from models.ranking.requests import Requests
from models.ranking.shown import WeighedLabelsConfig, inverse_propensities, position_bias
from models.ranking.trees.base import reproducible, rows_in_batches
from models.ranking.trees.scores import MAX_LEAVES, TreeScores
from models.training import TrainingOptions
from shortlist.behaviour.value import NAMES, OUTCOMES, OutcomeName

ABOUT = "value.json"
MIN_POSITIVES = 20
"""An outcome that happened to fewer training candidates gets no head; it counts as 0."""


class ValueHeadsConfig(WeighedLabelsConfig):
    """Hyperparameters of the heads, named as in LightGBM."""

    kind: Literal["value"] = "value"
    weights: dict[OutcomeName, float] = Field(default_factory=dict)
    """Weight of each outcome. In a run's TOML, leave it out and set `[value]`."""
    num_leaves: int = Field(default=7, ge=2, le=MAX_LEAVES)
    learning_rate: float = Field(default=0.05, gt=0)
    num_rounds: int = Field(default=300, ge=1)
    early_stopping_rounds: int = Field(default=30, ge=1)
    min_data_in_leaf: int = Field(default=100, ge=1)
    feature_fraction: float = Field(default=0.25, gt=0, le=1)
    bagging_fraction: float = Field(default=0.8, gt=0, le=1)
    lambda_l2: float = Field(default=5.0, ge=0)


@dataclass(frozen=True)
class Head:
    """The model of one outcome."""

    name: str
    text: str  # LightGBM's text format
    happens: bool  # True: a probability; False: an amount
    slope: float = 1.0
    offset: float = 0.0
    """A probability is sigmoid(slope * margin + offset), an amount slope * margin + offset."""

    @cached_property
    def _scores(self) -> TreeScores:
        return TreeScores.parse([self.text])

    def margin(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._scores(x), dtype=np.float64)

    def expected(self, x: np.ndarray) -> np.ndarray:
        """Return the expected outcome of candidates: (R, F) -> (R,) float64."""
        scaled = self.slope * self.margin(x) + self.offset
        return sigmoid(scaled) if self.happens else scaled


class ValueHeads:
    """Ranker whose score is the expected value of a candidate, in units of the weights."""

    name = "value"

    def __init__(
        self,
        heads: Sequence[Head],
        weights: Mapping[str, float],
        *,
        figures: dict[str, Any] | None = None,
    ):
        """
        Args:
            figures: quality of each head on validation.
        """
        self.heads = list(heads)
        self.weights = dict(weights)
        self.figures = figures or {}

    def with_weights(self, weights: Mapping[str, float]) -> "ValueHeads":
        """Return a ranker with the same heads and other weights; missing ones are 0."""
        return ValueHeads(self.heads, weights, figures=self.figures)

    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: x (R, F) float32 -> (R,) float32. Other arguments are not used."""
        total = np.zeros(len(x))
        for head in self.heads:
            weight = self.weights.get(head.name, 0.0)
            if weight:
                total += weight * head.expected(x)
        return total.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write each head in LightGBM's text format, and weights and scaling as JSON."""
        heads = [
            {"name": h.name, "happens": h.happens, "slope": h.slope, "offset": h.offset}
            for h in self.heads
        ]
        for head in self.heads:
            (folder / f"head-{head.name}.txt").write_text(head.text)
        about = {"weights": self.weights, "heads": heads, "figures": self.figures}
        (folder / ABOUT).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "ValueHeads":
        about = json.loads((folder / ABOUT).read_text())
        heads = [
            Head(text=(folder / f"head-{head['name']}.txt").read_text(), **head)
            for head in about["heads"]
        ]
        return cls(heads, about["weights"], figures=about["figures"])


@dataclass
class _Sets:
    """LightGBM's data sets of training and validation, whose labels are replaced for each head."""

    train: Any
    valid: Any
    params: dict[str, Any]
    scaled: bool
    """Whether outcomes are as frequent in training as on validation. If not, early stopping reads
    the correlation of prediction and outcome instead of the loss."""


def fit_value_heads(
    config: ValueHeadsConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
) -> ValueHeads:
    """Train a head for each outcome with a weight, with early stopping on its validation loss.

    Raises:
        RankingError: the data has no outcomes, or none of them happened MIN_POSITIVES times.
    """
    names = list(config.weights)
    if train.outcomes is None or validation.outcomes is None or not names:
        raise RankingError("the ranker value needs [value] with outcomes and weights")
    sets = _data_sets(config, train, validation, options)
    heads, figures = [], {}
    for name in names:
        column = NAMES.index(name)
        label, judged = train.outcomes[:, column], validation.outcomes[:, column]
        happened = int(np.count_nonzero(label))
        if happened < MIN_POSITIVES:
            figures[name] = {"training_events": happened, "head": False}
            continue
        is_probability = OUTCOMES[name].amount is None
        if train.position is not None and is_probability and not has_enough(judged):
            # Shown lists have other frequencies than candidates, so the scale would be wrong.
            figures[name] = {"training_events": happened, "head": False}
            print(f"value: no head of {name}: it happened to too few candidates of validation")
            continue
        head = _fit_head(config, name, sets, label, judged, options)
        if train.position is not None and head.happens:
            bias = position_bias(head.margin(train.x), label, train.position)
            head = _fit_head(config, name, sets, label, judged, options, bias=bias[train.position])
        head, quality = calibrated(head, validation, judged, rescale=train.position is not None)
        heads.append(head)
        figures[name] = {"training_events": happened, "head": True} | quality
    if not heads:
        raise RankingError(
            f"the ranker value: none of {', '.join(names)} happened to {MIN_POSITIVES} candidates"
            " of the ranker's training window; want other outcomes in [value] or a longer log"
        )
    return ValueHeads(heads, config.weights, figures=figures)


def _data_sets(
    config: ValueHeadsConfig, train: RankingData, validation: RankingData, options: TrainingOptions
) -> _Sets:
    import lightgbm as lgb

    params = {
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.lambda_l2,
    } | reproducible(options, name="value")
    data = lgb.Dataset(
        rows_in_batches(train.x, np.arange(len(train.x)), np.arange(train.x.shape[1])),
        label=train.label,
        weight=inverse_propensities(train.propensity, clip=config.max_propensity_weight),
        categorical_feature=[train.schema.names.index(name) for name in train.schema.categorical],
        params=params,
    ).construct()
    valid = data.create_valid(validation.x, label=validation.label)
    return _Sets(data, valid, params, scaled=train.position is None)


def _fit_head(
    config: ValueHeadsConfig,
    name: str,
    sets: _Sets,
    label: np.ndarray,
    judged: np.ndarray,
    options: TrainingOptions,
    *,
    bias: np.ndarray | None = None,
) -> Head:
    """
    Args:
        bias: (R,) log odds that are added to those of the head in training; None: 0.
    """
    import lightgbm as lgb

    happens = OUTCOMES[name].amount is None
    # `set_init_score(None)` would leave the initial scores of the head before this one.
    sets.train.set_label(label).set_field("init_score", None)
    if bias is not None:
        sets.train.set_init_score(bias)
    sets.valid.set_label(judged)
    params = sets.params | {"objective": "binary" if happens else "regression"}
    if not sets.scaled:
        params |= {"metric": "None"}
    booster = lgb.train(
        params | reproducible(options, name=f"value {name}"),
        sets.train,
        num_boost_round=config.num_rounds,
        valid_sets=[sets.valid],
        feval=None
        if sets.scaled
        else lambda margin, _: ("correlation", correlation(margin, judged), True),
        callbacks=[lgb.early_stopping(config.early_stopping_rounds, verbose=False)],
    )
    return Head(name, booster.model_to_string(num_iteration=booster.best_iteration), happens)


def calibrated(
    head: Head, data: RankingData, label: np.ndarray, *, rescale: bool = False
) -> tuple[Head, dict[str, float]]:
    """Return the head with Platt's scaling fitted on `data`, and its figures.

    The expected calibration error is measured by cross-fitting: the scaling of one half of the
    users is evaluated on the other half.

    Args:
        label: (R,) outcomes of the candidates.
        rescale: whether to scale amounts as well, by linear regression.
    """
    margin = head.margin(data.x)
    if not head.happens:
        if rescale:
            slope = np.polyfit(margin, label, 1)[0] if np.ptp(margin) > 0 else 0.0
            slope = max(float(slope), 0.0)
            offset = float(label.mean() - slope * margin.mean())
            head = replace(head, slope=slope, offset=offset)
        error = float(np.sqrt(np.mean((head.expected(data.x) - label) ** 2)))
        return head, {"rmse": round(error, 4), "mean": round(float(label.mean()), 4)}
    users = np.unique(np.asarray(data.users), return_inverse=True)[1]
    half = np.repeat(users % 2, data.group).astype(bool)
    probability = np.empty(len(label))
    for fold in (half, ~half):
        slope, offset = platt(margin[~fold], label[~fold])
        probability[fold] = sigmoid(slope * margin[fold] + offset)
    slope, offset = platt(margin, label)
    return replace(head, slope=slope, offset=offset), {
        "auc": round(auc(margin, label), 4),
        "gauc": round(grouped_auc(margin, label, data.group), 4),
        "logloss": round(log_loss(probability, label), 5),
        "ece": round(calibration_error(probability, label), 5),
        "ece_uncalibrated": round(calibration_error(sigmoid(margin), label), 5),
    }
