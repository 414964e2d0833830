"""Reads the trivago log (RecSys Challenge 2019): actions of sessions, and the lists they saw.

A request is a click-out: the list of hotels that was shown, with prices, and the one clicked.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.datasets import DatasetError

FILE = "trivago_val_100k.parquet"
CLICK = "clickout item"
ACTIONS = (
    CLICK,
    "interaction item image",
    "interaction item info",
    "interaction item rating",
    "interaction item deals",
    "search for item",
    "search for destination",
    "search for poi",
    "filter selection",
    "change of sort order",
)
"""Action types; the code of an action is its place from 1."""
NUM_ITEM_ACTIONS = 6
"""The first actions refer to a hotel."""
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.125
"""Shares of sessions, by the time of their first action: the newest, and those before them."""


@dataclass(frozen=True)
class Action:
    """One row of the log."""

    session: int
    user: int
    time: int  # seconds
    step: int
    code: int  # place in ACTIONS, from 1
    item: int  # item_idx from 1; 0 if the action isn't about a hotel
    reference: str
    platform: str
    device: str
    filters: tuple[str, ...]
    shown: tuple[int, ...]  # item_idx in display order; empty if the action is no click-out
    prices: tuple[float, ...]


@dataclass(frozen=True)
class Log:
    """All actions in order of time, and the window of each session."""

    actions: list[Action]
    window: np.ndarray  # (sessions,) int64: 0 train, 1 validation, 2 test


def read_log(folder: Path | None) -> Log:
    """Read the log from a folder.

    Raises:
        DatasetError: the file is missing or has other columns.
    """
    if folder is None:
        raise DatasetError("--path is missing: the folder with " + FILE)
    path = folder / FILE
    if not path.is_file():
        raise DatasetError(f"{path}: no such file (RecSys Challenge 2019, a sample of the log)")
    table = pq.read_table(path)
    wanted = {"user_id", "session_id", "timestamp", "step", "action_type", "reference", "prices"}
    wanted |= {"platform", "device", "current_filters", "impressions"}
    if missing := wanted - set(table.column_names):
        raise DatasetError(f"{path}: without the columns {', '.join(sorted(missing))}")
    return _parse(table)


def _parse(table: pa.Table) -> Log:
    table = table.sort_by(
        [("timestamp", "ascending"), ("session_id", "ascending"), ("step", "ascending")]
    )
    hotels: dict[str, int] = {}
    sessions: dict[str, int] = {}
    users: dict[str, int] = {}
    code_of = {name: code for code, name in enumerate(ACTIONS, start=1)}

    def hotel(name: str) -> int:
        return hotels.setdefault(name, len(hotels) + 1)

    actions = []
    for row in table.to_pylist():
        code = code_of.get(row["action_type"], 0)
        reference = row["reference"] or ""
        about_item = 1 <= code <= NUM_ITEM_ACTIONS and reference.isdigit()
        shown = row["impressions"].split("|") if code == 1 and row["impressions"] else []
        prices = row["prices"].split("|") if shown else []
        actions.append(
            Action(
                session=sessions.setdefault(row["session_id"], len(sessions)),
                user=users.setdefault(row["user_id"], len(users)),
                time=row["timestamp"],
                step=row["step"],
                code=code,
                item=hotel(reference) if about_item else 0,
                reference=reference,
                platform=row["platform"],
                device=row["device"],
                filters=tuple((row["current_filters"] or "").split("|")),
                shown=tuple(hotel(name) for name in shown),
                prices=tuple(float(price) for price in prices),
            )
        )
    # Sessions are numbered by their first action, because the actions are in order of time.
    place = (np.arange(len(sessions)) + 1) / len(sessions)
    window = (place > 1 - TEST_SHARE - VALIDATION_SHARE).astype(np.int64)
    return Log(actions, window + (place > 1 - TEST_SHARE))
