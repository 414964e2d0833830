"""The skew check: correct features match bit for bit; each injected fault is found and named."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.featurize import featurize
from flows.skew.compare import Comparison, comparable, compare, merged
from flows.skew.states import Lag, Logged
from flows.skew.verdict import Limits, SkewFailed, judge
from models.ranking.features.compute import ranking_features, ranking_schema
from models.recommend.queries import build_queries
from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.contracts import microseconds
from shortlist.feature_store import (
    FeatureReader,
    OfflineReader,
    OnlineReader,
    Tail,
    latest_pack,
    read_pack_history,
)
from shortlist.features.event_groups import EVENT_GROUPS, GROUP_OF, RATES
from shortlist.features.finalize import RequestRows
from shortlist.features.pack import FeaturePack
from shortlist.features.profiles import ProfileEncoder
from shortlist.features.searches import Searches
from shortlist.items.catalogue import Catalogue
from shortlist.lake import Lake

START = 19_000 * DAY
UNTIL = START + 3 * DAY + DAY // 4
USERS = ["u1", "u2", "u3", "nobody"]
BEHIND = START + DAY + 3
TWO_DAYS_ALLOWED = Limits(days_behind=2)
Change = Callable[[RequestRows], RequestRows]


class Faulty:
    """A reader that changes the rows of another reader, to inject a fault."""

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


def verdict(
    home: Settings,
    reader: FeatureReader,
    *,
    pack: FeaturePack | None = None,
    clock: str = "wall",
    limits: Limits = Limits(),
    items: pa.Table | None = None,
    published: bool = True,
) -> dict[str, Any]:
    """Compute features of every user with `reader`, and check them against `home`'s lake.

    Args:
        items: the catalogue that is served, if it isn't the release's.
        published: whether `items` is stored with the pack, so that the check can use it.
    """
    release = Catalogue.from_items(Lake(home.lake).items())
    catalogue = release if items is None else release.with_current(items)
    profiles = ProfileEncoder(("group",), (("g0", "g1"),))
    schema = ranking_schema(["knn"], profiles=profiles)
    at, pack = np.full(len(USERS), UNTIL), pack or latest_pack(home.packs)
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
            clock=clock,
            as_of={view: int(times[i]) for view, times in rows.as_of.items()},
            pack_as_of=pack.as_of,
            item_ids=catalogue.vocab.ids,
            features=served[i],
            pack_id=pack.pack_id,
        )
        for i, user in enumerate(USERS)
    ]
    assert len(comparable(schema)) > 30
    found = compare(
        log,
        schema=schema,
        catalogue=release,
        profiles=profiles,
        reader=OfflineReader(home),
        snapshots=home.features,
        packs=read_pack_history(home, [pack.as_of]),
        published={} if items is None or not published else {pack.pack_id: items},
    )
    return judge(found, limits)


def test_what_is_served_as_the_lake_says_passes_to_the_bit(home: Settings) -> None:
    report = verdict(home, OnlineReader(home))
    assert (report["passed"], report["reasons"]) == (True, [])
    assert report["exact_share"] == 1.0
    assert {view: lag["max_seconds"] for view, lag in report["staleness"].items()} == dict.fromkeys(
        ("user_stats", "user_event_groups", "user_searches", "context_trend", "item_state"), 0.0
    )
    assert report["vectors"] == 24


def test_online_rows_say_up_to_when_each_base_row_holds_all_events(home: Settings) -> None:
    """Online rows carry the stamp of each user's base row, 0 without one."""
    rows = OnlineReader(home).read(USERS, [""] * 4, np.full(4, UNTIL))
    newest = [START + 2 * DAY + 1, UNTIL, START + 3 * DAY + DAY // 24 + 1, 0]
    assert rows.stamps["user_stats"].tolist() == newest
    assert rows.take(np.array([2])).stamps["user_stats"].tolist() == newest[2:3]


def test_what_is_served_of_a_new_catalogue_is_compared_with_that_catalogue(home: Settings) -> None:
    items = Lake(home.lake).items()
    rows = items.to_pylist()
    rows[0][c.PRICE] = 77.0
    rows.append({**rows[0], c.ITEM_ID: "brand-new"})
    now = pa.Table.from_pylist(rows, schema=items.schema)
    report = verdict(home, OnlineReader(home), items=now)
    assert (report["passed"], report["exact_share"]) == (True, 1.0)
    assert report["vectors"] == 28  # (six items + the new one) x four users
    assert not verdict(home, OnlineReader(home), items=now, published=False)["passed"]


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
            changed(user_group_counts=lambda v: np.where(v.any(axis=1, keepdims=True), v, 1.0)),
            [
                *(f"user_{group}_log" for group in EVENT_GROUPS),
                *(f"user_{rate.name}" for rate in RATES),
            ],
        ),
        (
            "unit change",
            changed(user_group_decayed=lambda v: v * 24),
            [
                *(f"user_{group}_7d_log" for group in EVENT_GROUPS if group != "carts"),
                *(f"user_{rate.name}_7d" for rate in RATES),
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


@pytest.fixture
def behind(make_home: Callable[[], tuple[Settings, dict]]) -> Settings:
    """A home last featurized two days before the requests, with no events in the tail."""
    settings, _ = make_home()
    featurize(settings, ("rating",), until=BEHIND)
    return settings


def push_since(behind: Settings, *, without: Collection[str] = ()) -> None:
    """Post the lake's events from BEHIND to UNTIL, except those of the types in `without`."""
    rows = Lake(behind.lake).interactions(since=BEHIND, until=UNTIL)
    times = microseconds(rows.column("event_timestamp")).to_pylist()
    posted = [
        row | {"event_timestamp": time, "received_at": time}
        for row, time in zip(rows.to_pylist(), times, strict=True)
        if row["event_type"] not in without
    ]
    for row in posted:
        del row["ingested_at"]
    assert len(Tail.of(behind).insert(posted)) == len(posted) > 0


@pytest.mark.parametrize(
    ("not_pushed", "view", "share"),
    [
        (["rating"], "user_stats", 0.75),  # stale for u1, u2, u3
        (GROUP_OF, "user_event_groups", 0.5),  # stale for u2 (hide) and u3 (purchase)
        (["search"], "user_searches", 0.5),  # stale for u1 and u2
    ],
)
def test_the_user_view_that_was_not_pushed_is_named(
    home: Settings, behind: Settings, not_pushed: Collection[str], view: str, share: float
) -> None:
    push_since(behind, without=not_pushed)
    report = verdict(
        home, OnlineReader(behind), pack=latest_pack(behind.packs), limits=TWO_DAYS_ALLOWED
    )
    assert report["views"] == [view]
    (reason,) = report["reasons"]  # values are right as of the logged state, so only staleness
    assert f"view {view} is stale in {share:.1%} of the requests" in reason
    assert report["staleness"][view]["unreachable"] == 0


def test_how_far_a_user_view_was_behind(home: Settings, behind: Settings) -> None:
    report = verdict(home, OnlineReader(behind), limits=TWO_DAYS_ALLOWED)
    lag = report["staleness"]["user_stats"]
    assert (lag["requests"], lag["unreachable"]) == (3, 0)
    assert lag["max_seconds"] == pytest.approx((UNTIL - START) / 1e6, abs=0.1)  # the lag of u2
    assert not [name for name in report["different_share"] if name.startswith("user_")]


def test_states_of_midnights_are_stale_by_the_midnights_they_miss(
    home: Settings, behind: Settings
) -> None:
    """Staleness of item and context states is counted in ticks since the last featurize.

    All events were posted, but featurize last ran two days before.
    """
    push_since(behind)
    old = latest_pack(behind.packs)
    assert (UNTIL - old.as_of) / DAY == 2.25
    report = verdict(home, OnlineReader(behind), pack=old)
    assert report["views"] == ["context_trend", "item_state"]
    assert report["features"] == []
    context, item = report["reasons"]
    assert "view context_trend is stale in 75.0% of the requests" in context
    assert "view item_state (the feature pack) is stale in 100.0% of the requests" in item
    assert "up to 2 days behind the newest tick (at most 1)" in item
    assert verdict(home, OnlineReader(behind), pack=old, limits=TWO_DAYS_ALLOWED)["passed"]
    # A replay sends days of requests with one pack, so the age of a pack is only reported then.
    replayed = verdict(home, OnlineReader(behind), pack=old, clock="replay")
    assert replayed["passed"]
    assert replayed["staleness"]["item_state"]["max_seconds"] == 2 * 86_400


def test_contexts_newer_than_the_pack_are_no_skew(home: Settings) -> None:
    """Featurize writes contexts to the online store before it publishes the pack."""
    tick = START + 2 * DAY
    before = read_pack_history(home, [tick])[tick]
    report = verdict(home, OnlineReader(home), pack=before)
    assert (report["passed"], report["reasons"]) == (True, [])
    assert report["staleness"]["context_trend"]["max_seconds"] == 0.0
    assert report["staleness"]["item_state"]["max_seconds"] == 86_400


def test_a_state_that_the_lake_never_had_is_named(home: Settings) -> None:
    """An `as_of` in the log that no state in the lake has is reported with its view."""
    future = changed(user_group_last_time=lambda v: np.where(v > 0, v + 5, v))
    report = verdict(home, Faulty(OnlineReader(home), future))
    assert report["views"] == ["user_event_groups"]
    assert (
        "view user_event_groups says as_of of 3 requests that no state in the lake has"
        in (report["reasons"][-1])
    )


def test_the_failure_names_features_and_views() -> None:
    report = {"features": ["value_cross", "item_trend"], "views": ["user_event_groups"]}
    assert str(SkewFailed(report, where="reports/skew.json")) == (
        "features that differ from the lake: value_cross, item_trend; views that were stale:"
        " user_event_groups; reports/skew.json says by how much"
    )


def test_comparisons_of_several_releases_are_judged_together() -> None:
    def one(seconds: float, by: float) -> Comparison:
        return Comparison(
            requests=1,
            vectors=2,
            exact_vectors=1,
            compared=("a", f"by {by}"),
            different={"a": 1},
            worst={"a": {"by": by}},
            lags={"user_stats": Lag(np.array([seconds]), np.array([True]), False, 1)},
        )

    found = merged([one(0, 2.0), one(7, 1.0)])
    assert (found.requests, found.vectors, found.exact_vectors) == (2, 4, 2)
    assert found.compared == ("a", "by 2.0", "by 1.0")
    assert found.different == {"a": 2}
    assert found.worst == {"a": {"by": 2.0}}
    lag = found.lags["user_stats"]
    assert (lag.seconds.tolist(), lag.judged.tolist(), lag.unreachable) == ([0, 7], [True, True], 2)
    assert merged([one(3, 1.0)]).lags["user_stats"].seconds.tolist() == [3]
