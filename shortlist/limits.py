"""Limits of ids and texts, for validation and for the bodies that the service takes."""

MAX_ID = 256
"""Characters of a user_id or item_id."""
MAX_EVENT_ID = 512
NOTHING = ("nan", "null", "none", "undefined", "n/a", "<na>")
"""What programs write for a missing id, in lower case."""
