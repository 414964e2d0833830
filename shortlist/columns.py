"""The only spelling of column names. `user_id item_id` are strings outside, `*_idx` integers
inside.
"""

from typing import Any

EVENT_ID = "event_id"
USER_ID = "user_id"
ITEM_ID = "item_id"
EVENT_TYPE = "event_type"
EVENT_TIMESTAMP = "event_timestamp"
EVENT_ORDER = "event_order"
INGESTED_AT = "ingested_at"
VALUE = "value"
TEXT = "text"
QUERY = "query"
SESSION_ID = "session_id"
REQUEST_ID = "request_id"
POSITION = "position"
SURFACE = "surface"
DEVICE = "device"
SOURCE = "source"
CONTEXT_ID = "context_id"
KNOWN_AT = "known_at"

TITLE = "title"
DESCRIPTION = "description"
CATEGORIES = "categories"
BRAND = "brand"
PRICE = "price"
PUBLISHED_AT = "published_at"
AVAILABLE = "available"
IMAGE = "image"
ATTRIBUTES = "attributes"
UPDATED_AT = "updated_at"
CREATED_AT = "created_at"

SCORE = "score"
RANK = "rank"

PAD_IDX = 0
"""Index 0 is padding and 'unknown'; real users and items start at 1."""

MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_HOUR = 3_600 * MICROSECONDS_PER_SECOND
MICROSECONDS_PER_DAY = 24 * MICROSECONDS_PER_HOUR


def midnight(at: Any) -> Any:
    """The newest 00:00 UTC at or before `at` microseconds: an int, or an array of them."""
    return at // MICROSECONDS_PER_DAY * MICROSECONDS_PER_DAY
