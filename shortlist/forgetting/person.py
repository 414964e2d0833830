"""The person to forget, and where a text mentions them."""

import html
import json
import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from shortlist import columns as c

MIN_DISTINCTIVE = 6
"""Shorter ids, and ids that are plain numbers of fewer than MIN_DIGITS digits, also occur in texts
as something else. They are found only after a word like `user_id`.
"""
MIN_DIGITS = 9
USER_WORDS = rb"(?i:users?(?:[_ ]?ids?)?)"
MASK = b"*"


@dataclass(frozen=True)
class Person:
    """A user with a pending request."""

    user_id: str
    at: int
    """Time of the newest request, microseconds; what is older is removed."""

    @property
    def is_distinctive(self) -> bool:
        """Whether the id can be recognised anywhere in a text."""
        shortest = MIN_DIGITS if self.user_id.isdigit() else MIN_DISTINCTIVE
        return len(self.user_id) >= shortest

    @cached_property
    def spellings(self) -> tuple[bytes, ...]:
        """The id as it is written in texts, JSON, HTML and URLs; the longest spelling first."""
        plain = self.user_id
        texts = {
            plain,
            json.dumps(plain)[1:-1],
            json.dumps(plain, ensure_ascii=False)[1:-1],
            html.escape(plain),
            quote(plain, safe=""),
        }
        return tuple(sorted((text.encode() for text in texts), key=len, reverse=True))

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Regular expression of a mention; the group `id` is the id."""
        spelling = b"(?P<id>" + b"|".join(re.escape(text) for text in self.spellings) + b")"
        whole = rb"(?<![0-9A-Za-z])" + spelling + rb"(?![0-9A-Za-z])"
        if self.is_distinctive:
            return re.compile(whole)
        return re.compile(USER_WORDS + rb"[\"'`\\]*\s{0,3}[:=]?\s{0,3}[\[(]?[\"'`\\]*" + whole)

    def is_mentioned(self, content: bytes) -> bool:
        """Return whether the content mentions the id."""
        if not any(text in content for text in self.spellings):
            return False
        return self.pattern.search(content) is not None

    def masked(self, content: bytes) -> tuple[bytes, int]:
        """Replace each mention by asterisks of the same length; return the number of mentions."""
        if not any(text in content for text in self.spellings):
            return content, 0

        def mask(found: re.Match[bytes]) -> bytes:
            start, end = (place - found.start() for place in found.span("id"))
            text = found.group()
            return text[:start] + MASK * (end - start) + text[end:]

        return self.pattern.subn(mask, content)

    def owns(self, row: dict) -> bool:
        """Return whether a row belongs to the person and is older than the request.

        Args:
            row: an event or a logged answer, with `event_timestamp` in microseconds.
        """
        if row.get(c.USER_ID) != self.user_id:
            return False
        moment = row.get(c.EVENT_TIMESTAMP)
        return not isinstance(moment, int) or moment < self.at
