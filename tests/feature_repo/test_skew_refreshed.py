"""Skew of responses during a refresh, whose base rows lack the events that the refresh adds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.skew.states import Lag, Logged, states_as_logged
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.contracts import INTERACTIONS, TIMESTAMP
from shortlist.feature_store import build_states
from shortlist.feature_store.online.fold import USER_VIEWS, fold
from shortlist.features.finalize import RequestRows
from shortlist.lake import Lake
from shortlist.ticks import DAILY
from tests.feature_repo.posted import ITEMS_HERE, PEOPLE, START, batch_rows

CUT = START + 3 * HOUR
"""`until` of the refresh that ingests the impressions."""
BEFORE, DURING, AFTER = CUT - 1, CUT + 100, CUT + 200
EVENTS = [  # item, event type, time, arrival, source
    ("i001", "rating", START, START, "service:1.jsonl"),
    ("i004", "hide", START + 1, START + 1, "service:1.jsonl"),
    ("i002", "impression", START + HOUR, CUT, "serving_log"),
    ("i003", "impression", START + HOUR, CUT, "serving_log"),
    ("i002", "click", CUT + 10, CUT + 10, "service:1.jsonl"),
]


class States:
    """A reader of the batch states in a folder, without Feast."""

    def __init__(self, folder: Path, files: list[Path], *, until: int):
        self.folder = folder
        build_states(files, PEOPLE, folder=folder, target_events=("rating",), until=until)

    def read(self, user_ids: list[str], _: list[str], at: np.ndarray) -> RequestRows:
        return batch_rows(self.folder, list(zip(user_ids, at.tolist(), strict=True)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    n = len(EVENTS)
    item, kind, time, arrival, source = zip(*EVENTS, strict=True)
    columns = {
        **{"event_id": [str(i) for i in range(n)], "user_id": ["u"] * n, "event_order": range(n)},
        **{"item_id": item, "event_type": kind, "source": source},
        "event_timestamp": pa.array(time, pa.int64()).cast(TIMESTAMP),
        "ingested_at": pa.array(arrival, pa.int64()).cast(TIMESTAMP),
    }
    table = pa.table(
        [pa.array(columns.get(f.name, [None] * n), f.type) for f in INTERACTIONS],
        schema=INTERACTIONS,
    )
    lake = Lake(tmp_path_factory.mktemp("home") / "lake")
    lake.publish("all", table, ITEMS_HERE, PEOPLE)
    return lake.interaction_files()


@pytest.fixture(scope="module")
def lake_states(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> States:
    return States(tmp_path_factory.mktemp("all") / "features", files, until=AFTER + 1)


def served(base: States, at: int, *, tail: list[int]) -> tuple[RequestRows, dict[str, int]]:
    """Return the state that the service reads at `at`, and the stamps of its base rows.

    Args:
        tail: indices in EVENTS of the events in the tail.
    """
    stamps = {"user_stats": START + 1, "user_event_groups": START + 2}
    if base.read(["u"], [""], np.array([at])).user["user_group_counts"][0].sum() > 1:
        stamps["user_event_groups"] = CUT
    rows = base.read(["u"], [""], np.array([CUT]))
    rows = RequestRows(**vars(rows) | {"at": np.array([at])})
    posted = [
        {
            **{"user_id": "u", "item_id": EVENTS[i][0], "event_type": EVENTS[i][1]},
            **{"event_timestamp": EVENTS[i][2], "known": EVENTS[i][2] + 1},
        }
        for i in tail
    ]
    by_view = {view: np.array([stamps.get(view, START + 2)]) for view in USER_VIEWS}
    return fold(rows, by_view, tails={"u": posted}, target_events=frozenset(["rating"])), stamps


def judged(
    rows: RequestRows, stamps: dict[str, int], states: States, files: list[Path]
) -> tuple[RequestRows, Lag]:
    """Recompute the state of a response; return it and the lag of its `user_event_groups`."""
    logged = Logged(
        **{"request_id": "r", "user_id": "u", "context_id": "", "clock": "wall"},
        **{"pack_as_of": 0, "item_ids": [], "features": np.zeros((0, 0))},
        at=int(rows.at[0]),
        as_of={view: int(times[0]) for view, times in rows.as_of.items()},
        stamps=stamps,
    )
    found, lags = states_as_logged(
        [logged], states, snapshots=states.folder, tick=DAILY, events=files
    )
    return found, lags["user_event_groups"]


@pytest.mark.parametrize("tail", [[], [4]])
def test_an_answer_during_a_refresh_is_what_its_base_row_and_the_tail_give(
    files: list[Path], lake_states: States, tmp_path: Path, tail: list[int]
) -> None:
    at = DURING if tail else CUT + 5
    base = States(tmp_path / "features", files, until=BEFORE)
    rows, stamps = served(base, at, tail=tail)
    assert rows.user["user_group_counts"][0].sum() == 1 + len(tail)
    found, lag = judged(rows, stamps, lake_states, files)
    assert (lag.seconds.tolist(), lag.unreachable) == ([0.0], 0)
    for name in ("user_group_counts", "user_group_decayed", "user_events"):
        np.testing.assert_array_equal(found.user[name], rows.user[name], err_msg=name)
    # Logs of older versions have no stamps, so the check can't see that the refresh was running.
    found, lag = judged(rows, {}, lake_states, files)
    assert found.user["user_group_counts"][0].sum() > 1 + len(tail) or lag.seconds[0] > 0


def test_a_posted_event_that_was_not_in_the_answer_is_still_found(
    files: list[Path], lake_states: States, tmp_path: Path
) -> None:
    """A response during a refresh that lacks an event of the tail is reported as stale."""
    base = States(tmp_path / "features", files, until=BEFORE)
    rows, stamps = served(base, DURING, tail=[])
    _, lag = judged(rows, stamps, lake_states, files)
    assert lag.seconds[0] > 0


def test_after_the_refresh_the_answer_has_to_hold_what_it_brought(
    files: list[Path], lake_states: States, tmp_path: Path
) -> None:
    """After a refresh, responses without the events that it added are stale."""
    base = States(tmp_path / "features", files, until=CUT + 1)
    rows, stamps = served(base, AFTER, tail=[4])
    assert (rows.user["user_group_counts"][0].sum(), stamps["user_event_groups"]) == (4.0, CUT)
    found, lag = judged(rows, stamps, lake_states, files)
    assert lag.seconds.tolist() == [0.0]
    np.testing.assert_array_equal(found.user["user_group_counts"], rows.user["user_group_counts"])
    without = States(tmp_path / "before", files, until=BEFORE)
    rows, _ = served(without, AFTER, tail=[])
    _, lag = judged(rows, stamps, lake_states, files)
    assert lag.seconds[0] > 0
