"""Column names. `user_id` and `item_id` are external strings; `*_idx` are internal integers."""

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
"""Index 0 is padding or unknown; users and items start at 1."""

MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_HOUR = 3_600 * MICROSECONDS_PER_SECOND
MICROSECONDS_PER_DAY = 24 * MICROSECONDS_PER_HOUR


def midnight(at: Any) -> Any:
    """Return the last 00:00 UTC at or before `at`, in microseconds (an int or an array)."""
    return at // MICROSECONDS_PER_DAY * MICROSECONDS_PER_DAY
