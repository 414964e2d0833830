"""The key of a home, and keyed hashes of user ids.

Releases, the register of forgotten people and proofs hold hashes only. Without the key, a hash
can't be computed from an id, so ids can't be found by trying them.
"""

import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32
HASH_DIGITS = 32
"""Hex digits of a user's hash: 128 bits."""


class HomeKeyError(RuntimeError):
    """The key of the home can't be read; the message says what to do."""


def home_key(folder: Path) -> bytes:
    """Return the key in `<folder>/key`; it is created if it is missing.

    Args:
        folder: `Settings.forgotten`.

    Raises:
        HomeKeyError: the file doesn't hold a key.
    """
    path = folder / "key"
    if not path.is_file() and not (folder / "register.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".key-{secrets.token_hex(4)}"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, secrets.token_hex(KEY_BYTES).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        with suppress(FileExistsError):  # another process was first: its key counts
            os.link(partial, path)
        partial.unlink()
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise HomeKeyError(
            f"{path}: want {2 * KEY_BYTES} hex digits, the key of this home's hashes; restore it"
            " from a backup"
        )
    return key


def user_hash(key: bytes, user_id: str) -> str:
    """Return the keyed hash (HMAC-SHA256) of a user id as HASH_DIGITS hex digits."""
    return hmac.digest(key, user_id.encode(), "sha256").hex()[:HASH_DIGITS]


def hash_sql(key: bytes, column: str) -> str:
    """Return SQL of `user_hash` of a text column."""
    inner, outer = (
        bytes(byte ^ pad for byte in key.ljust(64, b"\0")).hex() for pad in (0x36, 0x5C)
    )
    inside = f"unhex(sha256(from_hex('{inner}') || encode({column})))"
    return f"left(sha256(from_hex('{outer}') || {inside}), {HASH_DIGITS})"


def ids_of(key: bytes, user_ids: Iterable[str]) -> dict[str, str]:
    """Return {hash: user id}."""
    return {user_hash(key, user_id): user_id for user_id in user_ids}
