"""Popularity baselines: rank items by event counts of all time, or of the last days.

They are candidate sources, that is, models that retrieve candidates. The counts are part of the
item features, which the service reloads regularly. So the ranking stays current after training.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from models.baselines.dense import at_candidates
from models.data import TrainingData, Validation
from models.queries import Candidates, Queries
from shortlist.config import Config
from shortlist.features.finalize import DAY_BUCKETS
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions


Days = Annotated[int, Field(ge=1, le=DAY_BUCKETS)]


class PopularityConfig(Config):
    """Config of the ranking by all-time counts; there are no hyperparameters."""

    kind: Literal["popularity"] = "popularity"


class RecentPopularityConfig(Config):
    """Config of the ranking by recent counts: a grid of days, of which validation chooses one."""

    kind: Literal["recent_popularity"] = "recent_popularity"
    days: tuple[Days, ...] = Field((1, 3, 7, 14, 30), min_length=1)


class Popularity:
    """Candidate source that ranks items by event counts.

    The ranking is the same for all users; seen items are left out of a user's list.
    """

    def __init__(self, name: str, *, days: int | None):
        """
        Args:
            days: number of most recent days whose events are counted; None: all time.
        """
        self.name = name
        self.days = days
        self._last: tuple[ItemState, np.ndarray, np.ndarray] | None = None

    @property
    def chosen(self) -> dict[str, int]:
        """The hyperparameter chosen on validation, if any."""
        return {} if self.days is None else {"days": self.days}

    def counts(self, items: ItemState) -> np.ndarray:
        """Return the event count of each item: (N + 1,) float32.

        Recent counts get a fraction below 1, by which all-time counts break ties.
        """
        return self._counted(items)[1]

    def _counted(self, items: ItemState) -> tuple[ItemState, np.ndarray, np.ndarray]:
        """Return `items`, their counts, and item_idx in descending order of counts.

        The result is cached until a call passes other item features.
        """
        last = self._last
        if last is None or last[0] is not items:
            counts = self._counts(items).astype(np.float32)
            order = 1 + np.argsort(-counts[1:], kind="stable")
            last = self._last = (items, counts, order)
        return last

    def _counts(self, items: ItemState) -> np.ndarray:
        total = items.state["item_events"].astype(np.float64)
        if self.days is None:
            return total
        recent = items.state["item_day_counts"][:, -self.days :].sum(1)
        return recent + total / (total.max(initial=0) + 1)

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        _, counts, order = self._counted(items)
        k = min(k, len(order))
        found = np.zeros((len(queries), k), dtype=np.int64)
        for number, row in enumerate(found):
            allowed = queries.allowed(number, len(order))
            # Most items are usually allowed, so try the first 4 * k before all items.
            for length in (4 * k, len(order)):
                first = order[:length]
                free = first[allowed[first]][:k]
                if len(free) == k:
                    break
            row[: len(free)] = free
        return Candidates(found, np.where(found > 0, counts[found], np.float32(-np.inf)))

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        scores = np.broadcast_to(self.counts(items), (len(candidates), len(self.counts(items))))
        return at_candidates(scores, candidates)

    def save(self, folder: Path) -> None:
        (folder / "about.json").write_text(json.dumps({"name": self.name, "days": self.days}))

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Popularity":
        about = json.loads((folder / "about.json").read_text())
        return cls(about["name"], days=about["days"])


def fit_popularity(
    config: PopularityConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Popularity:
    """Return the source. All arguments but `config` are ignored: nothing is fitted."""
    return Popularity(config.kind, days=None)


def fit_recent_popularity(
    config: RecentPopularityConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Popularity:
    """Return the source with the best number of days on validation."""
    candidates = [Popularity(config.kind, days=days) for days in config.days]
    return max(candidates, key=validation.ndcg)
