"""The page of a person: the history as the models see it, and the list as served now, explained.

Lists that the console shows are computed as for a client but not logged, so they don't count as
traffic. Events that the console posts are real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from services.console.deployment import Deployment
from services.console.options import Options, with_diversity
from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES, WITHOUT_ITEM

if TYPE_CHECKING:
    from models.recommend.explaining.inspection import Inspection, Past
    from models.recommend.recommender import Recommender
    from models.recommend.slate import Slate

HISTORY_PAGE = 25
MAX_FEATURES = 6
"""Number of features with the largest contributions that are shown for an item."""
POSTED = tuple(one for one in EVENT_TYPES if one not in (*WITHOUT_ITEM, "impression"))
"""Event types that the page can post."""


@dataclass(frozen=True)
class FeatureShare:
    """What one feature added to an item's score."""

    name: str
    meaning: str
    value: float
    share: float


@dataclass(frozen=True)
class Row:
    """One shown item, with everything that explains its position."""

    rank: int
    item_id: str
    title: str
    image: str
    categories: Sequence[str]
    price: float | None
    score: float
    source: str
    ranks: dict[str, int]
    """Source -> rank, of the sources that retrieved it."""
    reason: str
    rules: Sequence[str]
    place: int | None
    """Place by the ranker's score among all candidates; None if it was no candidate."""
    moved_by: str
    """What put it at another position than the ranker; empty if nothing did."""
    shares: list[FeatureShare] = field(default_factory=list)


@dataclass(frozen=True)
class Explained:
    """A list with its explanation."""

    release_id: str
    slate: "Slate"
    rows: list[Row]
    num_candidates: int
    inspection: "Inspection"
    ranker: str
    rerank: str


def explained(
    recommender: "Recommender", options: Options, *, at: int
) -> tuple[Explained, "list[Past]"]:
    """Answer the request, and return the list with its explanation, and the user's history."""
    from models.recommend.explaining.inspection import history_of, inspect

    recommender = with_diversity(recommender, options)
    slate = recommender.recommend(options.request, at=at)
    inspection = inspect(recommender, options.request, at=at)
    chain = recommender.chain
    config = chain.config.rerank
    done = Explained(
        release_id=recommender.release_id,
        slate=slate,
        rows=rows_of(recommender, slate, inspection),
        num_candidates=len(inspection.places),
        inspection=inspection,
        ranker=getattr(chain.ranker, "name", "reciprocal rank fusion"),
        rerank="none" if config is None else f"{config.kind}, strength {config.strength:g}",
    )
    return done, history_of(recommender, inspection.rows)


def rows_of(recommender: "Recommender", slate: "Slate", inspection: "Inspection") -> list[Row]:
    catalogue, chain = recommender.catalogue, recommender.chain
    prices = catalogue.items.column(c.PRICE)
    images = catalogue.items.column(c.IMAGE)
    rows = []
    for item in slate.items:
        idx = catalogue.vocab.idx(item.item_id)
        place = inspection.places.get(idx)
        rows.append(
            Row(
                rank=item.rank,
                item_id=item.item_id,
                title=item.title,
                image=web_image(images[idx - 1].as_py()),
                categories=catalogue.category_lists[idx],
                price=prices[idx - 1].as_py(),
                score=item.score,
                source=item.source,
                ranks=inspection.found(idx),
                reason=item.reason,
                rules=item.rules,
                place=place,
                moved_by=moved_by(item, place, reranked=chain.config.rerank is not None),
            )
        )
    return rows


def moved_by(item: Any, place: int | None, *, reranked: bool) -> str:
    """Return what put an item at another position than its place by the ranker's score."""
    if item.rules:
        return ", ".join(f"rule {name}" for name in item.rules)
    if place == item.rank:
        return ""
    if item.source == "new":
        return "position kept for new items"
    if place is None:
        return "added to a list that was too short"
    return "re-ranking" if reranked else "items before it were moved, excluded or added"


def add_shares(recommender: "Recommender", explained: Explained) -> bool:
    """Add the features with the largest contributions to each row; return False if the ranker has
    none. The first call in a process imports LightGBM.
    """
    from models.ranking.trees.contributions import contributions

    names = recommender.chain.schema.names
    x = np.array(explained.slate.features, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != len(names):
        return False
    shares = contributions(recommender.chain.ranker, x)
    if shares is None:
        return False
    for row, values, own in zip(explained.rows, x, shares, strict=True):
        row.shares.extend(largest(names, values, own))
    return True


def largest(names: Sequence[str], values: np.ndarray, shares: np.ndarray) -> list[FeatureShare]:
    """Return the MAX_FEATURES largest contributions of one item, without those of 0."""
    best: list[int] = np.argsort(-np.abs(shares), kind="stable")[:MAX_FEATURES].tolist()
    return [
        FeatureShare(names[i], meaning(names[i]), float(values[i]), float(shares[i]))
        for i in best
        if shares[i] != 0
    ]


def meaning(name: str) -> str:
    """Return the description of a ranking feature; empty if it has none."""
    source, _, own = name.rpartition(":")
    text = meanings().get(own, "")
    return f"{source}: {text}" if source and text else text


@cache
def meanings() -> dict[str, str]:
    from shortlist.features.descriptions import GROUPS

    return {f.name.rpartition(":")[2]: f.meaning for group in GROUPS for f in group.features}


def web_image(image: str | None) -> str:
    """Return the address of an image that a browser can load; empty if there is none."""
    return image if image and image.startswith(("http://", "https://")) else ""


def choices(running: Deployment, releases: Sequence[str]) -> list[tuple[str, str]]:
    """Return (value, text) of the lists that can be asked for: served, arms, releases."""
    found = [("", "as served now")]
    experiment = running.experiment
    if experiment is not None:
        found += [(f"arm:{name}", f"arm {name}") for name in experiment.config.shares]
    return found + [(f"release:{name}", f"release {name}") for name in reversed(releases)]
