"""Events of the past don't bring a forgotten person back, whatever file they come from."""

from shortlist.forgetting.from_lake import remove_from_lake
from shortlist.forgetting.register import Register
from tests.flows.conftest import DAY, GOOD_EVENTS, START, House, event

ASKED = START + 10 * DAY


def forget(house: House, user_id: str) -> int:
    Register(house.settings.forgotten).add(user_id, ASKED)
    return remove_from_lake(house.settings.lake, {user_id: ASKED})


def of_user(house: House, user_id: str) -> list[str]:
    rows = house.lake.interactions().select(["event_id", "user_id"]).to_pylist()
    return [row["event_id"] for row in rows if row["user_id"] == user_id]


def test_a_file_that_is_read_again_adds_only_later_events(house: House) -> None:
    house.validate(GOOD_EVENTS)
    assert of_user(house, "u1") == ["e1", "e5", "e9", "e13", "e17"]
    assert forget(house, "u1") == 3
    assert of_user(house, "u1") == ["e13", "e17"]
    late = event(8, event_id="late", user_id="u1")  # of the past, though it comes only now
    new = event(21, user_id="u1")
    bad = event(3, event_id="bad", user_id="u1", value=99.0)
    result = house.validate([*GOOD_EVENTS, late, new, bad])
    assert (result["excluded"], result["quarantined"], result["accepted"]) == (5, 0, 1)
    assert of_user(house, "u1") == ["e13", "e17", "e21"]
    assert "u1" in house.lake.users().column("user_id").to_pylist()


def test_a_users_file_does_not_bring_a_forgotten_user_back(house: House) -> None:
    house.validate([event(i) for i in range(8)])
    assert forget(house, "u1") == 3  # two events and the user
    assert "u1" not in house.lake.users().column("user_id").to_pylist()
    house.validate([event(22, user_id="u2")])
    assert house.lake.users().column("user_id").to_pylist() == ["u0", "u2", "u3"]


def test_others_and_an_empty_register_are_not_affected(house: House) -> None:
    assert house.validate(GOOD_EVENTS)["excluded"] == 0
    assert forget(house, "nobody") == 0
    again = house.validate([*GOOD_EVENTS, event(21)])
    assert (again["excluded"], again["accepted"], again["duplicates"]) == (0, 1, 20)
