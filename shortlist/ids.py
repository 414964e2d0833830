"""Rules for invalid ids, shared by the service and by validation.

Clients without an id often send a placeholder (`undefined`, `null`, `NaN`), and programs write
`196.0` if a numeric column has missing values. Stored as ids, such texts would merge all these
users into one.
"""

import hashlib
import json
import re

MAX_ID = 256
"""Maximum length of a user_id or item_id, in characters."""
MAX_EVENT_ID = 512
ANONYMOUS = "anonymous"
"""The user_id in the serving log for requests without one; it is not allowed as a real user_id."""
MISSING_ID_WORDS = ("nan", "nat", "nil", "null", "none", "undefined", "n/a", "<na>", "(null)")
MISSING_ID_WORDS += ("[object object]",)
"""Placeholders that programs write for a missing id, in lower case."""
FRACTION = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
"""Regular expression of a number. A number with a decimal point or an exponent is not an id."""

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_BLANK = " \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""White space and other invisible characters, as a character class for Python and RE2."""
CHARACTERS = f"[{_CONTROL}]|^[{_BLANK}]|[{_BLANK}]$"
"""Regular expression of control characters anywhere, or blanks at the start or end."""


def id_problem(value: str, *, of_user: bool) -> str | None:
    """Return the reason why `value` is not a valid id; None if it is valid.

    Validation's rules (`validation.rules.ids`) refuse the same values.

    Args:
        of_user: also refuse ANONYMOUS.
    """
    if not 1 <= len(value) <= MAX_ID:
        return f"want 1 to {MAX_ID} characters, got {len(value):,}"
    if re.search(CHARACTERS, value):
        return f"{value[:40]!r} has control characters, or blanks around it"
    if value.isascii() and value.lower() in MISSING_ID_WORDS:
        return f"'{value}' is a placeholder for a missing id; want an id, or leave it out"
    if of_user and value.isascii() and value.lower() == ANONYMOUS:
        return (
            f"'{ANONYMOUS}' is reserved for visitors without an id; leave user_id out of"
            " /recommend, and give each visitor's events a separate id"
        )
    number = re.search(FRACTION, value, re.ASCII) is not None
    if (number and ("." in value or "E+" in value.upper())) or _is_list_or_object(value):
        return f"'{value[:40]}' is a number with a fraction, or a list or object; want an id"
    return None


def _is_list_or_object(value: str) -> bool:
    """Return whether the text is a JSON list or object: the client sent a container instead of its
    id.
    """
    if value[0] not in "[{":
        return False
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def seed_of(request_id: str) -> int:
    """Return the seed of a request's random draws: 0 to 2^63 - 1, always the same for an id."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
