"""Error responses for an invalid cursor: one sentence that names the field."""

import json

import pytest
from pydantic import ValidationError

from services.http.errors import sentence
from shortlist.http.api import RecommendRequest
from shortlist.http.cursor import MAX_LENGTH, NO_KEYS, Cursor

SCOPE = {"type": "http", "path": "/recommend", "method": "POST"}
GOOD = Cursor("r1", 1, RecommendRequest(user_id="u1").asked, NO_KEYS).encode()


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"user_id": "u1", "cursor": "hello"}, "cursor: is not a cursor of this"),
        ({"user_id": "u1", "cursor": "Ä"}, "cursor: is not a cursor of this service"),
        ({"user_id": "u1", "cursor": GOOD[:-2]}, "cursor: was changed on its way"),
        ({"user_id": "u2", "cursor": GOOD}, "cursor: belongs to a list with another user_id"),
        ({"user_id": "u1", "cursor": "A" * (MAX_LENGTH + 1)}, "cursor: String should have at most"),
    ],
)
def test_a_wrong_cursor_is_one_sentence(body, want):
    with pytest.raises(ValidationError) as refusal:
        RecommendRequest.model_validate(body)
    detail = json.loads(refusal.value.json(include_url=False))
    text = sentence(json.dumps({"detail": detail}).encode(), status=400, scope=SCOPE)
    assert text.startswith(want)
