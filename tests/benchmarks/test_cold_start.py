"""Parts of `shortlist bench cold_start`: requests, states, cut histories, figures, data sets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.cold.figures import figures_of, first_values, over_seeds, paired, warm_values
from benchmarks.cold.judge import FULL, Lists
from benchmarks.cold.log import Log, hidden_items, load_log, without_items
from benchmarks.cold.requests import CutReader, Request, StoreTimeline, requests_of
from flows.closed_loop.memory import MemoryStore, Targets
from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import ConfigError
from shortlist.contracts import ITEMS, check

USERS = ["a", "b"]


def targets(*rows: tuple[int, int, int]) -> Targets:
    """Return events (user, item, time in days)."""
    user, item, time = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    n = len(rows)
    return Targets(user, item, time * DAY, np.full(n, 4.0), np.full(n, 7), np.full(n, ""))


def log_of(events: Targets, *, edges=(2, 4), num_items: int = 10) -> Log:
    table = pa.table(
        {
            c.ITEM_ID: [f"i{i}" for i in range(num_items)],
            c.CATEGORIES: pa.array([[]] * num_items, pa.list_(pa.string())),
            c.AVAILABLE: [True] * num_items,
        }
    )
    items = check(table, ITEMS, where="test")
    first, second = edges
    return Log("test", items, USERS, {"a": {}, "b": {}}, events, (first * DAY, second * DAY))


LOG = log_of(
    targets((0, 0, 1), (1, 1, 1), (0, 2, 3), (0, 3, 4), (1, 4, 4), (1, 5, 4), (0, 2, 6), (0, 6, 6))
)


def test_a_request_is_a_day_of_a_user_and_repeats_are_not_relevant():
    rng = np.random.default_rng(0)
    found = requests_of(LOG, (4 * DAY, 9 * DAY), rng=rng, most=9)
    assert [(r.user, r.at // DAY, r.relevant.tolist(), r.consumed.tolist()) for r in found] == [
        (0, 4, [3], [0, 2]),
        (1, 4, [4, 5], [1]),
        (0, 6, [6], [0, 2, 3]),
    ]
    assert len({r.user for r in requests_of(LOG, (4 * DAY, 9 * DAY), rng=rng, most=1)}) == 1


def test_states_at_a_time_equal_those_of_pushed_events():
    once = targets((0, 0, 1), (0, 1, 2), (1, 1, 3), (0, 0, 4), (0, 5, 5))
    walk = StoreTimeline.start(LOG, once, at=9 * DAY)
    pushed = MemoryStore(LOG.user_ids, LOG.item_ids, LOG.attributes)
    pushed.push(once)
    for user_id in USERS:
        one, other = vars(walk.store.users[user_id]), vars(pushed.users[user_id])
        for name, value in other.items():
            assert one[name] == pytest.approx(value), name


def test_a_cut_history_has_the_newest_events_and_their_counts_only():
    reader = CutReader(StoreTimeline.start(LOG, LOG.events, at=9 * DAY).store, events=2)
    rows = reader.read(["a", "nobody"], ["", ""], np.array([9 * DAY] * 2))
    assert rows.history_items == [["i2", "i6"], []]
    assert rows.user["user_events"].tolist() == [2, 0]
    reader.events = None
    assert reader.read(["a"], [""], np.array([9 * DAY])).user["user_events"].tolist() == [5]


def test_a_walk_gives_each_request_the_events_before_it():
    walk = StoreTimeline.start(LOG, LOG.events, at=4 * DAY)
    seen = []
    requests = requests_of(LOG, (4 * DAY, 9 * DAY), rng=np.random.default_rng(0), most=9)
    walk.run(
        requests,
        on_day=lambda pack: seen.append(pack.state["item_events"].sum()),
        on_request=lambda request: seen.append(
            walk.store.read([USERS[request.user]], [""], np.array([request.at])).history_items[0]
        ),
    )
    assert seen == [3, ["i0", "i2"], ["i1"], 6, ["i0", "i2", "i3"]]


def test_hidden_items_are_in_no_catalogue_and_have_no_event():
    hidden = hidden_items(LOG, share=0.3, rng=np.random.default_rng(1))
    catalogue, rows = without_items(LOG, hidden)
    assert hidden.sum() == 3
    assert catalogue.num_items == 7
    assert not hidden[LOG.events.item[rows]].any()


def test_figures_of_cold_and_warm_items():
    hidden = np.zeros(10, dtype=bool)
    hidden[[8, 9]] = True
    lists = Lists(
        requests=[
            Request(0, 0, np.array([8, 1]), np.array([])),
            Request(1, 0, np.array([9]), np.array([])),
        ],
        known_events=[3, 0],
        cut=[0, 1],
    )
    for cut in (FULL, "0", "1", "3", "5"):
        lists.of[cut, "chain"] = [np.array([8, 0, 1]), np.array([2, 9])]
    figures = figures_of(lists, hidden, ["chain"])
    assert figures["cold"]["recall@50"]["chain"] == 1
    assert figures["warm"]["ndcg@10"]["chain"] == pytest.approx(1 / np.log2(4))
    assert figures["cold"]["ndcg@10"]["chain"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    shown = figures["impressions"]["chain"]
    assert shown["impression_share"] == pytest.approx(2 / 5)
    assert shown["relevance_share"] == pytest.approx(2 / 3)
    assert shown["ratio"] == pytest.approx(3 / 5)
    assert figures["first_visits"] == {"chain": pytest.approx(1 / np.log2(3)), "users": 1}
    assert warm_values(lists, hidden, "chain") == {"0": pytest.approx(0.5)}
    assert set(first_values(lists, "chain", "0")) == {"0", "1"}


def test_seeds_give_mean_and_deviation_and_a_relative_difference():
    assert over_seeds([{"x": 1.0}, {"x": 3.0}]) == {"x": {"mean": 2.0, "std": 1.0}}
    one = [{str(u): 0.9 for u in range(9)}]
    other = [{str(u): 1.0 for u in range(9)}]
    assert paired(one, other)["mean"] == pytest.approx(-0.1)
    assert paired(one, other)["low"] == pytest.approx(-0.1)


def test_the_last_event_of_each_user_is_the_test_window_of_ml_1m(tmp_path):
    columns = {"user_id": [5, 5, 5, 7, 7], "movie_id": [1, 2, 3, 3, 1], "rating": [4] * 5}
    pq.write_table(
        pa.table(columns | {"pos": [0, 1, 2, 0, 1]}), tmp_path / "ml1m_sequences.parquet"
    )
    pq.write_table(
        pa.table(
            {
                "movie_id": [1, 2, 3, 4],
                "Title": ["A (1990)", "B (1991)", "C (1992)", "D (1993)"],
                "Genres": ["Drama|War", "Comedy", "", "Drama"],
                "Year": [1990, 1991, None, 1993],
                "overview": ["a", None, "c", "d"],
                "director": ["x", None, "z", "x"],
                "actors": ["p|q", "", None, "p"],
                "original_language": ["English"] * 4,
            }
        ),
        tmp_path / "movies_text.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "userID": [5, 7],
                "gender": ["F", "M"],
                "age": [25, 35],
                "occupation": ["1", "2"],
            }
        ),
        tmp_path / "users.parquet",
    )
    log = load_log("ml-1m", tmp_path)
    events, test = log.events, log.edges[1]
    assert log.item_ids == ["1", "2", "3"]
    assert events.item[events.time >= test].tolist() == [2, 0]
    assert events.item[(events.time >= log.edges[0]) & (events.time < test)].tolist() == [1, 2]
    assert log.attributes["5"] == {"gender": "F", "age": "25", "occupation": "1"}
    texts = log.items.column(c.DESCRIPTION).to_pylist()
    assert texts == ["x. p, q. a", "", "z. c"]


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"want the folder with ml1m_sequences\.parquet"):
        load_log("ml-1m", tmp_path)
    with pytest.raises(ConfigError, match="want it without --path"):
        load_log("shop", tmp_path)
