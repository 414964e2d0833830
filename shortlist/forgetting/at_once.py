"""The immediate effects of a request to forget a user.

The request is stored, and with it the person is unknown to all readers of states and logs
(`Register.hides`). Deleting the stored rows is done at once too, as far as their files can be
written; the erasure deletes them in any case.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing

from shortlist.behaviour.shown_items import ShownItems
from shortlist.config import Settings
from shortlist.feature_store.online.keys import entity_keys
from shortlist.feature_store.online.tables import WAIT_SECONDS, quoted
from shortlist.feature_store.online.tail import Tail
from shortlist.feature_store.store import ONLINE_STORE, ONLINE_VIEWS, project_of
from shortlist.forgetting.register import Register
from shortlist.forgetting.requests import ForgetInbox

log = logging.getLogger("shortlist.forgetting")

USER_VIEWS = tuple(view for view in ONLINE_VIEWS if view.startswith("user_"))


def request_forgetting(settings: Settings, user_id: str, *, at: int) -> dict[str, int]:
    """Store a request durably, and delete what requests read: tail, online rows, shown items.

    Args:
        at: microseconds on the home's clock. Events dated before it are forgotten.

    Returns:
        {place: number of deleted rows}.

    Raises:
        CommandError, OSError: the request can't be stored; then nothing has happened.
    """
    inbox, register = ForgetInbox(settings), Register(settings.forgotten)
    name = register.hash_of(user_id)
    inbox.append(user_id, user_hash=name, received_at=at)
    register.add(user_id, at)
    return delete_online(settings, user_id, at=at)


def delete_online(settings: Settings, user_id: str, *, at: int) -> dict[str, int]:
    """Delete the user's rows that requests read, if they are older than `at` (microseconds).

    A file that can't be written is logged and left out.

    Returns:
        {place: number of deleted rows}.
    """
    steps: dict[str, Callable[[], int]] = {
        "tail": lambda: Tail.of(settings).forget(user_id, at=at),
        "online store": lambda: delete_online_rows(settings, user_id, at=at),
        "shown items": lambda: ShownItems.of(settings).forget(user_id, at=at),
    }
    removed = {}
    for place, step in steps.items():
        try:
            removed[place] = step()
        except (sqlite3.Error, OSError):
            log.exception("forget: %s can't be written now; the erasure will do it", place)
    return {place: rows for place, rows in removed.items() if rows}


def delete_online_rows(settings: Settings, user_id: str, *, at: int) -> int:
    """Delete the user's base rows with a stamp up to `at`; return their number.

    In Redis the user's key is deleted whatever its stamp; a refresh writes later states again.
    """
    (key,) = entity_keys("user_id", [user_id])
    project = project_of(settings)
    if settings.online_store != "sqlite":
        return _delete_from_redis(settings.online_store, key + project.encode())
    path = settings.feast / ONLINE_STORE
    if not path.is_file():
        return 0
    rows = 0
    with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection, connection:
        connection.execute("PRAGMA secure_delete = ON")
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        known = {name for (name,) in tables.fetchall()}
        for view in USER_VIEWS:
            if f"{project}_{view}" in known:
                table = quoted(f"{project}_{view}")
                query = f"DELETE FROM {table} WHERE entity_key = ? AND event_ts <= ?"
                rows += connection.execute(query, (key, at)).rowcount
    return rows


def _delete_from_redis(url: str, key: bytes) -> int:
    import redis

    with closing(redis.Redis.from_url(url, socket_timeout=WAIT_SECONDS)) as client:
        try:
            return int(client.delete(key))  # pyright: ignore[reportArgumentType]
        except redis.RedisError as error:
            raise OSError(f"{url.rpartition('@')[2]}: {error}") from None
