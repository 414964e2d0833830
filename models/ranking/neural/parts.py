"""Parts that several networks share: embeddings of fields, hidden layers, attention over events.

Shapes: B requests, C candidates, L history, F' numeric features, A codes, D dim, H hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers import Dropout, prepare
from models.ranking.neural.config import HistoryConfig
from models.ranking.neural.inputs import Events, Rows, Sizes


class Network(nn.Module):
    """A network that scores the candidates of requests: (B, C) and histories (B, L) -> (B, C)."""

    listwise = False
    """Whether the score of a candidate depends on the other candidates."""

    def prepare(self, generator: torch.Generator) -> None:
        """Initialise the weights.

        Embeddings start small: the numeric features dominate at first, and the vector of a rare
        item stays near zero.
        """
        prepare(self, generator)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                std = 0.01 if module.embedding_dim > 1 else 0.0
                nn.init.normal_(module.weight, std=std, generator=generator)


class Fields(nn.Module):
    """Embeddings of the item id and the codes of each candidate."""

    def __init__(self, tables: Sequence[int], dim: int):
        super().__init__()
        self.vectors = nn.ModuleList([nn.Embedding(size, dim) for size in tables])
        self.width = dim * len(tables)

    def forward(self, rows: Rows) -> Tensor:
        """Return (B, C) candidates -> (B, C, (1 + A) D)."""
        fields = (rows.item_row, *rows.codes.unbind(-1))
        return torch.cat([table(f) for table, f in zip(self.vectors, fields, strict=True)], dim=-1)


def hidden_layers(width: int, dims: Sequence[int], *, dropout: float) -> nn.Sequential:
    """Return linear layers with ReLU and dropout: (..., width) -> (..., dims[-1])."""
    layers: list[nn.Module] = []
    for hidden in dims:
        layers += [nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout)]
        width = hidden
    return nn.Sequential(*layers)


def last_width(width: int, dims: Sequence[int]) -> int:
    """Return the width of the result of `hidden_layers`."""
    return dims[-1] if dims else width


class HistoryAttention(nn.Module):
    """Attention of each candidate over the events of the history, with time gaps and event types.

    Source: the activation unit of DIN (Zhou et al. 2018): a hidden layer reads candidate, event and
    their product. Here it also reads the gap to the request, the event type, and whether the event
    is about the candidate itself. The last one works for items without an id embedding too. As in
    the paper, weights aren't normalised by a softmax, so that the result also shows how many events
    resemble the candidate.
    """

    def __init__(self, item: nn.Embedding, *, num_types: int, hidden: int):
        """
        Args:
            item: id embedding, shared with the rest of the network.
        """
        super().__init__()
        dim = item.embedding_dim
        self.item = item
        self.types = nn.Embedding(num_types, dim)
        self.of_candidate = nn.Linear(dim, hidden)
        self.of_event = nn.Linear(2 * dim + 1, hidden, bias=False)
        self.of_product = nn.Linear(dim, hidden, bias=False)
        self.of_same = nn.Linear(1, hidden, bias=False)
        self.weight = nn.Linear(hidden, 1)
        self.width = 3 * dim + 2

    def forward(self, rows: Rows, events: Events) -> Tensor:
        """Return (B, C) candidates, (B, L) events -> (B, C, 3 D + 2).

        The result has the weighted sums of the events' item vectors, their type vectors and gaps,
        the sum of the weights, and the product of candidate and summed item vectors.
        """
        candidate = self.item(rows.item_row)  # (B, C, D)
        event = self.item(events.item_row)  # (B, L, D)
        about = torch.cat([event, self.types(events.type_code), events.gap[..., None]], dim=-1)
        same = (rows.item_idx[..., None] == events.item_idx[:, None]).to(event.dtype)  # (B, C, L)
        # The first layer is linear in each part, so the product needs no (B, C, L, D) array.
        scaled = candidate[..., None, :] * self.of_product.weight  # (B, C, H, D)
        product = (scaled.flatten(1, 2) @ event.mT).unflatten(1, scaled.shape[1:3])  # (B, C, H, L)
        hidden = (
            product
            + self.of_candidate(candidate)[..., None]
            + self.of_event(about).mT[:, None]
            + same[..., None, :] * self.of_same.weight
        )
        weight = self.weight(hidden.relu().mT)[..., 0]  # (B, C, L)
        weight = weight * (events.item_idx > 0).to(weight.dtype)[:, None]
        pooled = weight @ about  # (B, C, 2 D + 1)
        item = pooled[..., : event.shape[-1]]
        total = weight.sum(-1, keepdim=True)
        return torch.cat([pooled, total, candidate * item], dim=-1)


class HistoryNetwork(Network):
    """A network that reads numeric features, embeddings and the attended history."""

    def __init__(self, config: HistoryConfig, sizes: Sizes):
        super().__init__()
        self.fields = Fields(sizes.tables, config.embedding_dim)
        item = self.fields.vectors[0]
        assert isinstance(item, nn.Embedding)
        self.attention = HistoryAttention(
            item, num_types=sizes.num_types, hidden=config.attention_dim
        )
        self.input_width = sizes.num_numeric + self.fields.width + self.attention.width

    def inputs(self, rows: Rows, events: Events) -> Tensor:
        """Return (B, C) candidates, (B, L) events -> (B, C, input_width)."""
        return torch.cat([rows.z, self.fields(rows), self.attention(rows, events)], dim=-1)
