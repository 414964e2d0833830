"""Ids and time units that both the service and validation must refuse."""

from datetime import UTC, datetime

NO_IDS = [
    *("undefined", "null", "NULL", "NaN", "nan", "None", "nil", "NIL", "N/A", "n/a", "(null)"),
    *("", " ", "\t", "   ", "\u00a0", "\u200b", "\ufeff", "\x00", "\n"),
    *(" u1", "u1 ", "u1\n", "\u3000u1", "u1\ufeff", "a\tb", "a\x00b", "a\x7fb", "a\x85b"),
    *("196.0", "1e+5", "-3.25", "[1, 2]", '{"id": 7}', "[object Object]", "x" * 257),
]


def us(year: int, month: int = 1, day: int = 1) -> int:
    moment = datetime(year, month, day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return int(moment.total_seconds()) * 1_000_000


UNITS = {"seconds": 1_000_000, "milliseconds": 1_000}
NOW = us(2024, 5, 31) + 36_000_000_123
