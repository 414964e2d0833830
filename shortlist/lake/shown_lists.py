"""Finds the lists that were shown, and which of their items were chosen."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.lake.engine import connect, parquet, quoted

PROPENSITY, CHOSEN, ASKED = "propensity", "chosen", "asked"


def shown_lists(
    files: list[Path], *, since: int, until: int, chosen_by: Sequence[str], temporary: Path
) -> pa.Table:
    """Return the impressions of a time range, one row per list and item.

    An impression without `request_id` or position belongs to no list. An item is chosen if an
    event of the same user and item follows within a day, before `until`. If that event names a
    list, it must be the same.

    Args:
        files: all interaction files of the lake.
        since, until: microseconds, half open.
        chosen_by: event types that choose an item.
        temporary: folder for DuckDB's spill files.

    Returns:
        Columns user_id, request_id, asked (microseconds, time of the list), surface, device,
        item_id, position, propensity (NULL if it wasn't logged) and chosen; sorted by list and
        position.
    """
    types = ", ".join(quoted(name) for name in chosen_by)
    with connect(temporary) as connection:
        return connection.sql(
            f"""
            WITH events AS (
                SELECT * EXCLUDE ({c.EVENT_TIMESTAMP}), epoch_us({c.EVENT_TIMESTAMP}) AS us,
                    nullif({c.REQUEST_ID}, '') AS page
                FROM {parquet(files)}
                WHERE {c.EVENT_TIMESTAMP} >= make_timestamptz({since}::BIGINT)
                    AND {c.EVENT_TIMESTAMP} < make_timestamptz({until}::BIGINT)
                    AND {c.ITEM_ID} IS NOT NULL
            ),
            shown AS (
                SELECT {c.USER_ID}, page, {c.ITEM_ID}, min(us) AS shown_at,
                    min({c.POSITION}) AS {c.POSITION}, any_value({c.VALUE}) AS {PROPENSITY},
                    any_value({c.SURFACE}) AS {c.SURFACE}, any_value({c.DEVICE}) AS {c.DEVICE}
                FROM events
                WHERE {c.EVENT_TYPE} = 'impression' AND page IS NOT NULL AND {c.POSITION} >= 1
                GROUP BY ALL
            ),
            taken AS (
                SELECT DISTINCT s.{c.USER_ID}, s.page, s.{c.ITEM_ID}
                FROM shown s JOIN events e USING ({c.USER_ID}, {c.ITEM_ID})
                WHERE e.{c.EVENT_TYPE} IN ({types})
                    AND e.us >= s.shown_at AND e.us < s.shown_at + {MICROSECONDS_PER_DAY}
                    AND (e.page IS NULL OR e.page = s.page)
            )
            SELECT s.{c.USER_ID}, s.page AS {c.REQUEST_ID},
                min(s.shown_at) OVER (PARTITION BY s.{c.USER_ID}, s.page) AS {ASKED},
                s.{c.SURFACE}, s.{c.DEVICE}, s.{c.ITEM_ID}, s.{c.POSITION}, s.{PROPENSITY},
                t.page IS NOT NULL AS {CHOSEN}
            FROM shown s LEFT JOIN taken t USING ({c.USER_ID}, page, {c.ITEM_ID})
            ORDER BY {ASKED}, {c.USER_ID}, {c.REQUEST_ID}, {c.POSITION}, {c.ITEM_ID}
            """
        ).to_arrow_table()
