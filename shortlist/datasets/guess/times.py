"""Guesses the unit or pattern of a column of times: the one with the most plausible times."""

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import duckdb

from shortlist.datasets.config import Decimal, FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.cells import MISSING_WORDS, time_sql
from shortlist.datasets.files.readers import Raw

OLDEST = 631_152_000_000_000
"""1990-01-01 in microseconds. Earlier times are implausible, unless the user specifies the unit."""
DAY = 86_400_000_000
EARLY = 820_454_400_000_000
"""1996-01-01 in microseconds. If all times are earlier, the reading is reported as a guess. Numbers
that don't count from 1970, such as seconds since 2001 or ticks since the year 1, look like this.
"""
NUMBERS = ("s", "ms", "us", "ticks", "filetime", "ns", "excel")
"""Units of numbers. The first of those that fit equally well is used: present-day ticks are also
nanoseconds of 1990, which are much rarer.
"""
MISSING = re.compile(
    r"(0+(\.0*)?|-1(\.0*)?"
    r"|(0000-00-00|0001-01-01|1970-01-01|1900-01-01)([T ]00:00(:00(\.0+)?)?)?"
    r"(Z| ?\+00(:?00)?| UTC)?)"
)
"""Regular expression of a missing time, as programs write it."""
COMPACT = {"%Y%m%d": 8, "%Y%m%d%H%M%S": 14, "%Y%m%d%H%M": 12, "%Y%m%d%H": 10}
COMPACT |= {"%Y%m": 6, "%y%m%d": 6, "%Y": 4}
"""{pattern of digits only: number of digits}"""
DATES = (
    *("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y"),
    *("%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y"),
    *("%b %d, %Y", "%B %d, %Y", "%m %d, %Y"),
)
ISO_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d")
CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p", ", %H:%M:%S", ", %H:%M")
PATTERNS = (
    *(f"{date}{clock}" for date in DATES for clock in CLOCKS),
    *(f"{date} {clock}" for date in ISO_DATES for clock in ("%I:%M %p", "%I:%M:%S %p")),
    *(f"%Y.%m.%d{clock}" for clock in CLOCKS[:3]),
    *("%Y-%m-%d %H:%M:%S,%g", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S.%g %z"),
    *(
        "%d/%m/%Y %H:%M:%S %z",
        "%m/%d/%Y %H:%M:%S %z",
        "%a, %d %b %Y %H:%M:%S %z",
        "%a, %d %b %Y %H:%M:%S %Z",
    ),
    *("%Y%m%d %H:%M:%S", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a %b %d %H:%M:%S %Y"),
    *("%a %b %d %H:%M:%S %z %Y", "%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S"),
)
TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?")
WORDS = {
    **{"s": "seconds since 1970", "ms": "milliseconds since 1970", "us": "microseconds since 1970"},
    **{"ns": "nanoseconds since 1970", "excel": "days of a spreadsheet (1 is 1900-01-01)"},
    "iso": "dates like 2024-05-31 10:00",
    "ticks": "ticks (100 ns since the year 1)",
    "filetime": "FILETIME (100 ns since 1601)",
}


class SampleReader(Protocol):
    """Interface with the parts of a `Sample` that this module uses."""

    raw: Raw
    values: dict[str, list[str]]
    decimal: Decimal

    @property
    def name(self) -> str: ...

    def ask(self, query: str) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True)
class TimeGuess:
    """The unit or pattern of a column of times, with notes for the user."""

    unit: str
    notes: list[str]
    """How the first times are read, and what is uncertain."""
    newest: int | None
    """Newest time of the whole file that is not in the future, in microseconds; None without any.
    """


@dataclass(frozen=True)
class _UnitFit:
    """For one unit: share of a column's values that it can read, and share that becomes a plausible
    time (between 1990 and now).
    """

    read: float
    plausible: float


def guess_time(sample: SampleReader, column: str, asked: str | None) -> TimeGuess:
    """Guess the unit or pattern of `column`: the one with most values between 1990 and now.

    Args:
        asked: unit or pattern given by the user; None: guess it.

    Raises:
        DatasetError: no unit or pattern fits most values, or the best one gives implausible times.
    """
    notes: list[str] = []
    unit = asked or _best(sample, column, notes)
    meaning = WORDS.get(unit, f"the pattern {unit}")
    first = sorted(dict.fromkeys(sample.values[column]), key=_is_missing)[:50]
    times = _read(first, unit, sample, column)
    shown = [f"{a} is {_as_text(b)}" for a, b in zip(first, times, strict=True) if b is not None]
    if not shown:
        raise DatasetError(
            f"{sample.name}: none of the first times in '{column}' is {meaning}, e.g. {first[:3]}"
        )
    notes.insert(0, f"times in '{column}' are read as {meaning}: {'; '.join(shown[:3])}")
    expression = _expression(sample.raw, column, unit, sample.decimal)
    text = f"nullif(trim(({sample.raw.expressions[column]})::VARCHAR), '')"
    ((newest, bad, total),) = sample.ask(
        f"SELECT max(t) FILTER (t <= {_now() + DAY}), count(*) FILTER (t IS NULL), count(*) FROM"
        f" (SELECT epoch_us({expression}) AS t, {text} AS x FROM {sample.raw.relation})"
        " WHERE x IS NOT NULL"
    )
    if bad:
        wrong = [a for a, b in zip(first, times, strict=True) if b is None][:3]
        example = f", e.g. {', '.join(map(repr, wrong))}" if wrong else ""
        notes.append(f"{bad:,} of {total:,} values of '{column}' are no such times{example}")
    if asked is None and newest is not None and newest < EARLY:
        notes.append(
            f"GUESS: all times in '{column}' are before 1996; if they don't count from 1970,"
            " convert them in the file"
        )
    return TimeGuess(unit, notes, newest)


def _best(sample: SampleReader, column: str, notes: list[str]) -> str:
    column_type = sample.raw.types[column]
    values = [text.strip() for text in sample.values[column]]
    values = [text for text in values if text and text.lower() not in MISSING_WORDS]
    values = [text for text in values if not _is_missing(text)] or values
    typed = column_type.startswith("TIMESTAMP") or column_type == "DATE"
    if typed:
        units = ["iso"]
    elif sum(_is_number(text, sample.decimal) for text in values) > len(values) / 2:
        units = [*NUMBERS, *(length for length, size in COMPACT.items() if _have(values, size))]
    else:
        units = ["iso", *PATTERNS]
    shares = _shares(values, units, column_type if typed else "VARCHAR", sample.decimal)
    best = max(shares, key=lambda unit: (shares[unit].plausible, shares[unit].read))
    if shares[best].plausible <= 0.5:
        raise DatasetError(_refused(sample.name, column, values, best, shares[best], units))
    other = re.sub("%[dm]", lambda found: "%m" if found[0] == "%d" else "%d", best)
    if other != best and other in shares and shares[other].plausible == shares[best].plausible:
        best, other, decided = _order_of_day_and_month(sample, column, best, other)
        if not decided:
            notes.append(
                f"GUESS: the days and months of '{column}' may be in either order; read as {best}."
                f' If that is wrong: --time-unit "{other}"'
            )
    return best


def _is_missing(text: str) -> bool:
    return MISSING.fullmatch(text.strip()) is not None


def _have(values: list[str], size: int) -> bool:
    """Return whether most values have this number of characters."""
    return sum(len(text) == size for text in values) > len(values) / 2


def _is_number(text: str, decimal: Decimal) -> bool:
    plain = text if decimal == "." else text.replace(".", "").replace(",", ".")
    try:
        return math.isfinite(float(plain))
    except ValueError:
        return False


def _order_of_day_and_month(
    sample: SampleReader, column: str, first_pattern: str, second_pattern: str
) -> tuple[str, str, bool]:
    """Choose between two patterns that differ in the order of day and month, by the whole file.

    Returns:
        The better pattern, the other one, and whether the file decides between them.
    """
    times = [
        f"epoch_us({_expression(sample.raw, column, unit, sample.decimal)})"
        for unit in (first_pattern, second_pattern)
    ]
    counted = ", ".join(
        f"count(*) FILTER ({moment} BETWEEN {OLDEST} AND {_now() + DAY})" for moment in times
    )
    ((first, second),) = sample.ask(f"SELECT {counted} FROM {sample.raw.relation}")
    if second > first:
        first_pattern, second_pattern = second_pattern, first_pattern
    return first_pattern, second_pattern, first != second


def _refused(
    name: str, column: str, values: list[str], best: str, share: _UnitFit, units: list[str]
) -> str:
    example = values[0] if values else ""
    where = f"{name}: column '{column}'"
    if not values:
        return f"{where} is empty, want times; say --column event_timestamp=NAME"
    if "s" in units:
        short = sum(len(text) <= 4 and _month_and_day(text) for text in values) > len(values) / 2
        hint = " (month and day without a year? add the year to the file)" if short else ""
        return (
            f"{where} has numbers like {example}{hint}: no reading (s, ms, us, ns, excel, ticks,"
            " filetime, or dates like 20240531) puts most of them between 1990 and today; say"
            " --time-unit if you know it, or --column event_timestamp=NAME"
        )
    if share.read > 0.5:
        return (
            f"{where} read as {WORDS.get(best, best)} is before 1990 or in the future for most"
            f' rows, e.g. {example!r}; if that is right, say --time-unit "{best}"'
        )
    if sum(bool(TIME_OF_DAY.fullmatch(text)) for text in values) > len(values) / 2:
        return (
            f"{where} has times of day without a date, e.g. {example!r}; want both in one column,"
            " or the column of dates: --column event_timestamp=NAME"
        )
    return (
        f"{where} is no time that is understood, e.g. {example!r}; want seconds since 1970, or"
        ' 2024-05-31 10:00, or a pattern like --time-unit "%d.%m.%Y"'
    )


def _month_and_day(text: str) -> bool:
    digits = text.zfill(4)
    return digits.isdigit() and 1 <= int(digits[:2]) <= 12 and 1 <= int(digits[2:]) <= 31


def _shares(
    values: list[str], units: list[str], typed: str, decimal: Decimal
) -> dict[str, _UnitFit]:
    few = values[:200]
    with duckdb.connect() as connection:
        found = [
            unit for unit in units if any(_times(connection, few, unit, typed, decimal))
        ] or units[:1]
        out = {}
        for unit in found:
            times = _times(connection, values, unit, typed, decimal)
            read = [moment for moment in times if moment is not None]
            good = sum(OLDEST <= moment <= _now() + DAY for moment in read)
            count = max(len(values), 1)
            out[unit] = _UnitFit(len(read) / count, good / count)
        return out


def _read(values: list[str], unit: str, sample: SampleReader, column: str) -> list[int | None]:
    with duckdb.connect() as connection:
        return _times(connection, values, unit, sample.raw.types[column], sample.decimal)


def _times(
    connection: duckdb.DuckDBPyConnection,
    values: list[str],
    unit: str,
    typed: str,
    decimal: Decimal,
) -> list[int | None]:
    """Read each value as ingest does, to microseconds; None if it is unreadable."""
    column_type = typed if typed.startswith("TIMESTAMP") or typed == "DATE" else "VARCHAR"
    raw = Raw("", {"x": f"x::{column_type}"}, {"x": column_type}, "")
    moment = f"epoch_us({_expression(raw, 'x', unit, decimal)})"
    query = f"SELECT {moment} FROM (SELECT unnest($1::VARCHAR[]) AS x)"
    return [row[0] for row in connection.execute(query, [values]).fetchall()]


def _expression(raw: Raw, column: str, unit: str, decimal: Decimal) -> str:
    table = FileTable(path="-", columns={}, timestamp_unit=unit, decimal=decimal)
    return time_sql(raw, column, table, "").sql


def _now() -> int:
    return time.time_ns() // 1_000


def _as_text(microseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    text = f"{moment:%Y-%m-%d %H:%M:%S}".removesuffix(":00").removesuffix(" 00:00")
    return f"{text} UTC"
