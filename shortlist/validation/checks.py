"""Checks of a column's values, each as SQL and as an expectation of Great Expectations.

Both are built from the same arguments, so validation removes exactly the rows that Great
Expectations finds unexpected. As there, null values pass every check except `present`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shortlist.lake.engine import name, quoted

BETWEEN, LENGTHS = "ExpectColumnValuesToBeBetween", "ExpectColumnValueLengthsToBeBetween"
IN_SET, NOT_IN_SET = "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToNotBeInSet"
LIMITS: dict[str, dict[str, Any]] = {
    check: {"min_value": None, "max_value": None, "strict_min": False, "strict_max": False}
    for check in (BETWEEN, LENGTHS)
} | {check: {"value_set": None} for check in (IN_SET, NOT_IN_SET)}
"""{expectation: its limits and their defaults}."""


@dataclass(frozen=True)
class Check:
    """A condition on the values of `column`."""

    column: str
    fails: str
    """SQL condition that is true for a value that fails; it may be NULL for a null value."""
    expectation: str
    """Name of the class in `great_expectations.expectations`."""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def bad(self) -> str:
        """SQL condition that is true for a row that fails and false for all others, never NULL."""
        return f"coalesce({self.fails}, false)"

    @property
    def limits(self) -> dict[str, Any]:
        """All limits of the expectation, in the form in which a suite's file stores them."""
        found = LIMITS.get(self.expectation, {}) | self.arguments
        return {limit: plain(value) for limit, value in found.items()}

    def edited(self, limits: dict[str, Any]) -> "Check":
        """Return the check with other limits.

        Args:
            limits: {limit: new value}; None removes the limit.

        Raises:
            ValueError: a limit has another type than the check's current limits, or no limit is
                left.
        """
        types = {type(member) for value in self.arguments.values() for member in _each(value)} - {
            bool
        }
        arguments = self.arguments | {
            limit: value if value is None or limit.startswith("strict") else _typed(value, types)
            for limit, value in limits.items()
        }
        return replace(self, arguments=arguments, fails=_fails(self, arguments))


def present(column: str) -> Check:
    """Return a check that fails for null values."""
    return Check(column, f"{name(column)} IS NULL", "ExpectColumnValuesToNotBeNull")


def empty(column: str) -> Check:
    """Return a check that fails for non-null values.

    It is used on derived columns that are non-null only in bad rows.
    """
    return Check(column, f"{name(column)} IS NOT NULL", "ExpectColumnValuesToBeNull")


def within(
    column: str,
    low: float | datetime | None = None,
    high: float | datetime | None = None,
    *,
    below: datetime | None = None,
) -> Check:
    """Return a check for `low <= value <= high`, or `value < below`.

    As in DuckDB, NaN is larger than any number.
    """
    limits = {"min_value": low, "max_value": high if below is None else below}
    if below is not None:
        limits["strict_max"] = True
    return _check(column, BETWEEN, limits)


def one_of(column: str, values: Sequence[str]) -> Check:
    """Return a check that the value is one of `values`."""
    return _check(column, IN_SET, {"value_set": list(values)})


def none_of(column: str, values: Sequence[str | float]) -> Check:
    """Return a check that the value is none of `values`."""
    return _check(column, NOT_IN_SET, {"value_set": list(values)})


def length(column: str, low: int | None, high: int) -> Check:
    """Return a check that a text has `low` to `high` characters."""
    return _check(column, LENGTHS, {"min_value": low, "max_value": high})


def plain(value: Any) -> Any:
    """Convert a limit to the form in which a suite's file stores it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return sorted(value) if isinstance(value, set) else value


def _check(column: str, expectation: str, arguments: dict[str, Any]) -> Check:
    given = {limit: value for limit, value in arguments.items() if value is not None}
    made = Check(column, "", expectation, given)
    return replace(made, fails=_fails(made, given))


def _fails(check: Check, arguments: dict[str, Any]) -> str:
    """Return the SQL condition for values that Great Expectations finds unexpected."""
    column = name(check.column)
    if check.expectation in (IN_SET, NOT_IN_SET):
        values = arguments["value_set"]
        if not values:  # as in Great Expectations: None means no limit, [] allows no value
            return "true" if values == [] and check.expectation == IN_SET else "false"
        listed = ", ".join(_literal(value) for value in values)
        return f"{column} {'NOT IN' if check.expectation == IN_SET else 'IN'} ({listed})"
    value = f"length({column})" if check.expectation == LENGTHS else column
    signs = (
        ">" if arguments.get("strict_min") else ">=",
        "<" if arguments.get("strict_max") else "<=",
    )
    limits = zip(signs, (arguments.get("min_value"), arguments.get("max_value")), strict=True)
    parts = [f"{value} {sign} {_literal(limit)}" for sign, limit in limits if limit is not None]
    if not parts:
        raise ValueError("want min_value, max_value or both")
    return f"NOT ({' AND '.join(parts)})"


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _typed(value: Any, types: set[type]) -> Any:
    """Return a limit, or each value of a list, with its type checked; times are parsed from text.

    Args:
        types: types of the check's current limits.
    """
    if isinstance(value, (list, set, tuple)):
        return [_typed(member, types) for member in sorted(value, key=str)]
    if datetime in types:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        fits = isinstance(value, datetime)
    elif str in types:
        fits = isinstance(value, str)
    else:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits:
        wanted = "a time" if datetime in types else "text" if str in types else "a number"
        raise ValueError(f"{value!r}: want {wanted}")
    return value


def _literal(value: str | float | datetime) -> str:
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ {quoted(value.isoformat())}"
    return quoted(value) if isinstance(value, str) else repr(value)
