"""The feature store with Feast: point-in-time joins, online reads, posted events and packs."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.infra.offline_stores.offline_store import RetrievalJob

from flows.featurize import featurize
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.contracts import EVENT_CODE
from shortlist.feature_store import (
    FeatureStoreError,
    OfflineReader,
    OnlineReader,
    Tail,
    current_pack_id,
    latest_pack,
    open_store,
    read_pack,
    read_pack_history,
)
from shortlist.feature_store.offline.sources import relation_from
from shortlist.feature_store.offline.store import AsofOfflineStore
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    CONTEXT_STATE,
    HALF_LIFE,
    PACK_STATE,
    USER_FEATURES,
    RequestRows,
    context_id,
    finalize_context,
    finalize_user,
    time_features,
)
from shortlist.features.pack import PackError
from shortlist.features.searches import NO_SEARCHES, Searches
from shortlist.lake import Lake
from shortlist.vocab import Vocab

START = 19_000 * DAY
UNTIL = START + 3 * DAY + DAY // 4
MakeHome = Callable[[], tuple[Settings, dict[str, Any]]]


def assert_equal(a: RequestRows, b: RequestRows) -> None:
    assert (a.user_ids, a.context_ids, a.attributes) == (b.user_ids, b.context_ids, b.attributes)
    assert a.history_items == b.history_items
    assert a.searches == b.searches
    for name in a.user:
        np.testing.assert_allclose(a.user[name], b.user[name], rtol=1e-12, err_msg=name)
    for name in a.context:
        np.testing.assert_allclose(a.context[name], b.context[name], atol=1e-12, err_msg=name)
    for mine, yours in zip(
        a.history_times + a.history_values + a.history_types,
        b.history_times + b.history_values + b.history_types,
        strict=True,
    ):
        assert mine.dtype == yours.dtype
        np.testing.assert_array_equal(mine, yours)


def test_featurize_says_what_it_made(featurized: tuple[Settings, dict[str, Any]]) -> None:
    settings, result = featurized
    assert result["rows"]["user_stats"] == 8  # nine events, two of which have the same time
    assert result["rows"]["user_history"] == 9
    assert result["rows"]["user_profile"] == 4
    assert set(result["seconds"]) == {"states", "apply", "materialize", "pack"}
    assert result["as_of"] == START + 3 * DAY
    assert result["pack_id"] == current_pack_id(settings.packs)


def test_the_offline_reader_sees_only_the_past(home: Settings) -> None:
    # One request occurs twice. Another has the time of two events, and one is a microsecond later.
    at = np.array([START + 1, START, START + DAY + 1, START + 1, START + DAY])
    rows = OfflineReader(home).read(["u1"] * 5, ["web|unknown|00"] * 5, at)
    assert rows.history_items == [["a", "b"], [], ["b", "a"], ["a", "b"], ["a", "b"]]
    assert rows.history_times[0].tolist() == [START, START]
    np.testing.assert_array_equal(rows.history_values[0], [4.0, np.nan])
    assert rows.history_types[0].tolist() == [EVENT_CODE["rating"]] * 2
    assert rows.user["user_events"].tolist() == [2, 0, 3, 2, 2]
    assert rows.user["user_value_sum"].tolist() == [4, 0, 9, 4, 4]
    assert rows.user["user_value_count"].tolist() == [1, 0, 2, 1, 1]
    assert rows.user["user_last_time"].tolist() == [START, 0, START + DAY, START, START]
    half_day_ago = 2.0 ** (-DAY / HALF_LIFE)
    assert rows.user["user_decayed"] == pytest.approx([2, 0, 1 + 2 * half_day_ago, 2, 2])
    assert rows.attributes == [{"group": "g1"}] * 5
    assert rows.context["context_events"].tolist() == [0, 0, 3, 0, 3]  # as of the last midnight
    np.testing.assert_allclose(rows.context["hour_sin"], time_features(at)["hour_sin"], atol=1e-12)


def test_online_is_offline_at_the_same_moment(home: Settings) -> None:
    users = ["u2", "u1", "nobody", "u3", "u4", "u1"]
    contexts = ["web|unknown|00", "web|unknown|23", "web|tv|09", "", "web|unknown|01"]
    contexts.append("web|unknown|00")
    at = np.full(6, UNTIL)
    online = OnlineReader(home).read(users, contexts, at)
    assert_equal(online, OfflineReader(home).read(users, contexts, at))
    assert online.history_items[0] == ["a", "c", "d"]
    assert online.context["context_events"][0] == 6


def test_feast_gives_finished_features_as_models_read_them(home: Settings) -> None:
    """The on-demand view of finished features equals `finalize`, online and offline."""
    users = ["u1", "u2", "u3", "nobody"]
    at = np.array([UNTIL + 5, UNTIL + HOUR, UNTIL + 2 * DAY, UNTIL + 1])
    contexts = [context_id(surface="web", device=None, at=int(moment)) for moment in at]
    rows = OnlineReader(home).read(users, contexts, at)
    expected = np.column_stack([finalize_user(rows), finalize_context(rows)])
    assert expected[:3].any(axis=1).all()
    names = [*USER_FEATURES, *CONTEXT_FEATURES]

    store = open_store(home)
    service = store.get_feature_service("request_features_v1")
    entities = {"user_id": users, "context_id": contexts, "request_at": at.tolist()}
    online = store.get_online_features(service, entities).to_dict()
    found = np.column_stack([online[name] for name in names])
    np.testing.assert_allclose(found, expected, rtol=1e-6)

    moments = pd.Series(at.astype("datetime64[us]")).dt.tz_localize("UTC")
    frame = pd.DataFrame(entities | {"event_timestamp": moments})
    offline = store.get_historical_features(frame, service).to_df().set_index("user_id")
    np.testing.assert_allclose(offline.loc[users, names], expected, rtol=1e-6)


def test_an_unknown_user_is_zero(home: Settings) -> None:
    for reader in (OnlineReader(home), OfflineReader(home)):
        rows = reader.read(["nobody"], ["nowhere"], np.array([UNTIL]))
        assert not any(values.any() for values in rows.user.values())
        assert all(len(values) == 1 for values in rows.user.values())
        assert all(rows.context[name].tolist() == [0] for name in CONTEXT_STATE)
        assert (rows.history_items, rows.attributes) == ([[]], [{}])
        assert len(rows.history_times[0]) == len(rows.history_values[0]) == 0
        assert rows.user_as_of.tolist() == [0]
        assert len(reader.read([], [], np.zeros(0, dtype=np.int64))) == 0


def test_a_new_user_has_a_profile_before_any_event(home: Settings) -> None:
    rows = OnlineReader(home).read(["u4"], [""], np.array([UNTIL]))
    assert (rows.attributes, rows.user["user_events"].tolist()) == ([{"group": "g0"}], [0])


def test_online_histories_are_cut_strictly_before_the_request(home: Settings) -> None:
    rows = OnlineReader(home).read(
        ["u1", "u1", "u1"], [""] * 3, np.array([START, START + 1, START + DAY + 6])
    )
    # The stored row contains a later event of `a`, so the second request doesn't see `a`.
    assert rows.history_items == [[], ["b"], ["b", "a", "c"]]
    assert [len(times) for times in rows.history_times] == [0, 1, 3]


def test_asof_joins_answer_as_feasts_own(home: Settings) -> None:
    rng = np.random.default_rng(0)
    at = np.unique(START + rng.integers(-DAY, 4 * DAY, size=60))
    requests = pd.DataFrame(
        {
            "user_id": rng.choice(["u1", "u2", "u3", "nobody"], size=len(at)),
            "context_id": rng.choice(["web|unknown|00", "web|unknown|23"], size=len(at)),
            "event_timestamp": pd.Series(at.astype("datetime64[us]")).dt.tz_localize("UTC"),
        }
    )
    store = open_store(home)
    names = ("user_stats", "user_profile", "context_trend")  # Feast's store supports no event views
    views = [store.get_feature_view(name) for name in names]
    refs = [f"{view.name}:{field.name}" for view in views for field in view.features]
    answers = []
    for kind in (AsofOfflineStore, DuckDBOfflineStore):
        job = kind.get_historical_features(
            store.config, views, refs, requests.copy(), store.registry, store.project
        )
        assert isinstance(job, RetrievalJob)
        columns = [*requests.columns, *(ref.split(":")[1] for ref in refs)]
        table = job.to_arrow().select(columns).sort_by("event_timestamp")
        answers.append([repr(row) for row in table.to_pylist()])
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(at)


def test_the_newest_rows_kept_apart_answer_as_all_rows_do(make_home: MakeHome) -> None:
    """Joins give the same result with and without the files of newest rows in `current`."""
    settings, _ = make_home()
    store = open_store(settings)
    views = {"user_stats": "user_id", "item_state": "item_id", "item_event_groups": "item_id"}
    views |= {
        "user_event_groups": "user_id",
        "user_searches": "user_id",
        "context_trend": "context_id",
    }

    def answers() -> list[list[dict[str, Any]]]:
        found = []
        for name, key in views.items():
            view = store.get_feature_view(name)
            keys = sorted(set(pq.read_table(settings.features / name)[key].to_pylist()))
            # At the last time, some keys have newer rows.
            for moment in (UNTIL, UNTIL - DAY // 4, START + 2 * DAY):
                at = pd.Timestamp(moment, unit="us", tz="UTC")
                asked = pd.DataFrame({key: [*keys, "nobody"], "event_timestamp": at})
                refs = [f"{name}:{field.name}" for field in view.features]
                rows = store.get_historical_features(asked, refs).to_arrow().sort_by(key)
                found.append(rows.to_pylist())
                latest = AsofOfflineStore.pull_latest_from_table_or_query(
                    store.config,
                    view.batch_source,
                    [key],
                    [field.name for field in view.features],
                    "event_timestamp",
                    None,
                    pd.Timestamp(START + DAY, unit="us", tz="UTC"),
                    at,
                )
                found.append(latest.to_arrow().sort_by(key).to_pylist())
        return found

    with duckdb.connect() as connection:
        source = store.get_feature_view("item_state").batch_source
        later = pd.Timestamp(UNTIL, unit="us", tz="UTC")
        read = relation_from(connection, source, store.config, at=later)
        assert "current" in read
        earlier = pd.Timestamp(START, unit="us", tz="UTC")
        read = relation_from(connection, source, store.config, at=earlier)
        assert "current" not in read
    apart = answers()
    shutil.rmtree(settings.features / "current")
    assert answers() == apart
    assert any(apart)


def test_packs_hold_the_states_of_their_tick(home: Settings) -> None:
    ticks = [START + day * DAY for day in range(-1, 4)]
    packs = read_pack_history(home, ticks)
    assert list(packs) == ticks
    vocab = Vocab(["f", "d", "c", "a"])
    empty, _, first, second, third = (packs[tick].align(vocab).state for tick in ticks)
    assert all(not values.any() for values in empty.values())
    assert first["item_events"].tolist() == [0, 0, 0, 0, 2]
    assert first["item_day_counts"][4].tolist() == [0] * 29 + [2]
    assert second["item_events"].tolist() == [0, 0, 0, 2, 3]
    assert second["item_day_counts"][3].tolist() == [0] * 29 + [2]
    assert second["item_last_time"].tolist() == [0, 0, 0, START + 2 * DAY - 1, START + DAY]
    assert third["item_events"].tolist() == [0, 0, 1, 2, 3]
    assert third["item_day_counts"][4].tolist() == [0] * 27 + [2, 1, 0]
    # Counts by event group: f was shown twice and clicked, later hidden, never rated.
    assert first["item_group_counts"].tolist() == [
        [0] * 5,
        [1, 1, 0, 0, 0],
        *[[0] * 5] * 2,
        [1, *[0] * 4],
    ]
    assert third["item_group_counts"][1].tolist() == [2, 1, 0, 0, 1]
    assert third["item_group_last_time"].tolist() == [0, START + 2 * DAY, 0, 0, START + 5]
    gone = [2.0 ** (-after / HALF_LIFE) for after in (2 * DAY - 5, DAY, 2 * DAY - 9)]
    want = [gone[0] + gone[1], gone[2], 0, 0, 1]
    np.testing.assert_allclose(third["item_group_decayed"][1], want, rtol=1e-12)
    newest = read_pack(home, UNTIL)
    published = latest_pack(home.packs)  # has another id, because it contains the catalogue
    assert newest.pack_id == packs[ticks[-1]].pack_id == replace(published, items=None).pack_id
    assert published.pack_id != newest.pack_id
    for name in PACK_STATE:
        np.testing.assert_array_equal(newest.state[name], packs[ticks[-1]].state[name])
        assert newest.state[name].dtype == (np.int64 if name.endswith("_time") else np.float64)


def test_a_tick_is_on_the_grid_of_the_states(home: Settings) -> None:
    """Packs exist only for multiples of the tick length with which states were built."""
    with pytest.raises(PackError, match="not a multiple of the states' tick length"):
        read_pack_history(home, [START, START + DAY // 2])


def test_item_features_change_every_hour_if_the_tick_is_an_hour(make_home: MakeHome) -> None:
    settings, _ = make_home()
    hour = DAY // 24
    result = featurize(settings, ("rating",), until=UNTIL, tick=hour)
    rated = Lake(settings.lake).interactions(event_types=("rating",)).to_pylist()
    known = [(row["item_id"], int(row["event_timestamp"].timestamp() * 1e6)) for row in rated]
    ticks = sorted({(t // hour + add) * hour for _, t in known for add in (0, 1, 2)})
    packs = read_pack_history(settings, [tick for tick in ticks if tick <= UNTIL])
    for tick, pack in packs.items():
        state = pack.align(Vocab(["a", "c", "d"])).state
        for row, item in enumerate(("a", "c", "d"), start=1):
            times = [t for one, t in known if one == item and t < tick]
            assert state["item_events"][row] == len(times)
            newest = [t for t in times if t >= tick - DAY]
            share = ((tick - 1) % DAY + 1) / DAY
            today = sum((t // DAY) == (tick - 1) // DAY for t in times)
            yesterday = sum((t // DAY) == (tick - 1) // DAY - 1 for t in times)
            counted = state["item_day_counts"][row]
            assert counted[-1] == pytest.approx(today + (1 - share) * yesterday)
            assert today <= len(newest) <= today + yesterday
    assert any(tick % DAY and pack.state["item_events"].any() for tick, pack in packs.items())
    assert read_pack(settings, UNTIL).as_of == result["as_of"] == UNTIL // hour * hour


def test_a_posted_event_changes_the_next_read(make_home: MakeHome) -> None:
    settings, _ = make_home()
    reader, tail = OnlineReader(settings), Tail.of(settings)

    def read() -> RequestRows:
        return reader.read(["u4", "u1"], ["web|unknown|00"] * 2, np.full(2, UNTIL + DAY))

    def posted(event_id: str, user: str, item: str, at: int, kind: str, **more: Any) -> list:
        event = {"event_id": event_id, "user_id": user, "item_id": item, "event_type": kind}
        return tail.insert([event | {"event_timestamp": at, "received_at": at} | more])

    before = read()
    assert len(posted("p1", "u4", "a", UNTIL, "rating", value=1.0)) == 1
    assert len(posted("p2", "u1", "e", UNTIL + 7, "rating", value=1.0)) == 1
    assert len(posted("p3", "u4", "a", UNTIL, "view")) == 1
    assert len(posted("p4", "u4", "a", UNTIL, "survey")) == 1  # affects no state
    assert len(posted("p5", "u4", "a", UNTIL, "search", query="a")) == 1
    # An empty query affects no state either.
    assert len(posted("p6", "u4", "a", UNTIL, "search", query="")) == 1
    assert posted("p1", "u4", "a", UNTIL, "rating", value=1.0) == []  # a repeated post
    pushed = read()
    assert before.history_items == [[], ["b", "a", "c", "d"]]
    assert pushed.history_items == [["a"], ["b", "a", "c", "d", "e"]]
    assert pushed.user["user_events"].tolist() == [1, 6]
    assert before.user["user_group_counts"].tolist() == [[0] * 5, [2, 1, 0, 0, 0]]
    assert pushed.user["user_group_counts"].tolist() == [[0, 1, 0, 0, 0], [2, 1, 0, 0, 0]]
    assert before.searches[0] == NO_SEARCHES
    assert pushed.searches[0] == Searches(("a",), (UNTIL,), 1)
    assert pushed.searches[1] == before.searches[1]
    assert pushed.user_as_of.tolist() == [UNTIL, UNTIL + 7]
    assert pushed.attributes == before.attributes

    # A request at an earlier time doesn't see the events.
    earlier = reader.read(["u4"], [""], np.array([UNTIL]))
    assert (earlier.history_items, earlier.user["user_events"].tolist()) == ([[]], [0])

    # The lake contains the same four events. After featurize, the base rows give the same values,
    # and the tail is empty. A repeated post still counts once.
    featurize(settings, ("rating",), until=UNTIL + DAY // 2)
    assert tail.read(["u4", "u1"]) == {}
    assert_equal(read(), pushed)
    assert posted("p2", "u1", "e", UNTIL + 7, "rating", value=1.0) == []
    assert_equal(read(), pushed)

    # Two events of one microsecond, posted one by one.
    late = UNTIL + DAY // 2 + 1
    for item in ("x", "y"):
        posted(f"u9-{item}", "u9", item, late, "rating")
    rows = reader.read(["u9"], [""], np.array([late + 1]))
    assert (rows.history_items, rows.user["user_events"].tolist()) == ([["x", "y"]], [2])
    assert rows.user["user_value_count"].tolist() == [0]


def test_states_built_without_an_event_of_the_tail_leave_it_there(make_home: MakeHome) -> None:
    """Featurize keeps events in the tail that are later than its `until`."""
    settings, _ = make_home()
    reader, tail = OnlineReader(settings), Tail.of(settings)
    event = {"event_id": "p1", "user_id": "u1", "item_id": "z", "event_type": "rating"}
    tail.insert([event | {"event_timestamp": UNTIL + DAY // 24, "received_at": UNTIL + DAY // 24}])
    featurize(settings, ("rating",), until=UNTIL + DAY // 24 - 1)
    rows = reader.read(["u1"], [""], np.array([UNTIL + DAY]))
    assert rows.history_items == [["b", "a", "c", "d", "e", "z"]]
    assert rows.user["user_events"].tolist() == [7]


def test_reads_go_on_while_a_batch_is_written(home: Settings) -> None:
    path = home.feast / "online_store.db"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader = OnlineReader(home)
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM shortlist_user_stats")
        rows = reader.read(["u1"], [""], np.array([UNTIL]))
        connection.execute("ROLLBACK")
    assert rows.user["user_events"].tolist() == [5]


def test_who_left_the_lake_and_what_came_later_leave_the_online_store(make_home: MakeHome) -> None:
    """After featurize, the online store has no removed users and no rows later than `until`."""
    settings, _ = make_home()
    early, context = START + DAY, "web|unknown|23"  # the context's first event is a day later
    at = np.full(2, early)
    known = OnlineReader(settings).read(["u4", "u1"], [context] * 2, at)
    assert known.attributes == [{"group": "g0"}, {"group": "g1"}]
    assert known.context["context_events"].tolist() == [1, 1]

    path = settings.lake / "current" / "users.parquet"
    users = pq.read_table(path)
    pq.write_table(users.filter(pc.not_equal(users["user_id"], "u4")), path)
    featurize(settings, ("rating",), until=early)
    for reader in (OnlineReader(settings), OfflineReader(settings)):
        rows = reader.read(["u4", "u1"], [context] * 2, at)
        assert rows.attributes == [{}, {"group": "g1"}]
        assert rows.context["context_events"].tolist() == [0, 0]


def test_before_the_first_midnight_the_pack_is_empty(make_home: MakeHome) -> None:
    settings, _ = make_home()
    result = featurize(settings, ("rating",), until=START + DAY // 2)
    assert (result["rows"]["item_state"], result["rows"]["user_stats"]) == (0, 2)
    pack = latest_pack(settings.packs)
    assert (pack.as_of, pack.item_ids) == (START, [])
    aligned = pack.align(Vocab(["a", "b"])).state
    assert aligned["item_day_counts"].shape == (3, 30)
    assert not any(values.any() for values in aligned.values())
    shutil.rmtree(settings.features / "user_stats")
    with pytest.raises(FeatureStoreError, match=r"no user states; run `shortlist refresh`"):
        OfflineReader(settings)


def test_a_missing_online_store_says_what_makes_it(make_home: MakeHome) -> None:
    settings, _ = make_home()
    (settings.feast / "online_store.db").unlink()
    with pytest.raises(FeatureStoreError, match=r"no online store; run `shortlist refresh`"):
        OnlineReader(settings)
    (settings.feast / "registry.db").unlink()
    with pytest.raises(FeatureStoreError, match=r"no feature registry; run `shortlist refresh`"):
        OfflineReader(settings)
