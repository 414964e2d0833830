"""Sorts the columns of a drift report by what can be expected of them.

A constant column can't drift: it would only lower the share of drifted columns. A growing column
(a count of all time, an age) always drifts from a frozen reference. It is judged by what it should
be: it must not fall.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

GROWS = re.compile(
    r"(_events_log|_days_since_first_log|_published_years_ago|^history_length_log|user_searches_log"
    r"|^item_age_years|^history_length_log)$"
)
"""Names of features and events whose values grow while nothing is wrong."""
FELL = 0.5
"""Standard deviations of the reference by which the median of a growing column may fall."""


@dataclass(frozen=True)
class ColumnGroups:
    """Names of the columns of a group, each in exactly one list."""

    varying: list[str]
    constant: list[str]
    growing: list[str]
    empty: list[str]


def sort_columns(current: pd.DataFrame, reference: pd.DataFrame) -> ColumnGroups:
    """Sort the columns of two windows; a column without values in one of them is `empty`."""
    found = ColumnGroups([], [], [], [])
    for name in reference.columns:
        now, before = current[name].dropna(), reference[name].dropna()
        if not len(now) or not len(before):
            found.empty.append(name)
        elif pd.concat([now, before]).nunique() <= 1:
            found.constant.append(name)
        elif GROWS.search(str(name)):
            found.growing.append(name)
        else:
            found.varying.append(name)
    return found


def fallen(current: pd.DataFrame, reference: pd.DataFrame, growing: list[str]) -> dict[str, float]:
    """Return, for each growing column, by how many standard deviations its median has fallen."""
    falls = {}
    for name in growing:
        before = reference[name].dropna().to_numpy(float)
        now = current[name].dropna().to_numpy(float)
        spread = max(float(before.std()), 1e-9)
        falls[name] = float(max(0.0, (np.median(before) - np.median(now)) / spread))
    return falls
