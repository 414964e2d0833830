"""`hold_back`: the newest events of a demo stay out of the lake until the replay sends them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from flows.validate import ValidationFailed, summary_lines
from shortlist import columns as c
from shortlist.datasets import DataConfig
from shortlist.validation.hold_back import held_back_events
from tests.flows.conftest import DAY, GOOD_EVENTS, START, House, event, item

DEMO = {"clock": "replay", "hold_back": 0.25}


def ids(table) -> list[str]:
    return table.column(c.EVENT_ID).to_pylist()


def test_the_newest_share_of_the_target_events_is_held_back(house: House) -> None:
    views = [event(100 + i, event_type="view", event_timestamp=START + i * DAY) for i in (3, 17)]
    done = house.validate([*GOOD_EVENTS, *views], **DEMO)
    # The cut is at the 16th of 20 ratings. Events of other types after it are held back too.
    assert (done["read"], done["accepted"], done["held_back"]) == (22, 16, 6)
    assert summary_lines(done)[0].endswith(" 0 applied + 6 held back")
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
    # The grown file was read again from the start, but each event is held back only once.
    held = ids(held_back_events(house.settings, since=0))
    assert held == ["e15", "e16", "e17", "e18", "e19", "e51"]
    assert json.loads((house.settings.held_back / "cut.json").read_text())["cut"] == cut


def test_rows_that_break_a_rule_go_to_quarantine_and_are_not_held_back(house: House) -> None:
    broken: dict[str, dict[str, Any]] = {
        "value.number": {"value": "many"},
        "user_id.required": {"user_id": None},
        "item_id.required": {"item_id": None},
        "value.rating_range": {"value": 9.0},
        "event_timestamp.range": {"event_timestamp": 4_070_908_800_000_000},  # in 2099
    }
    bad = [
        event(60 + i, **({"event_timestamp": START + 40 * DAY} | changes))
        for i, changes in enumerate([*broken.values()] * 3)
    ]
    done = house.validate([*GOOD_EVENTS, *bad], **DEMO)
    assert (done["quarantined"], done["held_back"]) == (15, 5)
    assert set(house.reasons("interactions").values()) == set(broken)
    # Bad rows don't affect the cut.
    held = ids(held_back_events(house.settings, since=0))
    assert held == ["e15", "e16", "e17", "e18", "e19"]


def test_a_refused_batch_decides_no_cut(house: House) -> None:
    """A batch that validation refuses doesn't set the cut."""
    bad = [event(60 + i, value="many") for i in range(40)]
    with pytest.raises(ValidationFailed, match="rows are bad"):
        house.validate([*GOOD_EVENTS, *bad], **DEMO)
    assert not house.settings.held_back.exists()


def test_what_the_lake_has_already_is_not_held_back(house: House) -> None:
    house.validate(clock="replay")
    more = [event(70 + i, event_timestamp=START + (30 + i) * DAY) for i in range(4)]
    house.validate([*GOOD_EVENTS, *more], **DEMO)
    assert len(house.lake.interactions()) == 24
    assert not house.settings.held_back.exists()


def test_a_cut_that_would_leave_nothing_is_an_error(house: House) -> None:
    same = [event(i, event_timestamp=START) for i in range(8)]
    with pytest.raises(ValidationFailed, match=r"hold_back = 0\.25: 8 target events are too few"):
        house.validate(same, [item(i) for i in range(5)], **DEMO)


def test_a_deployment_with_users_holds_nothing_back() -> None:
    with pytest.raises(ValidationError, match='hold_back needs clock = "replay"'):
        DataConfig.model_validate({"source": "movielens-100k", "hold_back": 0.05})
