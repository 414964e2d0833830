"""Ranks every request of the test window by each method, with whole and with cut histories."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.cold.log import Log, items_at
from benchmarks.cold.methods import Method, best, methods_of
from benchmarks.cold.requests import CutReader, Request, StoreTimeline, requests_of
from benchmarks.cold.training import TrainedChains
from models.recommend.queries import build_queries
from models.recommend.recommender import Recommender
from models.recommend.rules import blocked_items
from models.training import TrainingOptions
from shortlist.features.pack import FeaturePack
from shortlist.http.api import RecommendRequest

K = 50
CUT_USERS = 400
"""Maximum number of users whose requests are also ranked with cut histories."""
CUTS = (0, 1, 3, 5)
"""Numbers of events that a cut history keeps."""
FULL = "full"


@dataclass
class Lists:
    """Lists of all requests, as rows of `Log.items`."""

    requests: list[Request] = field(default_factory=list)
    known_events: list[int] = field(default_factory=list)
    """Number of events in the user's history, of each request."""
    cut: list[int] = field(default_factory=list)
    """Rows of the requests that are also ranked with cut histories."""
    of: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """(length of the history: FULL or one of CUTS, method) -> list of each request.

    Cut histories have an entry for each row in `cut`.
    """


def rank_all(
    log: Log,
    fitted: TrainedChains,
    options: TrainingOptions,
    *,
    most: int,
) -> Lists:
    """Rank the requests of the test window.

    Args:
        fitted: its chains are asked through `Recommender.recommend`, as in the service.
        most: maximum number of users.
    """
    requests = requests_of(
        log, (log.edges[1], int(log.events.time[-1]) + 1), rng=options.rng("requests"), most=most
    )
    users = np.unique([request.user for request in requests])
    cut_users = set(options.rng("cut histories").permutation(users)[:CUT_USERS].tolist())
    walk = StoreTimeline.start(log, fitted.events, at=log.edges[1])
    reader = CutReader(walk.store)
    rows = {item_id: row for row, item_id in enumerate(log.item_ids)}
    recommenders: dict[str, Recommender] = {}
    lists, state = Lists(), _State()

    def on_day(pack: FeaturePack) -> None:
        pack = replace(pack, items=items_at(log, pack.as_of))
        for name, chain in fitted.chains.items():
            if name in recommenders:
                recommenders[name].swap_pack(pack)
            else:
                recommenders[name] = Recommender(
                    chain=chain,
                    catalogue=fitted.catalogue,
                    profiles=chain.profiles,
                    reader=reader,
                    pack=pack,
                    about={},
                )
        state.first = next(iter(recommenders.values()))
        if not state.methods:
            state.methods = methods_of(state.first, has_time=log.has_time, options=options)
            state.row_of = np.array([-1, *(rows[i] for i in state.first.catalogue.vocab.ids)])

    def on_request(request: Request) -> None:
        user_id = log.user_ids[request.user]
        consumed = [log.item_ids[i] for i in request.consumed]
        cuts: tuple[int | None, ...] = (None,)
        if request.user in cut_users:
            lists.cut.append(len(lists.requests))
            cuts = (None, *CUTS)
        lists.requests.append(request)
        known = walk.store.read([user_id], [""], np.array([request.at]))
        lists.known_events.append(len(known.history_items[0]))
        for cut in cuts:
            reader.events = cut
            name = FULL if cut is None else str(cut)
            for method, recommender in recommenders.items():
                if cut is not None and method not in CUT_METHODS:
                    continue
                slate = recommender.recommend(
                    RecommendRequest(user_id=user_id, k=K, exclude=consumed, explain=False),
                    at=request.at,
                )
                found = np.array([rows[item.item_id] for item in slate.items], dtype=np.int64)
                lists.of[name, method].append(found)
            first = state.first
            assert first is not None
            query = build_queries(
                reader.read([user_id], [""], np.array([request.at])),
                catalogue=first.catalogue,
                profiles=first.profiles,
                exclude=blocked_items(first.catalogue, exclude=consumed),
            )
            allowed = query.allowed(0, first.catalogue.num_items)
            for method, score in state.methods.items():
                found = best(score(query, first.items, allowed), allowed, k=K)
                lists.of[name, method].append(state.row_of[found])
        reader.events = None

    walk.run(requests, on_day=on_day, on_request=on_request)
    return lists


CUT_METHODS = ("chain",)
"""Chains that are also asked with cut histories."""


@dataclass
class _State:
    """Objects that the first day of the test window sets."""

    first: Recommender | None = None
    methods: dict[str, Method] = field(default_factory=dict)
    row_of: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """(N + 1,) row in `Log.items` of each item_idx."""
