"""Joins the served lists with what users did afterwards.

An event belongs to a shown item if it has its request_id and item_id and happened within the delay
of its event type. A request is *open* for a delay until that delay has passed; open requests count
neither as successes nor as misses. A product return is joined by user and item with the last
purchase before it, because shops rarely know which list led to a returned purchase.

The events themselves are kept too (`Traffic.events`), so that figures can tell whether they name
their list, repeat each other, or are dated before it.

Shapes: R requests, S shown items, N items, E events.
"""

from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from monitoring.traffic.feedback import EVENT_COLUMNS, event_columns, event_sql
from shortlist import columns as c
from shortlist.config import Config
from shortlist.items.catalogue import Catalogue
from shortlist.splits import LIGHT_HISTORY

HOUR, DAY = c.MICROSECONDS_PER_HOUR, c.MICROSECONDS_PER_DAY
NEW_ITEM_DAYS = 7
"""Days after its publication on which an item counts as new."""
SEEN_DAYS = 28
"""Days after a target event on which the item counts as chosen before by this user."""


class Delays(Config):
    """Hours after a request within which an outcome counts."""

    click: float = Field(default=1.0, gt=0)
    """Clicks and hides."""
    outcome: float = Field(default=24.0, gt=0)
    """Carts, purchases, watch time, ratings, reviews, likes, dislikes and surveys."""
    product_return: float = Field(default=14 * 24.0, gt=0)
    """Product returns, counted from the request that led to the purchase."""

    def microseconds(self, name: str) -> int:
        return int(getattr(self, name) * HOUR)


@dataclass(frozen=True)
class Traffic:
    """Requests and shown items with their outcomes; all arrays have the order of the tables."""

    requests: pd.DataFrame
    """(R,) REQUESTS plus day, group ('new', 'light' or 'regular') and activity columns."""
    shown: pd.DataFrame
    """(S,) SHOWN plus item_idx, category, brand, is_new and the outcomes."""
    catalogue: Catalogue
    item_counts: np.ndarray
    """(N + 1,) number of target events of each item before the traffic."""
    until: int
    """Microseconds; events before this time are known."""
    delays: Delays = field(default_factory=Delays)
    list_size: int = 10
    events: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=pd.Index(EVENT_COLUMNS))
    )
    """(E,) FEEDBACK events since the first request, EVENT_COLUMNS: `at` and `arrived` in
    microseconds, when it happened and when it was ingested; `named` whether the event has a
    request_id; `listed` whether a list with this request_id and item is logged; `request` the row
    of that list, -1 if it isn't in this part of the traffic; `early` whether it is dated before
    that list; `repeated` whether it repeats another event."""

    def open_before(self, delay: str) -> int:
        """Return the first request time, in microseconds, that is still open for a delay."""
        return self.until - self.delays.microseconds(delay)

    def pick(self, keep: np.ndarray) -> "Traffic":
        """Return the traffic of some requests, (R,) bool, without the events of the others."""
        row_of = self._row_of(keep)
        events = self.events
        if len(events):
            listed = events["request"].to_numpy(dtype=np.int64)
            kept = (listed < 0) | (row_of[listed] >= 0)
            events = events[kept].assign(request=row_of[listed[kept]]).reset_index(drop=True)
        return self._part(keep, row_of, events)

    def between(self, start: int, end: int) -> "Traffic":
        """Return the requests and events of a span of time, in microseconds.

        An event counts in the span in which it happened, and in that in which it arrived.
        """
        at = self.requests["at"].to_numpy()
        keep = (at >= start) & (at < end)
        row_of = self._row_of(keep)
        events = self.events
        if len(events):
            times = [events[name].to_numpy(dtype=np.int64) for name in ("at", "arrived")]
            events = events[np.any([(time >= start) & (time < end) for time in times], axis=0)]
            listed = events["request"].to_numpy(dtype=np.int64)
            events = events.assign(request=row_of[listed]).reset_index(drop=True)
        return self._part(keep, row_of, events)

    def _row_of(self, keep: np.ndarray) -> np.ndarray:
        """Return (R + 1,) the row of each request among those that are kept, -1 for the others.

        The last place, index -1, stands for no request.
        """
        return np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)

    def _part(self, keep: np.ndarray, row_of: np.ndarray, events: pd.DataFrame) -> "Traffic":
        request = row_of[self.shown["request"].to_numpy()]
        shown = self.shown[request >= 0].assign(request=request[request >= 0])
        requests = self.requests[keep].reset_index(drop=True)
        return replace(self, requests=requests, shown=shown.reset_index(drop=True), events=events)

    @property
    def user_code(self) -> np.ndarray:
        """(R,) number of the user of each request; the same in all parts of the traffic."""
        return self.requests["user_code"].to_numpy()


def join_outcomes(
    requests: pa.Table,
    shown: pa.Table,
    events: pa.Table,
    *,
    catalogue: Catalogue,
    item_counts: np.ndarray,
    target_events: tuple[str, ...],
    until: int,
    delays: Delays | None = None,
    list_size: int = 10,
) -> Traffic:
    """Join requests and shown items with the events of the contract INTERACTIONS.

    Args:
        requests, shown: see shortlist/datasets/service/traffic_log.py.
        until: microseconds; later events are ignored.
    """
    delays = delays or Delays()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    numbered = requests.append_column("request", pa.array(np.arange(requests.num_rows)))
    numbered = numbered.rename_columns({"at": "asked"})  # AT is a keyword of SQL
    connection.register("requests", numbered)
    connection.register("shown", shown.append_column("place", pa.array(np.arange(shown.num_rows))))
    connection.register("raw", events)
    kinds = ", ".join(f"'{name}'" for name in target_events)
    connection.execute(
        f"CREATE TEMP TABLE events AS SELECT user_id, item_id, event_type, value, request_id,"
        f" epoch_us(event_timestamp) AS moment, greatest(epoch_us(event_timestamp),"
        f" epoch_us(ingested_at)) AS arrived FROM raw WHERE epoch_us(event_timestamp) < {until}"
    )
    outcomes = connection.execute(_outcome_sql(delays, kinds)).df().sort_values("place")
    history = connection.execute(
        f"""
        WITH counted AS (
            SELECT user_id, moment, sum(count(*)) OVER (PARTITION BY user_id ORDER BY moment) AS n
            FROM events WHERE event_type IN ({kinds}) GROUP BY user_id, moment)
        SELECT request, coalesce(n, 0)::BIGINT AS n FROM requests
        ASOF LEFT JOIN counted
        ON requests.user_id = counted.user_id AND requests.asked > counted.moment ORDER BY request
        """
    ).df()["n"]
    activity = (
        connection.execute(
            f"""
        WITH days AS (
            SELECT user_id, asked // {DAY} AS day FROM requests
            UNION SELECT user_id, moment // {DAY} FROM events),
        following AS (
            SELECT *, lead(day) OVER (PARTITION BY user_id ORDER BY day) - day AS gap FROM days)
        SELECT request, gap FROM requests JOIN following
        ON requests.user_id = following.user_id AND requests.asked // {DAY} = following.day
        ORDER BY request
        """
        )
        .df()["gap"]
        .to_numpy(dtype=float)
    )
    seen = connection.execute(_SEEN_SQL.format(targets=kinds, days=SEEN_DAYS * DAY)).df()["place"]
    feedback = connection.execute(event_sql()).df()
    connection.close()
    rows = requests.to_pandas().assign(
        user_code=pd.factorize(requests.column(c.USER_ID).to_pandas())[0],
        day=lambda frame: frame["at"] // DAY,
        group=np.where(history == 0, "new", np.where(history < LIGHT_HISTORY, "light", "regular")),
        days_to_next=activity,
    )
    first = ~rows.duplicated([c.USER_ID, "day"])
    rows = rows.assign(first_of_day=first, **_sessions(rows, until))
    items = _item_columns(shown, rows["at"].to_numpy(), catalogue)
    joined = shown.to_pandas().assign(**items)
    for name in outcomes.columns:
        if name != "place":
            joined[name] = outcomes[name].to_numpy()
    joined["seen"] = np.isin(np.arange(len(joined)), seen.to_numpy())
    feedback = event_columns(feedback, rows, catalogue)
    return Traffic(rows, joined, catalogue, item_counts, until, delays, list_size, feedback)


_SEEN_SQL = """
    SELECT s.place FROM shown s JOIN requests r USING (request) SEMI JOIN (
        SELECT user_id, item_id, moment FROM events WHERE event_type IN ({targets})) e
    ON e.user_id = r.user_id AND e.item_id = s.item_id AND e.moment < r.asked
        AND e.moment >= r.asked - {days}
"""


def _outcome_sql(delays: Delays, targets: str) -> str:
    """Return the query of all outcomes per shown item.

    Args:
        targets: the target event types, as quoted SQL.
    """
    click, outcome = delays.microseconds("click"), delays.microseconds("outcome")

    def count(event_type: str, within: int) -> str:
        return (
            f"count(*) FILTER (e.event_type = '{event_type}' AND e.moment - r.asked < {within})"
            f"::DOUBLE AS {event_type}"
        )

    def total(name: str, event_type: str) -> str:
        return (
            f"coalesce(sum(e.value) FILTER (e.event_type = '{event_type}'"
            f" AND e.moment - r.asked < {outcome}), 0) AS {name}"
        )

    counts = [count(event_type, click) for event_type in ("click", "hide")]
    counts += [
        count(event_type, outcome)
        for event_type in ("add_to_cart", "purchase", "rating", "survey", "like", "dislike")
    ]
    counts += [
        f"count(*) FILTER (e.event_type IN ({targets}) AND e.moment - r.asked < {outcome})::DOUBLE"
        " AS taken"
    ]
    sums = [
        total("revenue", "purchase"),
        total("watch_seconds", "watch"),
        total("rating_sum", "rating"),
        total("survey_sum", "survey"),
    ]
    return f"""
        WITH outcome AS (
            SELECT s.place, {", ".join(counts + sums)},
                min(e.moment) FILTER (e.event_type = 'purchase') AS bought_at,
                any_value(r.user_id) AS user_id, any_value(s.item_id) AS item_id,
                any_value(r.asked) AS asked
            FROM shown s JOIN requests r USING (request)
            LEFT JOIN events e ON e.request_id = r.request_id AND e.item_id = s.item_id
                AND e.moment >= r.asked
            GROUP BY s.place),
        sent_back AS (
            SELECT place, count(DISTINCT e.moment) AS n FROM outcome o
            JOIN events e ON e.event_type = 'return' AND e.user_id = o.user_id
                AND e.item_id = o.item_id AND e.moment > o.bought_at
                AND e.moment - o.asked < {delays.microseconds("product_return")}
            WHERE o.purchase > 0 GROUP BY place)
        SELECT o.* EXCLUDE (bought_at, user_id, item_id, asked),
            least(coalesce(b.n, 0), o.purchase)::DOUBLE AS returned
        FROM outcome o LEFT JOIN sent_back b USING (place)
    """


SESSION_GAP = 30 * 60 * c.MICROSECONDS_PER_SECOND
"""Pause between two requests of a user after which a new session starts."""


def _sessions(rows: pd.DataFrame, until: int) -> dict[str, np.ndarray]:
    """Return the depth of each finished session at its first request; 0 at all other requests."""
    order = np.lexsort([rows["at"].to_numpy(), pd.factorize(rows[c.USER_ID])[0]])
    user = pd.factorize(rows[c.USER_ID])[0][order]
    at = rows["at"].to_numpy()[order]
    starts = np.ones(len(at), dtype=bool)
    starts[1:] = (user[1:] != user[:-1]) | (at[1:] - at[:-1] > SESSION_GAP)
    session = np.cumsum(starts) - 1
    depth = np.bincount(session) if len(at) else np.zeros(0)
    last = np.zeros(len(depth), dtype=np.int64)
    np.maximum.at(last, session, at)
    depth = np.where(last + SESSION_GAP <= until, depth, 0)
    out = np.zeros(len(at))
    out[order[starts]] = depth
    return {"session_depth": out}


def first_categories(catalogue: Catalogue) -> np.ndarray:
    """Return (N + 1,) the first category of each item, `none` without one."""
    return np.array([(names or ["none"])[0] for names in catalogue.category_lists], dtype=object)


def _item_columns(shown: pa.Table, at: np.ndarray, catalogue: Catalogue) -> dict[str, object]:
    """Return index, first category, brand and newness of each shown item: (S,) each."""
    item_idx = catalogue.vocab.encode(shown.column(c.ITEM_ID).to_pylist())
    categories = first_categories(catalogue)
    brands = np.array(["none", *(b or "none" for b in catalogue.items[c.BRAND].to_pylist())])
    published = catalogue.published_at[item_idx]
    age = at[shown.column("request").to_numpy()] - published
    return {
        "item_idx": item_idx,
        "category": categories[item_idx],
        "brand": brands.astype(object)[item_idx],
        "is_new": (published != 0) & (age >= 0) & (age < NEW_ITEM_DAYS * DAY),
    }
