"""Training of neural rankers, with the project's training loop.

Labels and requests are those of LambdaMART (`RankingData`). Each epoch draws new negatives.

Shapes: B requests, C candidates, R rows (one per candidate).
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.data import fingerprint
from models.losses import listwise_softmax
from models.ranking.neural.inputs import Encoder, Events, Rows
from models.ranking.neural.ranker import NeuralRanker, NeuralRankerConfig, slices
from models.ranking.protocol import RankingData
from models.ranking.shown import position_bias
from models.training import TrainingOptions
from models.training import train as run_training


class Batch(NamedTuple):
    """Training batch of B requests with C sampled candidates each."""

    rows: Rows
    events: Events
    label: Tensor  # (B, C), 1 if relevant, else 0
    weight: Tensor  # (B,) weight of each request in the loss
    position: Tensor  # (B, C) position at which the candidate was shown, 0 if it wasn't


def fit_neural(
    config: NeuralRankerConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
) -> NeuralRanker:
    """Train a neural ranker with early stopping on the nDCG@10 of `validation`.

    If `options.epochs` is set, `validation` isn't read.

    Raises:
        RankingError: no request of `train` has both a relevant and an irrelevant candidate.
    """
    name = config.kind
    data = train.learnable()
    encoder = Encoder.fit(data, config=config, rng=options.rng(f"{name} quantiles"))
    ranker = NeuralRanker(config, encoder)
    device = options.device
    net = ranker.net.to(device)
    net.prepare(options.generator(name))
    learned = fingerprint(data.x, data.item_idx, data.label, data.group)
    encoded = _Encoded.of(ranker, data, device=device)
    # Nothing reads these features any more; they are as large as those of the whole run.
    data = replace(data, x=np.empty((0, data.x.shape[1]), dtype=np.float32))
    encoded = encoded._replace(data=data)
    label = torch.from_numpy(data.label).to(device)
    weight = torch.from_numpy(data.user_weights()).to(device)
    position = torch.zeros(len(label), dtype=torch.long)
    if data.position is not None:
        position = torch.from_numpy(data.position)
    position = position.to(device)
    learner = WithPositions(net, data).to(device)
    rng = options.rng(f"{name} batches")
    judged = _Encoded.of(ranker, validation, device=device) if options.epochs is None else None

    def batches(_: int) -> Iterator[Batch]:
        order = rng.permutation(len(data))
        for start in range(0, len(order), config.batch_size):
            requests = order[start : start + config.batch_size]
            drawn = draw_candidates(data, requests, count=config.num_candidates, rng=rng)
            real = torch.from_numpy(drawn >= 0).to(device)
            at = torch.from_numpy(np.maximum(drawn, 0)).to(device)
            of = torch.from_numpy(requests).to(device)
            rows, events = encoded.rows.at(at, real), encoded.events.take(of)
            yield Batch(rows, events, label[at] * real, weight[of], position[at] * real)

    def loss(batch: Batch) -> Tensor:
        scores, mask = learner(batch), batch.rows.item_idx > 0
        if config.loss == "listwise":
            each = listwise_softmax(scores, batch.label, mask=mask)
        else:
            each = F.binary_cross_entropy_with_logits(scores, batch.label, reduction="none")
            each = (each * mask).sum(1) / mask.sum(1)
        return (each * batch.weight).mean()

    ranker.training = run_training(
        learner,
        batches,
        name=name,
        loss=loss,
        config=config.optimiser,
        validate=lambda: math.nan if judged is None else judged.ndcg(ranker),
        options=options,
        about={"config": config.model_dump(mode="json"), "data": learned},
    )
    net.cpu()
    return ranker


class WithPositions(nn.Module):
    """A network plus a bias for each position, which only training reads.

    The bias takes up what clicks owe to the position, so that the network's scores don't (PAL, Guo
    et al. 2019).
    """

    def __init__(self, net: nn.Module, data: RankingData):
        """Initialise the bias by the log odds of a relevant item at each position of `data`."""
        super().__init__()
        self.net = net
        self.bias = None
        if data.position is not None:
            bias = position_bias(np.zeros(len(data.label)), data.label, data.position)
            self.bias = nn.Parameter(torch.from_numpy(bias - bias[min(1, len(bias) - 1)]).float())

    def forward(self, batch: Batch) -> Tensor:
        """Score the candidates as at the positions where they were shown: (B, C)."""
        scores = self.net(batch.rows, batch.events)
        return scores if self.bias is None else scores + self.bias[batch.position]


class _Encoded(NamedTuple):
    """Ranking data as inputs of a network, on the device of the training."""

    data: RankingData
    rows: Rows
    events: Events

    @classmethod
    def of(cls, ranker: NeuralRanker, data: RankingData, *, device: str) -> "_Encoded":
        rows = ranker.encoder.rows(data.x, data.item_idx).to(device)
        return cls(data, rows, ranker.events(data.requests.history).to(device))

    def ndcg(self, ranker: NeuralRanker) -> float:
        """Return the nDCG@10 of the current weights."""
        group = self.data.group
        ends = np.cumsum(group)
        scores = []
        for chosen in slices(group):
            part = slice(int(ends[chosen.start] - group[chosen.start]), int(ends[chosen.stop - 1]))
            rows = Rows(*(value[part] for value in self.rows))
            events = self.events.take(chosen)
            scores.append(ranker.score(rows, events, group[chosen]).cpu().numpy())
        return self.data.mean_ndcg(np.concatenate(scores))


def draw_candidates(
    data: RankingData, requests: np.ndarray, *, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Sample at most `count` candidates per request; return their rows, (B, C), -1 for padding.

    Relevant candidates are preferred, but at most `count` / 2 of them are used, so that each list
    has negatives.
    """
    rows = data.rows[requests]
    relevant = (rows >= 0) & (np.append(data.label, 0)[rows] > 0)
    key = rng.random(rows.shape)
    surplus = np.argsort(np.argsort(np.where(relevant, key, 2), axis=1), axis=1) >= count // 2
    key[relevant] -= 1
    key[(rows < 0) | (relevant & surplus)] = np.inf
    order = np.argsort(key, axis=1)[:, :count]
    drawn = np.take_along_axis(rows, order, axis=1)
    return np.where(np.isinf(np.take_along_axis(key, order, axis=1)), -1, drawn)
