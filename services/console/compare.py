"""Compares two lists of one person: of releases, arms, or single sources; and two releases for the
last users of this worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.console.deployment import Deployment
from services.console.options import OptionError, Options, recommender_for
from services.console.people import recent_people


@dataclass(frozen=True)
class Entry:
    """One item of a list, with its rank in the other list."""

    rank: int
    item_id: str
    title: str
    detail: str
    other: int | None
    """Rank in the other list; None if it isn't there."""

    @property
    def change(self) -> int:
        """Places above (below 0: under) its rank in the other list; 0 if it isn't there."""
        return 0 if self.other is None else self.other - self.rank


@dataclass(frozen=True)
class Side:
    name: str
    release_id: str
    entries: list[Entry]


Listed = list[tuple[str, str, str]]
"""(item_id, title, detail) of the items of a list."""


def listed(running: Deployment, side: str, options: Options, *, at: int) -> tuple[str, Listed]:
    """Return the release and the list of one side.

    Args:
        side: "" for what is served, "arm:NAME", "release:ID", or "source:NAME" for the best items
            of one source of the served release.

    Raises:
        OptionError: there is no such arm or source.
    """
    from models.recommend.explaining.inspection import inspect

    kind, _, name = side.partition(":")
    variant = "" if kind == "source" else side
    recommender = recommender_for(running, variant, options.request.user_id)
    if kind != "source":
        slate = recommender.recommend(options.request, at=at)
        return slate.release_id, [(one.item_id, one.title, one.source) for one in slate.items]
    inspection = inspect(recommender, options.request, at=at)
    if name not in recommender.chain.source_names:
        there = ", ".join(recommender.chain.source_names)
        raise OptionError(f"source '{name}': the release has {there}")
    catalogue = recommender.catalogue
    return recommender.release_id, [
        (
            catalogue.vocab.ids[idx - 1],
            catalogue.titles[idx],
            f"place {inspection.places[idx]} by the ranker",
        )
        for idx in inspection.best(name, options.request.k)
    ]


def sides(names: Sequence[str], lists: Sequence[tuple[str, Listed]]) -> list[Side]:
    """Return both lists with the rank of each item in the other one."""
    ranks = [{one[0]: rank for rank, one in enumerate(own, 1)} for _, own in lists]
    return [
        Side(
            name=name or "as served now",
            release_id=release_id,
            entries=[
                Entry(rank, item_id, title, detail, ranks[1 - number].get(item_id))
                for rank, (item_id, title, detail) in enumerate(own, 1)
            ],
        )
        for number, (name, (release_id, own)) in enumerate(zip(names, lists, strict=True))
    ]


def overlap(left: Listed, right: Listed) -> float:
    """Return the share of common items in the union of two lists; 1 for two empty lists."""
    a, b = ({item_id for item_id, _, _ in own} for own in (left, right))
    return len(a & b) / len(a | b) if a | b else 1.0


def sample(
    running: Deployment, names: Sequence[str], options: Options, *, at: int
) -> list[tuple[str, float, int]]:
    """Return (user, overlap, items at the same rank) for the last users of this worker."""
    rows = []
    for user_id in recent_people(running):
        request = options.request.model_copy(update={"user_id": user_id, "recent_items": None})
        own = replace(options, request=request)
        left, right = (listed(running, name, own, at=at)[1] for name in names)
        same = sum(a[0] == b[0] for a, b in zip(left, right, strict=False))
        rows.append((user_id, overlap(left, right), same))
    return rows
