"""Work of `shortlist bench serving` that needs no server and runs in a separate process.

    python -m benchmarks.serving_load.alone WHAT HOME N

If WHAT is `build`, it makes a home (folder of a deployment) with N items. If WHAT is `alone`, it
times `Recommender.recommend` and two of its parts. Figures are printed as JSON.
"""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_load.home import build_home
from models.recommend.queries import build_queries
from models.recommend.recommender import Recommender
from models.recommend.rules import blocked_items
from models.training import one_thread_per_call
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, latest_pack
from shortlist.features.finalize import context_id
from shortlist.http.api import RecommendRequest
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

TURNS = 500
"""Number of timed requests."""
WARM_UP = 50
"""Number of untimed requests before them."""


def main() -> None:
    what, home, items = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with contextlib.redirect_stdout(sys.stderr):
        if what == "build":
            build_home(home, num_items=items)
            result: dict[str, Any] = {}
        else:
            result = alone(Settings(home=home))
    print(json.dumps(result))


def alone(settings: Settings) -> dict[str, Any]:
    """Time requests in this process, on one thread.

    Returns:
        Milliseconds: "alone" of a whole request, "features" of reading the user's states, and
        "order" of computing ranking features, ranking and re-ranking.
    """
    one_thread_per_call()
    release = ReleaseStore(settings.releases).open()
    reader = OnlineReader(settings)
    recommender = Recommender.load(release, reader, pack=latest_pack(settings.packs))
    at = int(release.about["data_end"])
    users = sorted(set(Lake(settings.lake).interactions().column(c.USER_ID).to_pylist()))
    users = [f"u{n}" for n in range(TURNS)] if "u1" in users else users[:TURNS]
    users = [users[turn % len(users)] for turn in range(TURNS)]
    requests = [RecommendRequest(user_id=user, k=10) for user in users]
    context = context_id(surface=None, device=None, at=at)
    view = recommender.view
    taken: dict[str, list[float]] = {"alone": [], "features": [], "order": []}
    for turn in range(-WARM_UP, TURNS):
        marks = [time.perf_counter()]
        recommender.recommend(requests[turn % TURNS], at=at)
        marks.append(time.perf_counter())
        rows = reader.read([users[turn % TURNS]], [context], np.array([at]))
        marks.append(time.perf_counter())
        queries = build_queries(
            rows,
            catalogue=view.catalogue,
            profiles=recommender.profiles,
            exclude=blocked_items(view.catalogue),
        )
        shortlist = view.chain.shortlist(queries, view.items, k=10)
        scores = view.chain.source_scores(queries, view.items, shortlist)
        marks.append(time.perf_counter())
        x = view.chain.features(queries, view.items, shortlist, scores)
        view.chain.order(queries, shortlist, x, view.chain.scores(queries, shortlist, x), k=10)
        marks.append(time.perf_counter())
        if turn >= 0:
            for name, start in (("alone", 0), ("features", 1), ("order", 3)):
                taken[name].append((marks[start + 1] - marks[start]) * 1e3)
    figures = {
        f"{name}_ms": {f"p{p}": round(float(np.percentile(each, p)), 2) for p in (50, 99)}
        for name, each in taken.items()
    }
    mean = round(float(np.mean(taken["alone"])), 2)
    return figures | {"alone_percentiles_ms": figures["alone_ms"], "alone_ms": mean}


if __name__ == "__main__":
    main()
