"""The ranker of a network: prediction, files and training, equal for all networks.

To add a network: write a file with a Config and an nn.Module, and add a line to NETWORKS and to
the union `NeuralRankerConfig`.

Shapes: G requests, R rows (one per candidate), B requests of a batch, C candidates, F features.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.ranking.neural.config import HistoryConfig
from models.ranking.neural.dcnv2 import Dcnv2Config, Dcnv2Net
from models.ranking.neural.deepfm import DeepfmConfig, DeepfmNet
from models.ranking.neural.din import DinConfig, DinNet
from models.ranking.neural.inputs import Encoder, Events, Rows, Sizes
from models.ranking.neural.transformer import TransformerConfig, TransformerNet
from models.ranking.neural.wide_deep import WideDeepConfig, WideDeepNet
from models.ranking.protocol import pad_groups
from models.ranking.requests import History, Requests
from models.training import TrainingHistory

WEIGHTS = "model.safetensors"
ABOUT = "model.json"
PREDICT_ROWS = 25_000
"""Number of rows, padding included, that are scored at once, to limit memory."""
CHUNK_ROWS = 500
"""Number of rows of a chunk, if rows without requests are scored."""

NeuralRankerConfig = WideDeepConfig | DeepfmConfig | Dcnv2Config | DinConfig | TransformerConfig


class NetworkEntry(NamedTuple):
    """Config class and network class of a neural ranker type."""

    config: type[NeuralRankerConfig]
    network: Callable[[Any, Sizes], nn.Module]


NETWORKS: dict[str, NetworkEntry] = {
    "wide_deep": NetworkEntry(WideDeepConfig, WideDeepNet),
    "deepfm": NetworkEntry(DeepfmConfig, DeepfmNet),
    "dcnv2": NetworkEntry(Dcnv2Config, Dcnv2Net),
    "din": NetworkEntry(DinConfig, DinNet),
    "transformer": NetworkEntry(TransformerConfig, TransformerNet),
}
"""Neural ranker types, in the order of their cost."""


class NeuralRanker:
    """Ranker of a network and the encoder of its inputs."""

    def __init__(self, config: NeuralRankerConfig, encoder: Encoder):
        self.name: str = config.kind
        self.config, self.encoder = config, encoder
        self.net: Any = NETWORKS[config.kind].network(config, encoder.sizes)
        self.net.eval()
        self.training: TrainingHistory | None = None
        """Summary of the training; None for a loaded ranker."""

    @property
    def history_length(self) -> int:
        """Number of events that the network reads; 1, of which none is read, without a history."""
        return self.config.history_length if isinstance(self.config, HistoryConfig) else 1

    def events(self, history: History) -> Events:
        """Return the histories as the network's inputs."""
        return self.encoder.events(history, length=self.history_length)

    @torch.no_grad()
    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: x (R, F) float32, item_idx (R,) int64 -> (R,) float32.

        Args:
            requests: group sizes and histories. None: one request without a history.
        """
        if requests is None:
            requests = Requests.alone([len(x)] if self.net.listwise else _chunks(len(x)))
        out = np.empty(len(x), dtype=np.float32)
        ends = np.cumsum(requests.group)
        for chosen in slices(requests.group):
            group = requests.group[chosen]
            part = slice(ends[chosen.start] - group[0], ends[chosen.stop - 1])
            rows = self.encoder.rows(x[part], item_idx[part])
            events = self.events(requests.history.take(chosen))
            out[part] = self.score(rows, events, group).numpy()
        return out

    def score(self, rows: Rows, events: Events, group: np.ndarray) -> Tensor:
        """Score encoded candidates: rows (R, ...) of B requests of `group` sizes -> (R,)."""
        if len(rows.item_idx) == 0:
            return torch.zeros(0)
        padded = torch.from_numpy(pad_groups(group)).to(rows.z.device)
        real = padded >= 0
        return self.net(rows.at(padded.clamp(min=0), real), events)[real]

    def save(self, folder: Path) -> None:
        """Write weights and quantiles as safetensors, config and schema as JSON."""
        weights = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors: dict[str, Tensor] = weights | self.encoder.tensors()
        # Shared weights have several names; a file needs a copy for each.
        save_file(
            {n: t.detach().clone().contiguous() for n, t in tensors.items()}, folder / WEIGHTS
        )
        about = {"config": self.config.model_dump(mode="json"), **self.encoder.to_json()}
        (folder / ABOUT).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "NeuralRanker":
        """Load a saved ranker; raises SchemaError if this code computes other features."""
        about = json.loads((folder / ABOUT).read_text())
        tensors = load_file(folder / WEIGHTS)
        encoder = Encoder.load(about, tensors)
        config = TypeAdapter(NeuralRankerConfig).validate_python(about["config"])
        ranker = cls(config, encoder)
        ranker.net.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items()})
        return ranker


def _chunks(num_rows: int) -> list[int]:
    """Split rows into groups of CHUNK_ROWS."""
    full, rest = divmod(num_rows, CHUNK_ROWS)
    return [CHUNK_ROWS] * full + [rest] * (rest > 0)


def slices(group: np.ndarray) -> list[slice]:
    """Return slices of requests with at most PREDICT_ROWS candidates, or one larger request."""
    step = max(1, PREDICT_ROWS // max(int(group.max(initial=1)), 1))
    return [slice(start, min(start + step, len(group))) for start in range(0, len(group), step)]
