"""Skew is measured: what is served as the lake says passes to the bit, and each of four injected
faults is caught and named.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.featurize import featurize
from flows.skew import judge
from flows.skew_compare import Logged, comparable, compare
from models.ranking.features import ranking_features, ranking_schema
from models.recommend.queries import build_queries
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.event_kinds import HALF_LIVES, KINDS, RATES
from shortlist.feature_store import (
    FeatureReader,
    OfflineReader,
    OnlineReader,
    latest_pack,
    read_pack_history,
)
from shortlist.features import RequestRows
from shortlist.lake import Lake
from shortlist.profiles import ProfileEncoder
from shortlist.searches import Searches

START = 19_000 * DAY
UNTIL = START + 3 * DAY + DAY // 4
USERS = ["u1", "u2", "u3", "nobody"]
Change = Callable[[RequestRows], RequestRows]


class Faulty:
    """A reader with a fault behind it."""

    def __init__(self, reader: FeatureReader, change: Change):
        self.reader, self.change = reader, change

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        return self.change(self.reader.read(user_ids, context_ids, at))


def changed(**columns: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(rows: RequestRows) -> RequestRows:
        user = {n: columns.get(n, lambda v: v)(values) for n, values in rows.user.items()}
        context = {n: columns.get(n, lambda v: v)(values) for n, values in rows.context.items()}
        return replace(rows, user=user, context=context)

    return change


def searched(change: Callable[[Searches], Searches]) -> Change:
    return lambda rows: replace(rows, searches=[change(held) for held in rows.searches])


def verdict(home: Settings, reader: FeatureReader) -> dict[str, Any]:
    """Serve every user with `reader`, log it, and judge the log against `home`'s lake."""
    catalogue = Catalogue.from_items(Lake(home.lake).items())
    profiles = ProfileEncoder(("group",), (("g0", "g1"),))
    schema = ranking_schema(["knn"], profiles=profiles)
    at, pack = np.full(len(USERS), UNTIL), latest_pack(home.packs)
    contexts = ["web|unknown|00", "web|tv|09", "web|unknown|23", "web|unknown|00"]
    rows = reader.read(USERS, contexts, at)
    candidates = np.tile(np.arange(1, catalogue.num_items + 1), (len(USERS), 1))
    served = ranking_features(
        build_queries(rows, catalogue=catalogue, profiles=profiles),
        pack.align(catalogue.vocab),
        catalogue=catalogue,
        candidates=candidates,
        source_scores={"knn": np.ones(candidates.shape, dtype=np.float32)},
        source_ranks={},
        schema=schema,
    )
    log = [
        Logged(
            request_id=f"r{i}",
            user_id=user,
            context_id=contexts[i],
            at=UNTIL,
            user_as_of=int(rows.user_as_of[i]),
            pack_as_of=pack.as_of,
            item_ids=catalogue.vocab.ids,
            features=served[i],
        )
        for i, user in enumerate(USERS)
    ]
    assert len(comparable(schema)) > 30
    found = compare(
        log,
        schema=schema,
        catalogue=catalogue,
        profiles=profiles,
        reader=OfflineReader(home),
        packs=read_pack_history(home, [pack.as_of]),
    )
    return judge(found, max_different=0.0, max_stale=0.01)


def test_what_is_served_as_the_lake_says_passes_to_the_bit(home: Settings) -> None:
    report = verdict(home, OnlineReader(home))
    assert (report["passed"], report["reasons"]) == (True, [])
    assert report["exact_share"] == 1.0
    assert report["staleness"]["requests"] == 0
    assert report["vectors"] == 24


@pytest.mark.parametrize(
    ("fault", "change", "features"),
    [
        (
            "wrong default",
            changed(
                user_value_sum=lambda v: np.where(v == 0, 3.5, v),
                user_value_count=lambda v: np.where(v == 0, 1.0, v),
            ),
            ["user_mean_value", "value_cross"],
        ),
        (
            "dtype change",
            changed(user_decayed=lambda v: v.astype(np.int32).astype(np.float64)),
            ["user_recent_activity"],
        ),
        (
            "unit change",
            changed(user_first_time=lambda v: v // 1_000),
            ["user_days_since_first_log"],
        ),
        (
            "wrong default",
            changed(user_kind_counts=lambda v: np.where(v.any(axis=1, keepdims=True), v, 1.0)),
            [
                *(f"user_{kind}_log" for kind in KINDS),
                *(f"user_{rate.name}" for rate in RATES),
            ],
        ),
        (
            "unit change",
            changed(user_kind_decayed=lambda v: v * 24),
            [
                name
                for span in HALF_LIVES
                for name in (
                    *(f"user_{kind}_{span}_log" for kind in KINDS if kind != "carts"),
                    *(f"user_{rate.name}_{span}" for rate in RATES),
                )
            ],
        ),
        (
            "wrong order",
            searched(lambda held: replace(held, queries=held.queries[::-1])),
            ["search_match", "search_match_last"],
        ),
        (
            "wrong default",
            searched(lambda held: held if held.count else Searches(count=1)),
            ["user_searches_log"],
        ),
    ],
)
def test_a_fault_is_caught_and_named(
    home: Settings, fault: str, change: Change, features: list[str]
) -> None:
    report = verdict(home, Faulty(OnlineReader(home), change))
    assert not report["passed"], fault
    assert sorted(report["different_share"]) == sorted(features)
    for feature, reason in zip(report["different_share"], report["reasons"], strict=True):
        assert f"feature {feature} differs" in reason
        worst = report["worst"][feature]
        assert worst["served"] != pytest.approx(worst["recomputed"], rel=1e-5)


def test_a_stale_view_is_caught_and_named(
    home: Settings, make_home: Callable[[], tuple[Settings, dict]]
) -> None:
    behind, _ = make_home()
    featurize(behind, ("rating",), until=START + DAY + 3)  # nothing was pushed since
    report = verdict(home, OnlineReader(behind))
    assert not report["passed"]
    stale = report["staleness"]
    assert (stale["requests"], stale["unreachable"]) == (3, 0)
    assert stale["max_seconds"] == pytest.approx((UNTIL - START - DAY) / 1e6, abs=0.1)  # u2
    assert any("view user_stats is stale in 75.0%" in reason for reason in report["reasons"])
    # As of what was served nothing else is wrong with the users.
    assert not [name for name in report["different_share"] if name.startswith("user_")]
