"""Personal frequency, a candidate source: ranks the items of a user's history by decayed counts.

An event has weight 2^(-age / half-life): a long half-life ranks by frequency, a short one by
recency. This is a strong baseline for repeat consumption (Li et al., "A Next Basket Recommendation
Reality Check", TOIS 2023: GP-TopFreq). Globally popular items follow the items of the history.

Shapes: B queries, L history, C candidates, N items.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from models.baselines.dense import at_candidates
from models.data import TrainingData, Validation
from models.queries import Candidates, Queries, mask_left_out, top_k
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions


class PersonalConfig(Config):
    """Grid of half-lives in days, of which validation chooses one."""

    kind: Literal["personal"] = "personal"
    half_lives: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (
        *(1.0, 3.0, 7.0, 14.0, 30.0, 60.0),
        *(180.0, 3650.0),
    )


class Personal:
    """Candidate source that ranks by decayed counts of the user's items, then by popularity."""

    def __init__(self, name: str, *, half_life: float):
        """
        Args:
            half_life: age in days at which an event counts half.
        """
        self.name = name
        self.half_life = half_life

    @property
    def chosen(self) -> dict[str, float]:
        return {"half_lives": self.half_life}

    def scores(self, queries: Queries, items: ItemState) -> np.ndarray:
        """Return (B, N + 1) float32: at least 1 for items of the history, below 1 for others."""
        popular = items.state["item_events"].astype(np.float32)
        popular = popular / (popular.max(initial=0) + 1)
        personal_scores = np.zeros((len(queries), len(popular)), dtype=np.float32)
        age = np.maximum(queries.at[:, None] - queries.history_time, 0)
        weight = np.exp2(-age / (self.half_life * MICROSECONDS_PER_DAY)).astype(np.float32)
        rows = np.broadcast_to(np.arange(len(queries))[:, None], queries.history.shape)
        np.add.at(
            personal_scores, (rows, queries.history), np.maximum(weight, np.finfo(np.float32).tiny)
        )
        scores = np.where(personal_scores > 0, 1 + personal_scores, popular)
        scores[:, 0] = 0
        return scores

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        return top_k(mask_left_out(self.scores(queries, items), queries), k)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        return at_candidates(self.scores(queries, items), candidates)

    def save(self, folder: Path) -> None:
        about = {"name": self.name, "half_life": self.half_life}
        (folder / "about.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Personal":
        about = json.loads((folder / "about.json").read_text())
        return cls(about["name"], half_life=about["half_life"])


def fit_personal(
    config: PersonalConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Personal:
    """Return the source with the best half-life on validation.

    Without validation requests, this is the first half-life of the grid.
    """
    candidates = [Personal(config.kind, half_life=half_life) for half_life in config.half_lives]
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda source: np.nan_to_num(validation.ndcg(source)))
