"""hold_back: a demo's newest events stay out of the lake until the replay sends them."""

import json

import pytest
from pydantic import ValidationError

from shortlist import columns as c
from shortlist.datasets import DataConfig, DatasetError
from shortlist.datasets.hold_back import held_back_events
from tests.flows.conftest import DAY, GOOD_EVENTS, START, House, event, item

DEMO = {"clock": "replay", "hold_back": 0.25}


def ids(table) -> list[str]:
    return table.column(c.EVENT_ID).to_pylist()


def test_the_newest_share_of_the_target_events_is_held_back(house: House) -> None:
    views = [event(100 + i, event_type="view", event_timestamp=START + i * DAY) for i in (3, 17)]
    done = house.validate([*GOOD_EVENTS, *views], **DEMO)
    # 20 ratings: the cut is at the 16th, and the view of that time or later goes with them.
    assert (done["read"], done["accepted"]) == (16, 16)
    assert set(ids(house.lake.interactions())) == {*(f"e{i}" for i in range(15)), "e103"}
    held = held_back_events(house.settings, since=0)
    assert ids(held) == ["e15", "e16", "e17", "e117", "e18", "e19"]
    assert ids(held_back_events(house.settings, since=START + 18 * DAY)) == ["e18", "e19"]


def test_later_batches_are_cut_at_the_same_time(house: House) -> None:
    house.validate(**DEMO)
    cut = json.loads((house.settings.held_back / "cut.json").read_text())["cut"]
    assert cut == START + 15 * DAY
    more = [event(50, event_timestamp=START + 2 * DAY), event(51, event_timestamp=START + 30 * DAY)]
    house.validate([*GOOD_EVENTS, *more], **DEMO)
    assert "e50" in ids(house.lake.interactions())
    assert house.lake.manifest.latest is not None
    assert house.lake.manifest.latest < cut
    # the file has grown and was read again as a whole: an event is held back once
    held = ids(held_back_events(house.settings, since=0))
    assert held == ["e15", "e16", "e17", "e18", "e19", "e51"]
    assert json.loads((house.settings.held_back / "cut.json").read_text())["cut"] == cut


def test_a_row_with_a_fault_goes_to_quarantine_and_is_not_held_back(house: House) -> None:
    bad = event(60, event_timestamp=START + 40 * DAY, value="many")
    done = house.validate([*GOOD_EVENTS, bad], **DEMO)
    assert done["quarantined"] == 1
    assert "e60" not in ids(held_back_events(house.settings, since=0))


def test_what_the_lake_has_already_is_not_held_back(house: House) -> None:
    house.validate(clock="replay")
    more = [event(70 + i, event_timestamp=START + (30 + i) * DAY) for i in range(4)]
    house.validate([*GOOD_EVENTS, *more], **DEMO)
    assert len(house.lake.interactions()) == 24
    assert not house.settings.held_back.exists()


def test_a_cut_that_would_leave_nothing_is_an_error(house: House) -> None:
    same = [event(i, event_timestamp=START) for i in range(8)]
    with pytest.raises(DatasetError, match=r"hold_back = 0\.25: 8 target events are too few"):
        house.stage(same, [item(i) for i in range(5)], **DEMO)


def test_a_deployment_with_users_holds_nothing_back() -> None:
    with pytest.raises(ValidationError, match='hold_back needs clock = "replay"'):
        DataConfig.model_validate({"source": "movielens-100k", "hold_back": 0.05})
