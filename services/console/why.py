"""Why a list was shown: the logged response to a request, with names instead of columns.

Everything is from the serving log: the features are those that the ranker read at that time. The
contributions of the features are computed again, if the release that answered is still loaded.
"""

from typing import Any

import numpy as np

from services.console.deployment import Deployment
from services.console.person import FeatureShare, largest
from services.console.served_log import find


def why(running: Deployment, request_id: str) -> dict[str, Any] | None:
    """Return the explanation as JSON; None if the log doesn't have the request (any more)."""
    entry = find(running.settings.serving_log, request_id)
    if entry is None:
        return None
    recommender = running.serving.recommender
    same = entry["release_id"] == recommender.release_id
    names = recommender.about.get("ranking_schema", {}).get("names", []) if same else []
    catalogue = recommender.catalogue
    items = []
    for item in entry["items"]:
        idx = catalogue.vocab.idx(item["item_id"])
        known = len(names) == len(item["features"])
        items.append(
            {key: item[key] for key in ("item_id", "position", "source", "score", "propensity")}
            | {
                "title": catalogue.titles[idx] if idx else item["item_id"],
                "rules": item.get("rules", []),
                "features": dict(zip(names, item["features"], strict=True)) if known else {},
                "contributions": {},
            }
        )
    kept = ("request_id", "release_id", "pack_id", "arm", "user_id", "context_id", "as_of")
    rest = ("rules_version", "rules", "seed", "skipped_stages", "stages", "milliseconds", "clock")
    answer = {key: entry.get(key) for key in (*kept, *rest)}
    return answer | {"at": entry["event_timestamp"], "items": items, "release_loaded": same}


def add_contributions(running: Deployment, answer: dict[str, Any]) -> None:
    """Add what each feature added to the score of each item, if the ranker can tell.

    The first call in a process imports LightGBM.
    """
    from models.ranking.trees.contributions import contributions

    items, recommender = answer["items"], running.serving.recommender
    if recommender.release_id != answer["release_id"] or not all(one["features"] for one in items):
        return
    if not items:
        return
    x = np.array([list(one["features"].values()) for one in items], dtype=np.float32)
    shares = contributions(recommender.chain.ranker, x)
    if shares is None:
        return
    for one, own in zip(items, shares.tolist(), strict=True):
        one["contributions"] = dict(zip(one["features"], own, strict=True))


def largest_of(item: dict[str, Any]) -> list[FeatureShare]:
    """Return the largest contributions of one item of an answer."""
    if not item["contributions"]:
        return []
    return largest(
        list(item["features"]),
        np.array(list(item["features"].values())),
        np.array(list(item["contributions"].values())),
    )
