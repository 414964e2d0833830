"""Inputs of neural rankers: features, codes, ids and histories as tensors.

- A numeric feature gives its quantile in the training data, mapped to [-1, 1], and, if the config
  has `logarithms`, its standardised logarithm. Quantiles have no outliers. But rare values, such as
  a few events on a candidate, are nearly equal as quantiles; the logarithm keeps them apart.
  Constant columns are left out.
- Codes (user attributes, surface, device) and the item id select embeddings. An item with few
  training candidates uses row 0, the embedding of unknown items.
- The gap from an event to the request is log(1 + seconds), scaled so that a year is about 1.

Shapes: B requests, C candidates, R rows (one per candidate), L history, F features (A of them
codes), F' numeric inputs, N items.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.ranking.neural.config import NeuralConfig
from models.ranking.neural.quantiles import Logarithms, Quantiles
from models.ranking.protocol import RankingData
from models.ranking.requests import History
from models.ranking.schema import Schema, schema_from_json

LOG_YEAR = math.log1p(365.25 * 86400)


class Rows(NamedTuple):
    """Candidates, (R, ...) or (B, C, ...)."""

    z: Tensor  # (..., F') normalised numeric features
    codes: Tensor  # (..., A) int64
    item_row: Tensor  # (...) int64 row of the id embedding
    item_idx: Tensor  # (...) int64, 0 for padding

    def at(self, rows: Tensor, real: Tensor) -> "Rows":
        """Return the candidates `rows` (B, C); the ids of those that aren't `real` are 0."""
        chosen = (value[rows] for value in self)
        z, codes, item_row, item_idx = chosen
        return Rows(z, codes, item_row * real, item_idx * real)

    def to(self, device: str) -> "Rows":
        return Rows(*(value.to(device) for value in self))


class Events(NamedTuple):
    """Histories of B requests, padded to L events."""

    item_row: Tensor  # (B, L) int64 row of the id embedding
    item_idx: Tensor  # (B, L) int64, 0 for padding
    gap: Tensor  # (B, L) float32: log(1 + seconds before the request) / LOG_YEAR
    type_code: Tensor  # (B, L) int64

    def take(self, requests: Tensor | slice) -> "Events":
        """Return the histories of the given requests, in the given order."""
        return Events(*(value[requests] for value in self))

    def to(self, device: str) -> "Events":
        return Events(*(value.to(device) for value in self))


class Sizes(NamedTuple):
    """Sizes of the tables of a network."""

    num_numeric: int
    tables: tuple[int, ...]
    """Rows of the embedding of the item id and of each code."""
    num_types: int
    """Number of codes of event types, including 0 for unknown."""


@dataclass(frozen=True)
class Encoder:
    """Turns features, ids and histories into tensors, as fitted on the training data."""

    schema: Schema
    numeric: list[int]
    quantiles: Quantiles
    logarithms: Logarithms | None
    """None: the network reads quantiles only."""
    item_rows: np.ndarray  # (N + 1,) int64: row of the id embedding of each item
    num_types: int

    @classmethod
    def fit(cls, data: RankingData, *, config: NeuralConfig, rng: np.random.Generator) -> "Encoder":
        """Fit on the training data."""
        numeric = numeric_columns(data.schema, data.x)
        counts = np.bincount(data.item_idx)
        counts[0] = 0
        known = counts >= config.min_item_rows
        types = data.requests.history.type_code
        return cls(
            schema=data.schema,
            numeric=numeric,
            quantiles=Quantiles.fit(data.x[:, numeric], rng=rng),
            logarithms=Logarithms.fit(data.x[:, numeric]) if config.logarithms else None,
            item_rows=np.where(known, np.cumsum(known), 0),
            num_types=int(types.max(initial=0)) + 1,
        )

    @property
    def sizes(self) -> Sizes:
        codes = self.schema.categorical.values()
        tables = (int(self.item_rows.max(initial=0)) + 1, *codes)
        inputs = len(self.numeric) * (1 if self.logarithms is None else 2)
        return Sizes(inputs, tables, self.num_types)

    def rows(self, x: np.ndarray, item_idx: np.ndarray) -> Rows:
        """Encode candidates: features (R, F), item_idx (R,)."""
        columns = [self.schema.names.index(name) for name in self.schema.categorical]
        numeric = x[:, self.numeric]
        z = self.quantiles.transform(numeric)
        if self.logarithms is not None:
            z = np.concatenate([z, self.logarithms.transform(numeric)], axis=1)
        return Rows(
            torch.from_numpy(z),
            torch.from_numpy(x[:, columns].astype(np.int64)),
            torch.from_numpy(self._rows_of(item_idx)),
            torch.from_numpy(item_idx),
        )

    def events(self, history: History, *, length: int) -> Events:
        """Encode the newest `length` events of B histories."""
        kept = history.newest(length)
        known = np.where(kept.type_code < self.num_types, kept.type_code, 0)
        return Events(
            torch.from_numpy(self._rows_of(kept.item_idx)),
            torch.from_numpy(kept.item_idx),
            torch.from_numpy(np.log1p(kept.seconds) / np.float32(LOG_YEAR)),
            torch.from_numpy(known),
        )

    def _rows_of(self, item_idx: np.ndarray) -> np.ndarray:
        """Return the row of the id embedding of each item; 0 for items newer than the training."""
        inside = item_idx < len(self.item_rows)
        return np.where(inside, self.item_rows[np.where(inside, item_idx, 0)], 0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted arrays by name, for a file."""
        arrays = {
            "quantiles.knots": self.quantiles.knots,
            "quantiles.places": self.quantiles.places,
            "item_rows": self.item_rows,
        }
        if self.logarithms is not None:
            arrays |= {
                "logarithms.mean": self.logarithms.mean,
                "logarithms.deviation": self.logarithms.deviation,
            }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_json(),
            "numeric": [self.schema.names[column] for column in self.numeric],
            "num_types": self.num_types,
        }

    @classmethod
    def load(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> "Encoder":
        """Return the encoder of `to_json` and `tensors`, whose entries are removed.

        Files from before 2026-11-30 have an id embedding for each item, and no event types.
        """
        schema = schema_from_json(about["schema"])
        knots, places = tensors.pop("quantiles.knots"), tensors.pop("quantiles.places")
        logarithms = None
        if "logarithms.mean" in tensors:
            mean, deviation = tensors.pop("logarithms.mean"), tensors.pop("logarithms.deviation")
            logarithms = Logarithms(mean.numpy(), deviation.numpy())
        rows = tensors.pop("item_rows", None)
        if rows is None:
            rows = torch.arange(about["num_items"] + 1)
        return cls(
            schema=schema,
            numeric=[schema.names.index(name) for name in about["numeric"]],
            quantiles=Quantiles(knots.numpy(), places.numpy()),
            logarithms=logarithms,
            item_rows=rows.numpy(),
            num_types=about.get("num_types", 1),
        )


def numeric_columns(schema: Schema, x: np.ndarray) -> list[int]:
    """Return the columns of (R, F) features that contain no codes and aren't constant.

    Example of a constant column: a click rate if the lake (the event store) has only ratings.
    """
    differs = (x != x[:1]).any(axis=0)
    return [
        i for i, name in enumerate(schema.names) if differs[i] and name not in schema.categorical
    ]
