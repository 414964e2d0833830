"""The page of an item: neighbours, exposure, cold-start state, and why it may (not) be shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from services.console.deployment import Deployment
from services.console.person import web_image
from shortlist import columns as c
from shortlist.http.api import RecommendRequest
from shortlist.http.rule_config import RuleSet

if TYPE_CHECKING:
    from models.recommend.recommender import Recommender

NEIGHBOURS = 10
PAGE = 20
HARD = ("filter", "include", "exclude")
SOURCES = {"item_knn": "by use", "content": "by content", "two_tower": "by the two-tower model"}
"""Sources with item neighbours -> what their neighbours are."""


@dataclass(frozen=True)
class Neighbour:
    item_id: str
    title: str
    score: float
    available: bool


@dataclass(frozen=True)
class Standing:
    """Where an item stands in a person's list."""

    ranks: dict[str, int]
    place: int | None
    num_candidates: int
    why: str


def search_items(
    recommender: "Recommender", text: str, *, page: int
) -> tuple[list[tuple[str, str]], int]:
    """Return one page of (item_id, title) whose id is `text` or whose title contains it, and the
    number of all of them.
    """
    catalogue, wanted = recommender.catalogue, text.lower()
    found = [
        (id_, title)
        for id_, title in zip(catalogue.vocab.ids, catalogue.titles[1:], strict=True)
        if wanted in title.lower() or id_ == text
    ]
    found.sort(key=lambda pair: (pair[0] != text, len(pair[1]), pair[1]))
    return found[page * PAGE : (page + 1) * PAGE], len(found)


def item_page(
    running: Deployment, item_id: str, user_id: str | None, entries: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the variables of the template.

    Args:
        entries: newest responses of the serving log.

    Raises:
        UnknownItemError: the item is not in the catalogue.
    """
    recommender = running.serving.recommender
    view, idx, now = recommender.view, recommender.item_idx(item_id), running.clock.now()
    row = view.catalogue.items.slice(idx - 1, 1).to_pylist()[0]
    state = view.items.state
    content: dict[str, Any] = {
        "item": row,
        "image": web_image(row.get(c.IMAGE)),
        "title": view.catalogue.titles[idx],
        "categories": view.catalogue.category_lists[idx],
        "neighbours": neighbours(recommender, idx),
        "events": float(state["item_events"][idx]),
        "days": state["item_day_counts"][idx].tolist(),
        "pack_as_of": view.items.as_of,
        "exposure": exposure(item_id, entries),
        "trained": idx <= view.chain.num_known,
        "new": bool((view.chain.fresh.at(view.items) == idx).any()),
        "vector": has_vector(recommender, idx),
        "reasons_not": reasons_not(recommender, running.rules.rules, idx, at=now),
        "release_id": recommender.release_id,
        "standing": None,
    }
    if user_id:
        content["standing"] = standing(recommender, idx, user_id, at=now)
    return content


def neighbours(recommender: "Recommender", idx: int) -> dict[str, list[Neighbour]]:
    """Return the nearest items of each source that has neighbours: {what they are: neighbours}."""
    view = recommender.view
    found = {}
    for source, what in SOURCES.items():
        best = view.similar_by(source, idx, k=NEIGHBOURS + 1)
        if best is None:
            continue
        pairs = [
            (int(other), float(score))
            for other, score in zip(best.item_idx[0], best.score[0], strict=True)
            if other > 0 and other != idx and score > 0
        ]
        found[what] = [
            Neighbour(
                view.catalogue.vocab.ids[other - 1],
                view.catalogue.titles[other],
                score,
                bool(view.catalogue.available[other]),
            )
            for other, score in pairs[:NEIGHBOURS]
        ]
    return found


def exposure(item_id: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how often the newest responses showed an item, at which positions, from which source.

    Args:
        entries: responses, newest first.
    """
    shown = [
        (one["event_timestamp"], item["position"], item["source"])
        for one in entries
        for item in one["items"]
        if item["item_id"] == item_id
    ]
    first = entries[-1]["event_timestamp"] if entries else 0
    span = max(entries[0]["event_timestamp"] - first, 1) if entries else 1
    bins = Counter(min(29, (at - first) * 30 // span) for at, _, _ in shown)
    return {
        "lists": len(entries),
        "shown": len(shown),
        "mean_position": float(np.mean([p for _, p, _ in shown])) if shown else float("nan"),
        "sources": Counter(source for _, _, source in shown).most_common(),
        "over_time": [bins[place] for place in range(30)],
    }


def has_vector(recommender: "Recommender", idx: int) -> bool | None:
    """Return whether the content source has a vector of the item; None without such a source."""
    from models.recommend.cold_start.new_items import CONTENT

    chain = recommender.chain
    if CONTENT not in chain.sources:
        return None
    if idx <= chain.num_known:
        return True
    return chain.new is not None and chain.new.vectors is not None


def reasons_not(recommender: "Recommender", rules: RuleSet, idx: int, *, at: int) -> list[str]:
    """Return why an item is never shown to anybody; empty if it may be shown."""
    view = recommender.view
    found = [] if view.catalogue.available[idx] else ["it is not available, or was deleted"]
    for name in HARD:
        for rule in getattr(rules, name):
            blocked = np.zeros(view.catalogue.num_items + 1, dtype=bool)
            for part in view.rules.in_force(RuleSet(**{name: [rule]})):
                part.block(blocked, at=at)
            if blocked[idx]:
                found.append(f"rule '{rule.name}' ({name}) excludes it")
    return found


def standing(recommender: "Recommender", idx: int, user_id: str, *, at: int) -> Standing:
    """Return where an item stands for a person, and why it isn't higher."""
    from models.recommend.explaining.inspection import inspect

    recommender = recommender.aside()
    request = RecommendRequest(user_id=user_id, k=10)
    inspection = inspect(recommender, request, at=at)
    ranks, place = inspection.found(idx), inspection.places.get(idx)
    queries = inspection.queries
    item_id = recommender.catalogue.vocab.ids[idx - 1]
    slate = recommender.recommend(request, at=at)
    shown = next((one.rank for one in slate.items if one.item_id == item_id), None)
    if shown is not None:
        why = f"shown at position {shown}"
    elif (queries.seen[0] == idx).any():
        why = "never shown: this person consumed or refused it"
    elif queries.blocked is not None and queries.blocked[idx]:
        why = "never shown: it is unavailable or excluded by a rule"
    elif place is None:
        depth = recommender.chain.config.candidates_per_source
        why = f"not retrieved: it is not among the {depth} best items of any source"
    else:
        why = f"retrieved, but the ranker puts it at place {place} of {len(inspection.places)}"
    return Standing(ranks, place, len(inspection.places), why)
