"""The cursor of a list's next page. The service stores nothing, so any worker can answer.

A cursor is base64url text of: version (1 byte), checksum (8), `at` (8), hash of the request (8),
length of the release id (1), release id, and a key of 6 bytes for each item shown so far. The
checksum detects damaged cursors. It isn't a signature, because a forged cursor does no harm: it can
only leave out items, as `exclude` does, or ask for the list as of up to an hour ago.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

VERSION = 1
KEY_BYTES = 6
MAX_SHOWN = 1_000
"""Maximum number of items over all pages of a list."""
MAX_RELEASE_ID = 255
FIXED_BYTES = 26
MAX_LENGTH = -(-(FIXED_BYTES + MAX_RELEASE_ID + KEY_BYTES * MAX_SHOWN) * 4 // 3)
"""Longest cursor, in characters."""
NO_KEYS = np.empty(0, dtype=np.uint64)
TAKE_OVER = "send the next_cursor of an answer unchanged, or leave cursor out to start again"


@dataclass(frozen=True)
class Cursor:
    """Content of a cursor: the list, and the items shown so far."""

    release_id: str
    """Id of the release (the served set of models) that ranked the list."""
    at: int
    """Time as of which the list is ranked, in microseconds."""
    asked: bytes
    """8-byte hash of the request's parts that must be the same on all pages, see `asked_for`."""
    shown: np.ndarray
    """(S,) uint64 keys of the items shown so far, see `item_key`."""

    def encode(self) -> str:
        release = self.release_id.encode()
        assert len(release) <= MAX_RELEASE_ID, "release ids are short"
        keys = self.shown.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :KEY_BYTES]
        body = b"".join(
            [
                self.at.to_bytes(8, "little", signed=True),
                self.asked,
                bytes([len(release)]),
                release,
                keys.tobytes(),
            ]
        )
        content = bytes([VERSION]) + _checksum(body) + body
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Parse a cursor. Raises ValueError if it isn't exactly what `encode` returned."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            content = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise ValueError(f"is not a cursor of this service; {TAKE_OVER}") from None
        if content[:1] != bytes([VERSION]) or len(content) < FIXED_BYTES:
            raise ValueError(f"is not a cursor of this version; {TAKE_OVER}")
        checksum, body = content[1:9], content[9:]
        if checksum != _checksum(body):
            raise ValueError(f"was changed on its way; {TAKE_OVER}")
        start = 17 + body[16]
        keys = np.frombuffer(body[start:], dtype=np.uint8).reshape(-1, KEY_BYTES)
        shown = np.zeros((len(keys), 8), dtype=np.uint8)
        shown[:, :KEY_BYTES] = keys
        cursor = cls(
            release_id=body[17:start].decode(),
            at=int.from_bytes(body[:8], "little", signed=True),
            asked=body[8:16],
            shown=shown.view("<u8")[:, 0].astype(np.uint64),
        )
        if cursor.encode() != text:  # base64 has several spellings of the last character
            raise ValueError(f"was changed on its way; {TAKE_OVER}")
        return cursor


def item_key(item_id: str) -> int:
    """Return the 48-bit key of an item.

    Among a million items, the probability that any two have the same key is 0.2%.
    """
    return int.from_bytes(
        hashlib.blake2b(item_id.encode(), digest_size=KEY_BYTES).digest(), "little"
    )


def asked_for(parts: Iterable[str | None]) -> bytes:
    """Return an 8-byte hash of the parts of a request that must be the same on all pages."""
    text = "\x00".join("\x01" if part is None else part for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8, key=b"shortlist cursor").digest()
