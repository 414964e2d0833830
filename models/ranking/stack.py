"""Stack: LambdaMART that reads the scores of neural rankers as further features.

The trees must not see scores of networks that were trained on the same requests: such scores
contain the labels. So each network is also trained on all but one of `folds` groups of users, and
scores the group that was left out (Wolpert 1992, "Stacked Generalization"). Validation and service
use the network that was trained on all requests. The networks of the folds are trained for as many
epochs as that one.

Shapes: R candidates, F features, G requests, M members.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from models.ranking.neural.fit import fit_neural
from models.ranking.neural.ranker import NeuralRanker
from models.ranking.protocol import Ranker, RankingData, RankingError, scores_of
from models.ranking.requests import Requests
from models.ranking.schema import Columns
from models.ranking.trees.lambdamart import Lambdamart, LambdamartConfig, fit_lambdamart
from models.training import TrainingOptions
from shortlist.config import Config

ABOUT = "stack.json"
TREES = "lambdamart"
NeuralKind = Literal["wide_deep", "deepfm", "dcnv2", "din", "transformer"]


class StackConfig(Config):
    """LambdaMART that reads the scores of neural rankers, and these rankers."""

    kind: Literal["stack"] = "stack"
    members: tuple[NeuralKind, ...] = Field(default=("din",), min_length=1)
    """Neural rankers. If a run trains the same type by itself, its configuration is used."""
    folds: int = Field(default=3, ge=2)
    """Number of groups of users; each is scored by networks that were trained on the others."""
    trees: LambdamartConfig = LambdamartConfig()
    """Hyperparameters of the trees that read the scores."""

    @model_validator(mode="after")
    def _learns_from_candidates(self) -> Self:
        if self.trees.labels != "candidates":
            raise ValueError('trees.labels: a stack learns from candidates; want "candidates"')
        return self


class Stack:
    """Ranker whose trees read the features and the scores of its members."""

    name = "stack"

    def __init__(self, members: Mapping[str, NeuralRanker], trees: Lambdamart):
        self.members, self.trees = dict(members), trees

    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: x (R, F) float32, item_idx (R,) -> (R,) float32."""
        scores = [member.predict(x, item_idx, requests) for member in self.members.values()]
        return self.trees.predict(np.column_stack([x, *scores]), item_idx, requests)

    def save(self, folder: Path) -> None:
        """Write each member and the trees to a subfolder named by its type."""
        for name, ranker in (*self.members.items(), (TREES, self.trees)):
            (folder / name).mkdir()
            ranker.save(folder / name)
        (folder / ABOUT).write_text(json.dumps({"members": list(self.members)}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Stack":
        """Load a saved ranker; raises SchemaError if this code computes other features."""
        names = json.loads((folder / ABOUT).read_text())["members"]
        members = {name: NeuralRanker.load(folder / name) for name in names}
        return cls(members, Lambdamart.load(folder / TREES))


def fit_stack(
    config: StackConfig,
    members: Mapping[str, Ranker],
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
) -> Stack:
    """Train the networks of the folds, then the trees.

    Args:
        members: {ranker type: the neural ranker trained on all of `train`}.

    Raises:
        RankingError: a member was loaded instead of trained, or there are fewer users than folds.
    """
    data = train.learnable()
    fold = folds_of(data.users, config.folds, rng=options.rng("stack folds"))
    neural: dict[str, NeuralRanker] = {}
    held_out = np.empty((len(data.label), len(members)), dtype=np.float32)
    for column, (name, member) in enumerate(members.items()):
        if not isinstance(member, NeuralRanker) or member.training is None:
            raise RankingError(f"stack: member '{name}' is not a neural ranker of this training")
        neural[name] = member
        again = replace(options, epochs=member.training.best_epoch, checkpoints=None)
        for number in range(config.folds):
            inside = np.flatnonzero(fold == number)
            rest = data.take(np.flatnonzero(fold != number))
            part = data.take(inside)
            rows = data.rows[inside]
            scores = scores_of(fit_neural(member.config, rest, validation, again), part)
            held_out[rows[rows >= 0], column] = scores
    judged = np.column_stack([scores_of(member, validation) for member in neural.values()])
    trees = fit_lambdamart(
        config.trees,
        with_columns(data, held_out, names=list(neural)),
        with_columns(validation, judged, names=list(neural)),
        options,
    )
    return Stack(neural, trees)


def folds_of(users: list[str], folds: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each request, (G,) int64; all requests of a user have the same one.

    Raises:
        RankingError: there are fewer users than folds.
    """
    distinct, row = np.unique(np.asarray(users), return_inverse=True)
    if len(distinct) < folds:
        raise RankingError(f"stack: {len(distinct)} users for {folds} folds, want a user for each")
    return (rng.permutation(len(distinct)) % folds)[row]


def with_columns(data: RankingData, scores: np.ndarray, *, names: list[str]) -> RankingData:
    """Return the data with scores (R, M) as further features, named `neural:<name>`."""
    columns = Columns(
        (*data.schema.names, *(f"neural:{name}" for name in names)),
        tuple(data.schema.categorical.items()),
    )
    x = np.column_stack([data.x, scores.astype(np.float32)])
    return replace(data, x=x, schema=columns)
