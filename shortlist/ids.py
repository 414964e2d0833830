"""Which texts are no ids: one rule for what the service takes and what validation lets through.

Clients without an id send a word for nothing (`undefined`, `null`, `NaN`), and programs write
`196.0` where a column of numbers has gaps. Stored, all of their users become one.
"""

import json
import re

MAX_ID = 256
"""Characters of a user_id or item_id."""
MAX_EVENT_ID = 512
ANONYMOUS = "anonymous"
"""The serving log's name for whoever came without a user_id; nobody may be called so."""
NOTHING = ("nan", "nat", "nil", "null", "none", "undefined", "n/a", "<na>", "(null)")
NOTHING += ("[object object]",)
"""What programs write for a missing id, in lower case."""
FRACTION = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
"""A number; with a point or an exponent it is no id."""

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_BLANK = " \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""White space and what is as invisible, as a class of characters in Python and in RE2."""
CHARACTERS = f"[{_CONTROL}]|^[{_BLANK}]|[{_BLANK}]$"
"""Regular expression: control characters, or blanks around the text."""


def id_problem(value: str, *, of_user: bool) -> str | None:
    """Why a text is no id, None if it is one.

    Validation's rules (`validation.rules.ids`) say the same of a posted row.

    Args:
        of_user: then ANONYMOUS is no id either.
    """
    if not 1 <= len(value) <= MAX_ID:
        return f"want 1 to {MAX_ID} characters, got {len(value):,}"
    if re.search(CHARACTERS, value):
        return f"{value[:40]!r} has control characters, or blanks around it"
    if value.isascii() and value.lower() in NOTHING:
        return f"'{value}' is a word for nothing; want an id, or leave it out"
    if of_user and value.isascii() and value.lower() == ANONYMOUS:
        return (
            f"'{ANONYMOUS}' is what visitors without an id are called here; leave user_id out of"
            " /recommend, and give the events of a visitor an id of their own"
        )
    number = re.search(FRACTION, value, re.ASCII) is not None
    if (number and ("." in value or "E+" in value.upper())) or _is_list_or_object(value):
        return f"'{value[:40]}' is a number with a fraction, or a list or object; want an id"
    return None


def _is_list_or_object(value: str) -> bool:
    """Of JSON: somebody sent what an id was in."""
    if value[0] not in "[{":
        return False
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
