"""DeepFM ranker: sum of a linear, a factorisation-machine and a deep part with shared embeddings.

Source: Guo et al. 2017. Choices:

- A numeric feature is replaced by its quantile in the training data, mapped to [-1, 1]. All
  features then have the same scale and no outliers. The embedding of a numeric field is this value
  times the field's vector, as in the paper. Constant columns are left out.
- The categorical fields are the item id, and the codes of user attributes (profile), surface (the
  place that shows the list, such as the home page) and device.
- The loss is a listwise softmax over the candidates of a request (Cao et al. 2007). Each epoch
  draws new negatives.

Shapes: B requests, C candidates, R rows (one per candidate), F features (F' of them numeric and A
of them codes), D dim.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.data import fingerprint
from models.layers import Dropout, prepare
from models.losses import listwise_softmax
from models.ranking.protocol import RankingData
from models.ranking.quantiles import Quantiles
from models.ranking.schema import RankingSchema
from models.training import OptimiserConfig, TrainingOptions
from models.training import train as run_training
from shortlist.config import Config

WEIGHTS = "model.safetensors"
ABOUT = "model.json"
PREDICT_ROWS = 50_000
"""Number of rows that are scored at once, to limit memory."""


class DeepfmConfig(Config):
    """Hyperparameters of DeepFM."""

    kind: Literal["deepfm"] = "deepfm"
    embedding_dim: int = 16
    hidden_dims: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    num_candidates: int = 100
    """Number of candidates per request in a training batch; at most half of them are relevant."""
    batch_size: int = 32
    optimiser: OptimiserConfig = OptimiserConfig(
        learning_rate=1e-3, weight_decay=1e-2, num_epochs=8, patience=2
    )


class DeepfmNet(nn.Module):
    """DeepFM network over normalised numeric features, codes and the item id."""

    def __init__(
        self,
        config: DeepfmConfig,
        *,
        num_numeric: int,
        num_items: int,
        code_cardinalities: Sequence[int],
    ):
        super().__init__()
        dim = config.embedding_dim
        sizes = [num_items + 1, *code_cardinalities]
        self.numeric_vector = nn.Parameter(torch.empty(num_numeric, dim))
        self.linear = nn.Linear(num_numeric, 1)
        self.vectors = nn.ModuleList([nn.Embedding(size, dim) for size in sizes])
        self.biases = nn.ModuleList([nn.Embedding(size, 1) for size in sizes])
        width = num_numeric + dim * len(sizes)
        layers: list[nn.Module] = []
        for hidden in config.hidden_dims:
            layers += [nn.Linear(width, hidden), nn.ReLU(), Dropout(config.dropout)]
            width = hidden
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, z: Tensor, codes: Tensor, item_idx: Tensor) -> Tensor:
        """Score candidates: numeric z (..., F'), codes (..., A), item_idx (...) -> (...)."""
        fields = [item_idx, *codes.unbind(-1)]
        vectors = [table(field) for table, field in zip(self.vectors, fields, strict=True)]
        biases = [table(field) for table, field in zip(self.biases, fields, strict=True)]
        first = self.linear(z) + sum(biases)
        total = z @ self.numeric_vector + sum(vectors)
        squares = z.square() @ self.numeric_vector.square() + sum(v.square() for v in vectors)
        second = 0.5 * (total.square() - squares).sum(-1, keepdim=True)
        deep = self.deep(torch.cat([z, *vectors], dim=-1))
        return (first + second + deep).squeeze(-1)

    def prepare(self, generator: torch.Generator) -> None:
        """Initialise the weights.

        The linear part and the factorisation machine start near zero, so that the deep part
        dominates at first.
        """
        prepare(self, generator)
        nn.init.normal_(self.numeric_vector, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.weight)
        for table in (*self.vectors, *self.biases):
            assert isinstance(table, nn.Embedding)
            small = 0.01 if table.embedding_dim > 1 else 0.0
            nn.init.normal_(table.weight, std=small, generator=generator)


class Deepfm:
    """Ranker of a DeepFM network, the quantile transform of its inputs and the feature schema."""

    name = "deepfm"

    def __init__(
        self,
        config: DeepfmConfig,
        schema: RankingSchema,
        quantiles: Quantiles,
        *,
        numeric: list[int],
        num_items: int,
    ):
        self.config, self.schema, self.quantiles = config, schema, quantiles
        self.num_items = num_items
        self.numeric = numeric
        self.codes = [schema.names.index(name) for name in schema.categorical]
        self.net = DeepfmNet(
            config,
            num_numeric=len(self.numeric),
            num_items=num_items,
            code_cardinalities=list(schema.categorical.values()),
        )
        self.net.eval()

    def inputs(self, x: np.ndarray, item_idx: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Return the network's inputs (z, codes, item_idx) for features (R, F) and item_idx (R,).

        An item_idx above the largest one of the training data becomes 0.
        """
        z = self.quantiles.transform(x[:, self.numeric])
        known = np.where(item_idx <= self.num_items, item_idx, 0)
        codes = x[:, self.codes].astype(np.int64)
        return torch.from_numpy(z), torch.from_numpy(codes), torch.from_numpy(known)

    @torch.no_grad()
    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Score candidates: x (R, F) float32, item_idx (R,) int64 -> (R,) float32."""
        out = np.empty(len(x), dtype=np.float32)
        for start in range(0, len(x), PREDICT_ROWS):
            rows = slice(start, start + PREDICT_ROWS)
            out[rows] = self.net(*self.inputs(x[rows], item_idx[rows])).numpy()
        return out

    def save(self, folder: Path) -> None:
        """Write weights and quantiles as safetensors, config and schema as JSON."""
        tensors = {
            f"net.{name}": value.contiguous() for name, value in self.net.state_dict().items()
        }
        tensors["quantiles.knots"] = torch.from_numpy(self.quantiles.knots)
        tensors["quantiles.places"] = torch.from_numpy(self.quantiles.places)
        save_file(tensors, folder / WEIGHTS)
        about = {
            "config": self.config.model_dump(mode="json"),
            "schema": self.schema.to_json(),
            "num_items": self.num_items,
            "numeric": [self.schema.names[column] for column in self.numeric],
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Deepfm":
        """Load a saved ranker; raises SchemaError if this code computes other features."""
        about = json.loads((folder / ABOUT).read_text())
        tensors = load_file(folder / WEIGHTS)
        quantiles = Quantiles(
            tensors.pop("quantiles.knots").numpy(), tensors.pop("quantiles.places").numpy()
        )
        schema = RankingSchema.from_json(about["schema"])
        ranker = cls(
            DeepfmConfig.model_validate(about["config"]),
            schema,
            quantiles,
            numeric=[schema.names.index(name) for name in about["numeric"]],
            num_items=about["num_items"],
        )
        ranker.net.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items()})
        return ranker


def numeric_columns(schema: RankingSchema, x: np.ndarray) -> list[int]:
    """Return the columns of (R, F) features that contain no codes and aren't constant.

    Example of a constant column: a click rate if the lake (the event store) has only ratings.
    """
    differs = (x != x[:1]).any(axis=0)
    return [
        i for i, name in enumerate(schema.names) if differs[i] and name not in schema.categorical
    ]


class Batch(NamedTuple):
    """Training batch of B requests with C sampled candidates each."""

    z: Tensor  # (B, C, F') numeric features
    codes: Tensor  # (B, C, A) codes of user attributes, surface and device
    item_idx: Tensor  # (B, C); 0 for padding
    label: Tensor  # (B, C), 1 if relevant, else 0
    weight: Tensor  # (B,) weight of each request in the loss


def fit_deepfm(
    config: DeepfmConfig,
    train: RankingData,
    validation: RankingData,
    options: TrainingOptions,
) -> Deepfm:
    """Train a DeepFM ranker with early stopping on the nDCG@10 of `validation`.

    Raises:
        RankingError: no request of `train` has both a relevant and an irrelevant candidate.
    """
    data = train.learnable()
    numeric = numeric_columns(data.schema, data.x)
    ranker = Deepfm(
        config,
        data.schema,
        Quantiles.fit(data.x[:, numeric], rng=options.rng("deepfm quantiles")),
        numeric=numeric,
        num_items=int(data.item_idx.max()),
    )
    device = options.device
    net = ranker.net.to(device)
    net.prepare(options.generator("deepfm"))
    z, codes, item_idx = (one.to(device) for one in ranker.inputs(data.x, data.item_idx))
    judged = [one.to(device) for one in ranker.inputs(validation.x, validation.item_idx)]
    label = torch.from_numpy(data.label).to(device)
    weight = torch.from_numpy(data.user_weights()).to(device)
    rng = options.rng("deepfm batches")

    def batches(_: int) -> Iterator[Batch]:
        order = rng.permutation(len(data))
        for start in range(0, len(order), config.batch_size):
            requests = order[start : start + config.batch_size]
            rows = draw_candidates(data, requests, count=config.num_candidates, rng=rng)
            real = torch.from_numpy(rows >= 0).to(device)
            at = torch.from_numpy(np.maximum(rows, 0)).to(device)
            of = torch.from_numpy(requests).to(device)
            yield Batch(z[at], codes[at], item_idx[at] * real, label[at] * real, weight[of])

    def loss(batch: Batch) -> Tensor:
        scores = net(batch.z, batch.codes, batch.item_idx)
        each = listwise_softmax(scores, batch.label, mask=batch.item_idx > 0)
        return (each * batch.weight).mean()

    run_training(
        net,
        batches,
        name="deepfm",
        loss=loss,
        config=config.optimiser,
        validate=lambda: validation.mean_ndcg(net(*judged).cpu().numpy()),
        options=options,
        about={
            "config": config.model_dump(mode="json"),
            "data": fingerprint(data.x, data.item_idx, data.label, data.group),
        },
    )
    net.cpu()
    return ranker


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
