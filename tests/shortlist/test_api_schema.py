"""Limits of the HTTP request bodies: the last valid and the first invalid value of each field."""

import pytest
from pydantic import BaseModel, ValidationError

from shortlist.http import api


@pytest.mark.parametrize(
    ("schema", "body", "key", "allowed", "too_much"),
    [
        (api.RecommendRequest, {"user_id": "u"}, "k", api.MAX_K, api.MAX_K + 1),
        (api.SimilarRequest, {"item_id": "i"}, "k", api.MAX_K, api.MAX_K + 1),
        (api.RecommendRequest, {}, "user_id", "u" * 256, "u" * 257),
        (api.RecommendRequest, {"user_id": "u"}, "exclude", ["i"] * 10_000, ["i"] * 10_001),
        (api.RecommendRequest, {}, "recent_items", ["i"] * 1_000, ["i"] * 1_001),
        (
            api.EventsRequest,
            {},
            "events",
            [{"user_id": "u", "item_id": "i", "event_type": "view"}] * api.MAX_EVENTS,
            [{"user_id": "u", "item_id": "i", "event_type": "view"}] * (api.MAX_EVENTS + 1),
        ),
    ],
)
def test_limits_are_inclusive(schema, body, key, allowed, too_much):
    schema.model_validate(body | {key: allowed})
    with pytest.raises(ValidationError) as error:
        schema.model_validate(body | {key: too_much})
    assert error.value.errors()[0]["loc"] == (key,)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_values_are_finite(value):
    with pytest.raises(ValidationError, match="value"):
        api.Event(user_id="u", item_id="i", event_type="rating", value=value)


def test_a_position_is_not_negative():
    """As in validation: some clients count from 0."""
    assert api.Event(user_id="u", item_id="i", event_type="click", position=0).position == 0
    with pytest.raises(ValidationError, match="position"):
        api.Event(user_id="u", item_id="i", event_type="click", position=-1)


@pytest.mark.parametrize(
    "schema", [m for m in vars(api).values() if isinstance(m, type) and issubclass(m, api.Body)]
)
def test_no_body_takes_a_key_it_does_not_know(schema: type[BaseModel]):
    with pytest.raises(ValidationError) as error:
        schema.model_validate({"no_such_key": 1})
    assert ("no_such_key",) in [problem["loc"] for problem in error.value.errors()]


def test_a_request_without_options_means_what_the_page_says():
    """Defaults of a request, and that they survive a round trip through JSON."""
    request = api.RecommendRequest.model_validate({"user_id": "u"})
    assert (request.k, request.exclude, request.recent_items, request.at) == (10, [], None, None)
    again = api.RecommendRequest.model_validate_json(request.model_dump_json())
    assert again == request
