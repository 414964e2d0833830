"""A window without a relevant item gives an error with the window and the setting to change."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.replay import Traffic
from flows.runtime.configuration import RunConfig
from flows.training.assemble import RunData
from flows.training.judgeable import require_judgeable
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import intra_list_diversity
from shortlist.splits import SplitError, split_windows

START = 19_000 * DAY
CONFIG: dict[str, Any] = {
    "name": "small",
    "data": {"source": "simulated", "target_events": ["purchase"]},
    "train": {"sources": [{"kind": "popularity"}], "rankers": []},
}
Event = tuple[str, str, int]


def world_of(events: list[Event], *, off_the_shelf: frozenset[str] = frozenset()) -> RunData:
    """Return a run's data with these purchases (user, item, microseconds after START)."""
    n = len(events)
    time = np.array([START + after for _, _, after in events], dtype=np.int64)
    stamps = pa.array(time, pa.int64()).cast(TIMESTAMP)
    columns = {
        "event_id": [f"e{i}" for i in range(n)],
        "user_id": [user for user, _, _ in events],
        "item_id": [item for _, item, _ in events],
        "event_type": ["purchase"] * n,
        "event_timestamp": stamps,
        "event_order": range(n),
        "ingested_at": stamps,
        "source": ["test"] * n,
    }
    interactions = pa.table(
        [pa.array(columns.get(field.name, [None] * n), field.type) for field in INTERACTIONS],
        schema=INTERACTIONS,
    )
    items = [
        {"item_id": item, "categories": [], "available": item not in off_the_shelf}
        for item in sorted({item for _, item, _ in events if item != "not in the catalogue"})
    ]
    return RunData(
        interactions=interactions,
        asked=time,
        users=USERS.empty_table(),
        catalogue=Catalogue.from_items(pa.Table.from_pylist(items, schema=ITEMS)),
        windows=split_windows(time, (0.7, 0.1, 0.1, 0.1)),
    )


def refusal(run_data: RunData, **data: Any) -> str | None:
    try:
        require_judgeable(
            run_data, RunConfig.model_validate(CONFIG | {"data": CONFIG["data"] | data})
        )
    except SplitError as error:
        return str(error)
    return None


NEW_ALL_ALONG = [(f"u{i % 5}", f"i{i // 5}", i * DAY // 4) for i in range(100)]
CAFE = [(f"u{i % 8}", f"drink{i % 3}", i * DAY // 4) for i in range(240)]


def test_a_log_in_which_people_choose_new_things_can_be_judged() -> None:
    assert refusal(world_of(NEW_ALL_ALONG)) is None


@pytest.mark.parametrize(
    ("window", "first"), [("ranker_train", 70), ("validation", 80), ("test", 90)]
)
def test_repeats_only_in_one_window(window: str, first: int) -> None:
    """All ten purchases in the window repeat an item; those outside are new."""
    events = list(NEW_ALL_ALONG)
    for place in range(first, first + 10):
        user, _, after = events[place]
        events[place] = (user, "i0", after)
    said = refusal(world_of(events))
    assert said is not None
    assert re.fullmatch(
        rf"window '{window}' \(.* UTC to .* UTC, 10 target events\) can't be judged: nobody chooses"
        r" anything new in it\. Give it a larger share in \[split\] fractions; or set \[data\]"
        r' repeats = "allow" if people come back for the same',
        said,
    )


def test_people_who_come_back_for_the_same() -> None:
    """Data in which users only repeat items are refused under `repeats = "exclude"`."""
    run_data = world_of(CAFE)
    assert "'ranker_train'" in (refusal(run_data) or "")


@pytest.mark.parametrize("users", [1, 2])
def test_a_single_user(users: int) -> None:
    one = [(f"u{i % users}", f"i{i}", i * DAY) for i in range(40)]
    assert refusal(world_of(one)) is None
    again = [(f"u{i % users}", f"i{i % 4}", i * DAY) for i in range(40)]
    assert "nobody chooses anything new" in (refusal(world_of(again)) or "")


def test_nothing_that_was_chosen_can_be_shown() -> None:
    """A window is refused if its items are not in the catalogue or not available."""
    elsewhere = [
        (user, "not in the catalogue" if i >= 70 else item, after)
        for i, (user, item, after) in enumerate(NEW_ALL_ALONG)
    ]
    said = refusal(world_of(elsewhere)) or ""
    assert "none of the 1 items that people choose in it is in the catalogue and available" in said
    assert said.endswith("Do the ids of log and catalogue agree?")
    gone = frozenset(item for _, item, _ in NEW_ALL_ALONG)
    assert "it has 0 such items" in (refusal(world_of(NEW_ALL_ALONG, off_the_shelf=gone)) or "")


def test_too_few_events_for_the_windows() -> None:
    with pytest.raises(SplitError, match=r"window '.*' is empty: 4 events .* want more events, or"):
        world_of(NEW_ALL_ALONG[:4])


def test_diversity_without_categories_is_no_figure() -> None:
    lists = np.array([[1, 2, 3], [3, 2, 1]])
    assert np.isnan(intra_list_diversity(lists, np.zeros((4, 0)))).all()
    assert intra_list_diversity(lists, np.eye(4)).tolist() == [1, 1]


def test_a_replay_without_requests_has_no_latency() -> None:
    traffic = Traffic(None, None, None, connections=1, k=10)  # pyright: ignore[reportArgumentType]
    result = traffic.result()
    assert (result["requests"], result["events"]) == (0, 0)
    assert np.isnan(result["p50_ms"])


@pytest.mark.parametrize(
    ("rating", "written"), [(1, None), (5, None), (10, "rating_range = [1, 10]"), (0, "[0, 5]")]
)
def test_equal_ratings_are_neither_likes_nor_a_range(
    tmp_path: Path, rating: int, written: str | None
) -> None:
    from cli.guessing.guess import guess

    lines = [f"u{i},i{i % 7},{rating},{1_700_000_000 + i * 60}" for i in range(40)]
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(lines) + "\n")
    found = guess(str(log), items=None, users=None, columns={}, event_type=None, name=None)
    assert "like_threshold" not in found["toml"]
    assert ("rating_range" in found["toml"]) == (written is not None)
    assert (written or "") in found["toml"]
    assert any(f"every rating is {rating}" in note for note in found["notes"])
    assert "liked" not in found["said"]
    json.dumps(found["summary"])
