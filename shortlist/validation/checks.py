"""What can be asked of the values of a column, each as SQL and as a Great Expectations expectation.

Both come from the same arguments, so that the rows that validation takes out are the rows that
Great Expectations finds unexpected. As there, a null value passes every check but `present`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shortlist.lake.engine import name, quoted


@dataclass(frozen=True)
class Check:
    """One question about the values of `column`."""

    column: str
    fails: str
    """SQL: true for a value that does not pass; may be NULL for a null value."""
    expectation: str
    """Class in `great_expectations.expectations`."""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def bad(self) -> str:
        """SQL: true for a row that breaks the rule, else false; never NULL."""
        return f"coalesce({self.fails}, false)"


def present(column: str) -> Check:
    """A value is there."""
    return Check(column, f"{name(column)} IS NULL", "ExpectColumnValuesToNotBeNull")


def empty(column: str) -> Check:
    """No value is there. For columns that hold a value only where something is wrong."""
    return Check(column, f"{name(column)} IS NOT NULL", "ExpectColumnValuesToBeNull")


def within(
    column: str,
    low: float | datetime | None = None,
    high: float | datetime | None = None,
    *,
    below: datetime | None = None,
) -> Check:
    """`low <= value <= high`, or `value < below`. NaN is more than any number, as in DuckDB."""
    limits = ((">=", low), ("<=", high), ("<", below))
    parts = [f"{name(column)} {sign} {_literal(v)}" for sign, v in limits if v is not None]
    arguments: dict[str, Any] = {}
    if low is not None:
        arguments["min_value"] = _plain(low)
    if high is not None:
        arguments["max_value"] = _plain(high)
    if below is not None:
        arguments |= {"max_value": _plain(below), "strict_max": True}
    return Check(column, f"NOT ({' AND '.join(parts)})", "ExpectColumnValuesToBeBetween", arguments)


def one_of(column: str, values: Sequence[str]) -> Check:
    """The value is one of these."""
    listed = ", ".join(quoted(value) for value in values)
    arguments = {"value_set": list(values)}
    return Check(
        column, f"{name(column)} NOT IN ({listed})", "ExpectColumnValuesToBeInSet", arguments
    )


def none_of(column: str, values: Sequence[str | float]) -> Check:
    """The value is none of these."""
    listed = ", ".join(_literal(value) for value in values)
    arguments = {"value_set": list(values)}
    return Check(
        column, f"{name(column)} IN ({listed})", "ExpectColumnValuesToNotBeInSet", arguments
    )


def length(column: str, low: int | None, high: int) -> Check:
    """A text has `low` to `high` characters."""
    text = f"length({name(column)})"
    fails = f"{text} > {high}" if low is None else f"{text} NOT BETWEEN {low} AND {high}"
    arguments = {"max_value": high} | ({} if low is None else {"min_value": low})
    return Check(column, fails, "ExpectColumnValueLengthsToBeBetween", arguments)


def _plain(value: float | datetime) -> float | str:
    """As a suite's file holds it."""
    return value.isoformat() if isinstance(value, datetime) else value


def _literal(value: str | float | datetime) -> str:
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ {quoted(value.isoformat())}"
    return quoted(value) if isinstance(value, str) else repr(value)
