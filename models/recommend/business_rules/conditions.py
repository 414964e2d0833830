"""Compiles conditions of rules to functions that test many items at once.

Shapes: N items, C candidates, J values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.recommend.business_rules.arrange import any_column
from models.recommend.business_rules.item_columns import Codes, ItemColumns
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.http.rule_config import Condition

Rows = np.ndarray | slice
"""(C,) item_idx, or ALL."""
ALL = slice(None)
"""All N + 1 rows of the catalogue."""
Test = Callable[[Rows, int], np.ndarray]
"""(rows, time of the request in microseconds) -> (C,) bool: whether each item passes the test."""


@dataclass(frozen=True)
class Match:
    """A compiled list of conditions. An item matches if all of them hold."""

    tests: tuple[Test, ...]
    moving: bool = False
    """True if the result depends on the time of the request (`within_days`)."""
    unknown: tuple[str, ...] = field(default=())
    """Messages about values that no item has; they are often typing errors."""

    def __call__(self, rows: Rows, at: int) -> np.ndarray:
        """Return which items match at time `at` (microseconds): (C,) bool."""
        first, *others = self.tests
        found = first(rows, at)
        for test in others:
            found = found & test(rows, at)
        return found


def compile_conditions(conditions: Sequence[Condition], columns: ItemColumns) -> Match:
    """Compile conditions for the items of a catalogue."""
    tests: list[Test] = []
    unknown: list[str] = []
    for condition in conditions:
        name = condition.attribute
        given = [[condition.equals]] if isinstance(condition.equals, str) else []
        given += [] if condition.any_of is None else [condition.any_of]
        for texts in given:
            codes = columns.codes(name)
            missing = [text for text in texts if codes.code_of(text) == 0]
            unknown += [f"no item has {name} '{text}'" for text in missing[:3]]
            tests.append(has_any(codes, texts))
        if condition.none_of is not None:
            tests.append(has_none(columns.codes(name), condition.none_of))
        low, high = condition.bounds
        if low > -np.inf or high < np.inf:
            tests.append(between(columns.numbers(name), low, high))
        if condition.within_days is not None:
            span = int(condition.within_days * MICROSECONDS_PER_DAY)
            tests.append(published_within(columns.numbers(name), span))
    moving = any(condition.within_days is not None for condition in conditions)
    return Match(tuple(tests), moving, tuple(unknown))


def has_any(codes: Codes, texts: Sequence[str]) -> Test:
    """Return a test whether the item has at least one of the values."""
    table, rows_of = codes.table(texts), codes.codes

    def test(rows: Rows, at: int) -> np.ndarray:
        return any_column(table[rows_of[rows]])

    return test


def has_none(codes: Codes, texts: Sequence[str]) -> Test:
    """Return a test whether the item has none of the values; items without a value pass too."""
    test = has_any(codes, texts)
    return lambda rows, at: ~test(rows, at)


def between(values: np.ndarray, low: float, high: float) -> Test:
    """Return a test whether the number is known and within both bounds, which are inclusive."""

    def test(rows: Rows, at: int) -> np.ndarray:
        value = values[rows]
        return (value >= low) & (value <= high)

    return test


def published_within(values: np.ndarray, span: int) -> Test:
    """Return a test whether the item was published at most `span` microseconds before the request.

    Items with a later or unknown date fail.

    Args:
        values: (N + 1,) dates in microseconds, NaN where unknown.
    """

    def test(rows: Rows, at: int) -> np.ndarray:
        value = values[rows]
        return (value >= at - span) & (value <= at)

    return test
