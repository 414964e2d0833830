"""Error messages for invalid request bodies of the HTTP API."""

import pytest
from pydantic import ValidationError

from shortlist.http.api import Event, EventsRequest, RecommendRequest


def test_a_request_needs_somebody():
    """A recommendation request without a user and without recent items is refused."""
    with pytest.raises(ValidationError, match="give user_id, or recent_items"):
        RecommendRequest.model_validate({"k": 5})
    assert RecommendRequest.model_validate({"recent_items": []}).user_id is None


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"user_id": "u", "k": 0}, "k"),
        ({"user_id": "u", "k": 10**9}, "k"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 196}, "user_id"),
        ({"user_id": "u", "kk": 3}, "kk"),
        ({"user_id": "u", "filters": {"max_price": -1}}, "max_price"),
    ],
)
def test_bad_requests_name_the_key(body, key):
    with pytest.raises(ValidationError) as error:
        RecommendRequest.model_validate(body)
    assert key in error.value.errors()[0]["loc"]


def test_an_event_of_an_unknown_type_says_which_there_are():
    """The error message for an unknown event type lists the valid types."""
    with pytest.raises(ValidationError, match=r"'purchased' is unknown, want one of .*purchase"):
        Event.model_validate({"user_id": "u", "item_id": "i", "event_type": "purchased"})


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(ValidationError):
        Event(user_id="u", item_id="i", event_type="rating", value=float("nan"))


def test_a_post_without_events_is_refused():
    with pytest.raises(ValidationError):
        EventsRequest(events=[])
