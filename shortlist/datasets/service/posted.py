"""Maps posted events (lines of the service's inbox), and evaluates SQL conditions on them.

The conditions are those of `[data] exclude` and of validation's rules on single events and items.
"""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from shortlist import columns as c
from shortlist.behaviour.counting import INBOX
from shortlist.contracts import INTERACTIONS
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.files.mapping import events_sql, excluded_sql
from shortlist.datasets.files.readers import objects_of
from shortlist.lake.engine import name, quoted

RECEIVED_AT = "received_at"
POSTED = InteractionFile(
    path="(inbox)",
    columns={
        **{name: name for name in INTERACTIONS.names if name not in (c.EVENT_ORDER, c.SOURCE)},
        c.INGESTED_AT: RECEIVED_AT,
    },
    format="jsonl",
    timestamp_unit="us",
    sparse=True,
    exact_ids=True,
)


def excluded_ids(events: Sequence[dict[str, Any]], exclude: Sequence[str]) -> set[str]:
    """Return the event_ids of the posted events that `exclude` leaves out.

    Args:
        events: events in the form of inbox lines.
        exclude: SQL conditions on the contract's columns. Here `source` is only "service:", while
            staging appends the name of the inbox file.

    Raises:
        duckdb.Error: a condition can't be evaluated.
    """
    if not exclude or not events:
        return set()
    found = _query(events, f"SELECT {c.EVENT_ID} FROM mapped WHERE {excluded_sql(exclude)}")
    return {event_id for (event_id,) in found}


def broken_rules(
    events: Sequence[dict[str, Any]], rules: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """Return {event_id: reason} for the posted events that break one of `rules`.

    Args:
        events: events in the form of inbox lines.
        rules: as in the file of shortlist/validation/event_rules.py.

    Raises:
        duckdb.Error: a rule can't be evaluated.
    """
    return dict(_query(events, _reasons_sql(rules, c.EVENT_ID, "mapped")))


def broken_item_rules(items: pa.Table, rules: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return {item_id: reason} for the items that break one of `rules`.

    Args:
        items: rows of the catalogue.
        rules: as in the file of shortlist/validation/event_rules.py.

    Raises:
        duckdb.Error: a rule can't be evaluated.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("items", items)
        return dict(connection.execute(_reasons_sql(rules, c.ITEM_ID, "items")).fetchall())


def _reasons_sql(rules: Sequence[dict[str, Any]], key: str, relation: str) -> str:
    """Return an SQL query of the ids of the rows that break a rule, and the first reason."""
    derived = "".join(
        f", {rule['value']} AS {name(rule['column'])}" for rule in rules if rule["value"]
    )
    reasons = ", ".join(
        f"CASE WHEN {rule['bad']} THEN {quoted(rule['reason'])} END" for rule in rules
    )
    return (
        f"SELECT {key}, coalesce({reasons}, NULL) AS reason"
        f" FROM (SELECT *{derived} FROM {relation}) WHERE reason IS NOT NULL"
    )


def _query(events: Sequence[dict[str, Any]], query: str) -> list[tuple[Any, ...]]:
    """Run an SQL query on the relation `mapped` and return its rows.

    The relation has the posted events with the contract's columns.
    """
    raw = objects_of("posted", list(POSTED.columns.values()))
    mapped = events_sql(raw, POSTED, source=INBOX, where="posted events", now=0)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("posted", pa.table({"line": [json.dumps(event) for event in events]}))
        return connection.execute(f"WITH mapped AS ({mapped}) {query}").fetchall()
