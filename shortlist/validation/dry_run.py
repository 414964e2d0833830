"""Counts the rows of a table that validation would refuse, before anything is staged.

`shortlist init` uses it to check its guesses.
"""

from dataclasses import dataclass, field
from typing import Any

import duckdb

from shortlist.lake.engine import columns_of, name
from shortlist.validation.lake_views import FLAGS
from shortlist.validation.rules import Rule
from shortlist.validation.sorting import KEYS, with_conflicts


@dataclass(frozen=True)
class RefusalForecast:
    """Result of `would_refuse`."""

    rows: int
    """Number of rows that were checked."""
    bad: int
    """Number of rows that break a rule."""
    broken: dict[str, int] = field(default_factory=dict)
    """{rule: number of rows that break it}."""
    figures: tuple[Any, ...] = ()
    """Values of the requested SQL aggregates."""

    @property
    def share(self) -> float:
        return self.bad / self.rows if self.rows else 0.0


def would_refuse(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    relation: str,
    rules: list[Rule],
    *,
    figures: tuple[str, ...] = (),
) -> RefusalForecast:
    """Count the rows that single-row rules refuse. Rows that `[data] exclude` matches don't count.

    Rules that depend on the lake or on other events (unknown ids, ambiguous ids, bursts) never
    refuse a row here.

    Args:
        table: name of the table.
        relation: SQL of the rows in the form in which ingest stages them.
        rules: rules of all tables; rules that only warn are ignored.
        figures: SQL aggregates over the judged rows; the column `bad` marks refused rows.
    """
    mine = [rule for rule in rules if rule.table == table and rule.action != "warn"]
    if table in KEYS:
        there = columns_of(connection, f"({relation})")
        relation, flags = with_conflicts(f"({relation})", KEYS[table], there), {}
    else:
        relation, flags = f"(SELECT * FROM ({relation}) WHERE NOT excluded)", FLAGS[table]
    given = "".join(f", {value} AS {column}" for column, value in flags.items())
    derived = "".join(f", {rule.value} AS {name(rule.check.column)}" for rule in mine if rule.value)
    broken = [f"({rule.bad})" for rule in mine]
    counts = [f"count(*) FILTER (broken[{i + 1}])" for i in range(len(mine))]
    found = connection.execute(
        f"SELECT count(*), count(*) FILTER (bad), {', '.join([*counts, *figures])} FROM"
        f" (SELECT *, [{', '.join(broken)}] AS broken, {' OR '.join(broken)} AS bad"
        f" FROM (SELECT *{derived} FROM (SELECT *{given} FROM {relation})))"
    )
    ((rows, bad, *rest),) = found.fetchall()
    each, more = rest[: len(mine)], rest[len(mine) :]
    named = {rule.name: many for rule, many in zip(mine, each, strict=True) if many}
    return RefusalForecast(rows, bad, named, tuple(more))
