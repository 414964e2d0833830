"""Reads the events that can follow from shown lists, with the list that each of them names.

Figures of how traffic is recorded (recording.py) are computed from them.

Shapes: E events.
"""

import numpy as np
import pandas as pd

from shortlist import columns as c
from shortlist.items.catalogue import Catalogue

REPEAT_SECONDS = 60
"""Seconds within which an equal event of the same user, item and request is a repetition."""
FEEDBACK = (
    "view", "click", "add_to_cart", "purchase", "rating", "review", "like", "dislike", "hide",
    "watch", "survey",
)  # fmt: skip
"""Event types that can follow from a shown list. Product returns have no request_id."""
EVENT_COLUMNS = (
    c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.VALUE, "at", "arrived", "named", "listed", "request",
    "early", "repeated", "item_idx", "user_code", "day",
)  # fmt: skip


def event_sql() -> str:
    """Return the query of the FEEDBACK events since the first request, with their lists."""
    kinds = ", ".join(f"'{name}'" for name in FEEDBACK)
    return f"""
        WITH lists AS (
            SELECT r.request_id, s.item_id, min(r.asked) AS asked, min(r.request) AS request
            FROM shown s JOIN requests r USING (request) GROUP BY r.request_id, s.item_id)
        SELECT e.user_id, e.item_id, e.event_type, e.value, e.moment AS at,
            e.arrived, coalesce(e.request_id, '') <> '' AS named, l.request IS NOT NULL AS listed,
            coalesce(l.request, -1) AS request,
            coalesce(e.moment < l.asked, false) AS early,
            coalesce(e.moment - lag(e.moment) OVER (
                PARTITION BY e.user_id, e.item_id, e.event_type, e.request_id ORDER BY e.moment
            ) <= {REPEAT_SECONDS * c.MICROSECONDS_PER_SECOND}, false) AS repeated
        FROM events e LEFT JOIN lists l USING (request_id, item_id)
        WHERE e.event_type IN ({kinds}) AND e.item_id IS NOT NULL
            AND e.moment >= (SELECT min(asked) FROM requests)
        ORDER BY e.moment, e.user_id, e.item_id, e.event_type
    """


def event_columns(
    events: pd.DataFrame, requests: pd.DataFrame, catalogue: Catalogue
) -> pd.DataFrame:
    """Add item_idx, user_code (as in the requests) and day, and order the columns."""
    code = requests.drop_duplicates(c.USER_ID).set_index(c.USER_ID)["user_code"]
    others = events.loc[~events[c.USER_ID].isin(code.index.tolist()), c.USER_ID].unique()
    code = pd.concat([code, pd.Series(np.arange(len(others)) + len(code), index=others)])
    events = events.assign(
        item_idx=catalogue.vocab.encode(events[c.ITEM_ID].tolist()),
        user_code=code.reindex(events[c.USER_ID]).to_numpy(dtype=np.int64),
        day=events["at"] // c.MICROSECONDS_PER_DAY,
    )
    return events.loc[:, list(EVENT_COLUMNS)]
