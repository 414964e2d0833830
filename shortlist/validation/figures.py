"""Figures of a whole staged batch, such as volume, share of bad rows, and null rates.

They form the single row of the relation `batch_rows`. Expectations on this row judge the batch.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import duckdb

from shortlist import columns as c
from shortlist.config import ConfigError
from shortlist.lake.engine import name as quoted_name
from shortlist.lake.engine import quoted
from shortlist.lake.staging import staged_events
from shortlist.validation.config import Action, ValidateConfig
from shortlist.validation.rules import SCHEMAS, Rule
from shortlist.validation.sorting import KEYS, Sorting

OPTIONAL = (c.VALUE, c.TEXT, c.QUERY, c.SESSION_ID, c.REQUEST_ID, c.SURFACE, c.DEVICE)
WORDS = (c.EVENT_TYPE, c.SURFACE, c.DEVICE)
MAX_WORDS = 200
SAMPLED_FROM = 2_000_000
"""If a batch has at least this many rows, the share of duplicates is estimated from 1/16 of the
ids.
"""
LOOKED_BACK = 5
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SKEW = 300_000_000
"""Tolerance in microseconds for clients' clocks that are ahead of this machine's."""

# name: (lower limit, upper limit, action, description)
BATCH: dict[str, tuple[float | None, float | None, Action, str]] = {
    "volume.rows": (1, None, "stop", "rows of the batch"),
    "volume.ratio": (0.1, 10, "warn", "rows, as a share of the median of the last batches"),
    "duplicates.share": (None, 0.5, "warn", "share of events that occur more than once"),
    "nulls.change": (None, 0.2, "warn", "largest change of a column's share of nulls"),
    "words.new_share": (
        None,
        0.1,
        "warn",
        "share of events with a type, surface or device not seen in the last batches",
    ),
    "time.age_days": (None, None, "stop", "days from the newest event to now"),
    "time.skew_share": (None, 0.01, "warn", "share of events later than their own arrival"),
    "time.out_of_order_share": (None, 0.6, "warn", "share of events older than the one before"),
    "user_id.top_share": (None, 0.2, "warn", "share of the events of the busiest user"),
    "item_id.top_share": (None, 0.5, "warn", "share of the events on the most frequent item"),
    "user_id.bursts": (None, 0, "warn", "users with more events in a minute than burst_per_minute"),
    # Posted rows are not counted, so that one client's faults don't stop other clients' rows.
    **{f"{table}.bad_share": (None, None, "stop", "share of bad rows") for table in SCHEMAS},
}


@dataclass(frozen=True)
class BatchFigure:
    """A figure of the batch with its limits; `value` is None if it can't be computed."""

    name: str
    value: float | None
    min: float | None
    max: float | None
    action: Action
    says: str


@dataclass
class Figures:
    """Figures of a batch, and values that are stored for comparison with later batches."""

    batch: list[BatchFigure] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """Values stored in the lake's manifest, with which later batches are compared."""


def measure(
    sorting: Sorting, rules: list[Rule], config: ValidateConfig, *, now: datetime
) -> Figures:
    """Compute the figures of a batch after `Sorting.prepare`, and create the relation `batch_rows`.

    A batch of rows restored from quarantine has no figures.

    Raises:
        ConfigError: `[validation.rules]` has a name that is neither a rule nor a figure, or a
            user's aggregate is not valid SQL.
    """
    figures = Figures()
    unknown = set(config.rules) - {rule.name for rule in rules} - set(BATCH)
    if unknown:
        names = sorted({rule.name for rule in rules} | set(BATCH))
        raise ConfigError(
            f"validation.rules: '{min(unknown)}' is unknown, want one of {', '.join(names)}"
        )
    if sorting.batch.replay_of is not None:
        return figures
    values = _batch_values(sorting, figures, now=now)
    figures.batch = [_limited(name, values.get(name), config) for name in BATCH]
    figures.batch += _own(sorting.connection, config)
    sorting.connection.execute(f"CREATE OR REPLACE TEMP VIEW batch_rows AS {one_row(figures)}")
    return figures


def one_row(figures: Figures) -> str:
    """Return SQL that selects one row with all figures that have a value."""
    known = [figure for figure in figures.batch if figure.value is not None]
    listed = [
        f"{float(figure.value or 0)!r}::DOUBLE AS {quoted_name(figure.name)}" for figure in known
    ]
    return f"SELECT {', '.join(listed) or 'NULL AS nothing'}"


def rows_of(sorting: Sorting, table: str) -> tuple[int, int]:
    """Return (number of rows, number of bad rows) of a table; both include unparsable lines."""
    counts, lines = sorting.counts[table], sorting.batch.rejected.get(table, 0)
    return counts.rows + lines, counts.bad + lines


def _limited(name: str, value: float | None, config: ValidateConfig) -> BatchFigure:
    low, high, action, says = BATCH[name]
    if name == "volume.rows":
        low, high = config.min_rows, config.max_rows
    if name == "time.age_days":
        high = config.max_age_days
    if name.endswith(".bad_share"):
        high = config.failure_budget
    change = config.rules.get(name)
    if change is not None:
        low = low if change.min is None else change.min
        high = high if change.max is None else change.max
        action = change.action or action
    return BatchFigure(name, value, low, high, action, says)


def _own(connection: duckdb.DuckDBPyConnection, config: ValidateConfig) -> list[BatchFigure]:
    out = []
    for expectation in config.expectations:
        if expectation.batch is None:
            continue
        try:
            found = connection.execute(
                f"SELECT ({expectation.batch})::DOUBLE FROM {expectation.table}_rows"
            )
            ((value,),) = found.fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"validation.expectations: '{expectation.name}': {str(error).splitlines()[0]};"
                " want an SQL aggregate"
            ) from None
        out.append(
            BatchFigure(
                expectation.name,
                value,
                expectation.min,
                expectation.max,
                expectation.action or "stop",
                expectation.batch,
            )
        )
    return out


def _batch_values(sorting: Sorting, figures: Figures, *, now: datetime) -> dict[str, float | None]:
    connection = sorting.connection
    rows, _ = rows_of(sorting, "interactions")
    nulls = ", ".join(f"avg(({name} IS NULL)::INTEGER)" for name in OPTIONAL)
    late = f"epoch_us({c.EVENT_TIMESTAMP}) > epoch_us({c.INGESTED_AT}) + {SKEW}"
    newest, skew, *shares = connection.execute(
        f"SELECT epoch_us(max({c.EVENT_TIMESTAMP})), avg(({late})::INTEGER), {nulls} FROM staged"
    ).fetchall()[0]
    words = {
        name: [
            row[0]
            for row in connection.execute(
                f"SELECT {name} FROM staged WHERE {name} IS NOT NULL GROUP BY {name}"
                f" ORDER BY count(*) DESC LIMIT {MAX_WORDS}"
            ).fetchall()
        ]
        for name in WORDS
    }
    past = sorting.manifest.batches[-LOOKED_BACK:]
    past = [figure for figure in past if figure.get("rows")]
    figures.record = {
        "rows": rows,
        "nulls": dict(zip(OPTIONAL, shares, strict=True)),
        "words": words,
    }
    values: dict[str, float | None] = {
        # None if no row was read from the run's source: posted events only, or only a catalogue.
        "volume.rows": rows - sorting.counts["interactions"].posted_rows or None,
        "volume.ratio": rows / median(figure["rows"] for figure in past) if past and rows else None,
        "duplicates.share": _duplicates(connection, rows),
        "nulls.change": _change(past, figures.record["nulls"]),
        "words.new_share": _new_words(connection, past),
        "time.age_days": None if newest is None else (now.timestamp() - newest / 1e6) / 86_400,
        "time.skew_share": skew,
        "time.out_of_order_share": _out_of_order(connection),
        "user_id.bursts": connection.execute(
            "SELECT count(DISTINCT user_id) FROM bursts"
        ).fetchall()[0][0],
    }
    for key in KEYS.values():
        top = f"SELECT max(n) FROM (SELECT count(*) AS n FROM staged GROUP BY {key})"
        ((largest,),) = connection.execute(top).fetchall()
        many = rows >= 100  # in a small batch, a large share means nothing
        values[f"{key}.top_share"] = largest / rows if largest and many else None
    for table in SCHEMAS:
        counts, (all_rows, bad) = sorting.counts[table], rows_of(sorting, table)
        judged = all_rows - counts.posted_rows
        values[f"{table}.bad_share"] = (bad - counts.posted_bad) / judged if judged else None
    return values


def _duplicates(connection: duckdb.DuckDBPyConnection, rows: int) -> float | None:
    step = 16 if rows >= SAMPLED_FROM else 1
    ids = f"SELECT hash(event_id) AS id FROM staged WHERE hash(event_id) % {step} = 0"
    query = f"SELECT count(*), count(DISTINCT id) FROM ({ids})"
    ((total, distinct),) = connection.execute(query).fetchall()
    return 1 - distinct / total if total else None


def _change(past: list[dict[str, Any]], now: dict[str, float | None]) -> float | None:
    changes = [
        abs(share - median(figure["nulls"][name] for figure in past))
        for name, share in now.items()
        if past
        and share is not None
        and all(earlier["nulls"].get(name) is not None for earlier in past)
    ]
    return max(changes, default=None)


def _new_words(connection: duckdb.DuckDBPyConnection, past: list[dict[str, Any]]) -> float | None:
    if not past:
        return None
    conditions = []
    for name in WORDS:
        seen = sorted({word for figure in past for word in figure["words"].get(name, [])})
        if seen:
            listed = ", ".join(quoted(word) for word in seen)
            conditions.append(f"coalesce({name} NOT IN ({listed}), false)")
    if not conditions:
        return None
    query = f"SELECT avg(({' OR '.join(conditions)})::INTEGER) FROM staged"
    return connection.execute(query).fetchall()[0][0]


def _out_of_order(connection: duckdb.DuckDBPyConnection) -> float | None:
    return connection.execute(
        f"SELECT avg((t < before)::INTEGER) FROM (SELECT {c.EVENT_TIMESTAMP} AS t,"
        f" lag({c.EVENT_TIMESTAMP}) OVER () AS before FROM staged)"
    ).fetchall()[0][0]


def data_now(sorting: Sorting, clock: str) -> datetime:
    """Return the time relative to which ages and future times are judged.

    It is the current time; on the replay clock, the time of the newest event of lake and batch.
    """
    if clock == "wall":
        return datetime.now(UTC)
    query = f"SELECT epoch_us(max({c.EVENT_TIMESTAMP})) FROM {staged_events(sorting.folder)}"
    newest = [sorting.connection.execute(query).fetchall()[0][0], sorting.manifest.latest]
    last = EPOCH + timedelta(microseconds=max(row or 0 for row in newest))
    # Events with a time in the future must stay later than `now`, so that they are refused.
    return min(last, datetime.now(UTC))
