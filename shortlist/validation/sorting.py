"""Separates the good rows of a staged batch from the bad ones.

All relations are views over Parquet files or small tables of ids, so a batch needn't fit in memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.behaviour.counting import INBOX, POSTED
from shortlist.config import ConfigError
from shortlist.contracts import INTERACTIONS
from shortlist.forgetting.register import Register
from shortlist.lake.engine import columns_of, name, parquet, quoted
from shortlist.lake.snapshot import Manifest, current_folder
from shortlist.lake.staging import StagedBatch, staged_events, staged_rows
from shortlist.lake.versions import BARE
from shortlist.validation.config import ValidateConfig
from shortlist.validation.flags import Flags
from shortlist.validation.rules import SCHEMAS, Rule

NUMBER = {"interactions": c.EVENT_ORDER, "items": "number", "users": "number"}
"""{table: column with the number of each staged row}."""
KEYS = {"items": c.ITEM_ID, "users": c.USER_ID}


@dataclass
class Counts:
    """Numbers of rows of a table. The fields `posted_...` count only rows posted to the service."""

    rows: int = 0
    bad: int = 0
    """Number of rows that break a rule whose action isn't warn; they are quarantined."""
    broken: dict[str, int] = field(default_factory=dict)
    """{rule: number of rows that are quarantined because of it}, without rules that no row breaks.
    """
    posted_rows: int = 0
    posted_bad: int = 0
    posted_broken: dict[str, int] = field(default_factory=dict)


@dataclass
class Sorting:
    """A staged batch as relations of one DuckDB connection.

    Args:
        root: folder of the lake.
        folder: folder of the staged batch.
    """

    connection: duckdb.DuckDBPyConnection
    root: Path
    folder: Path
    batch: StagedBatch
    config: ValidateConfig

    def __post_init__(self) -> None:
        self.lake = current_folder(self.root)
        self.unique_ids = False
        """True if no given event_id occurs twice in the batch."""
        self.counts = {table: Counts() for table in SCHEMAS}
        self.reasons: dict[str, list[tuple[str, str]]] = {}
        """{table: [(name, reason) of each rule whose action isn't warn]}. The numbers in the column
        `broken` of `<table>_bad` are positions in this list.
        """
        self.excluded = 0
        """Number of events that match `[data] exclude`, or that belong to the past of a forgotten
        user. They are neither judged nor added.
        """
        self.cut: int | None = None
        """Microseconds; good events at or after it are held back for the replay. None: none are."""
        self.manifest = Manifest() if self.lake is None else Manifest.read(self.lake)

    def prepare(self, rules: list[Rule]) -> None:
        """Create the relations of each table and count the bad rows.

        `<table>_rows` has the rows that are not excluded, with the columns that rules check.
        `<table>_bad` has the rows that break a rule whose action isn't warn; they are quarantined.

        Raises:
            ConfigError: a user's expectation is not valid SQL on the table's columns.
        """
        events = staged_events(self.folder)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW staged AS {self._of_known(events, c.EVENT_TIMESTAMP)}"
            " AND NOT excluded"
        )
        (self.excluded,) = self._row(
            f"SELECT (SELECT count(*) FROM {events}) - (SELECT count(*) FROM staged)"
        )
        for table, key in KEYS.items():
            self._table_rows(table, key)
            self._view(table, rules)
            self._part(table, rules)
            self._known(table, key)
        flags = Flags(
            self.connection,
            self.folder,
            self.batch,
            self.lake,
            self.manifest,
            self.config.burst_per_minute,
        )
        flagged = flags.prepare()
        self.unique_ids = flags.unique_ids
        known = {
            table: f"coalesce(k_{table}.known, false)" if self._joins(table) else "true"
            for table in KEYS
        }
        joins = "".join(
            f" LEFT JOIN known_{table} k_{table} ON e.{key} = k_{table}.id"
            for table, key in KEYS.items()
            if self._joins(table)
        )
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP VIEW interactions_prepared AS
            SELECT e.*, {known["items"]} AS item_is_known, {known["users"]} AS user_is_known,
                {", ".join(f"{sql} AS {flag}" for flag, sql in flagged.items())}
            FROM staged e{joins}
        """)
        self._view("interactions", rules)
        self._part("interactions", rules)

    def good_events(self) -> str:
        """Return the relation of the good events that are not held back, with `operation`.

        Corrections and deletions are never held back.
        """
        before = ""
        if self.cut is not None:
            newer = f"operation = 'insert' AND epoch_us({c.EVENT_TIMESTAMP}) >= {self.cut}"
            before = f" WHERE NOT coalesce({newer}, false)"
        listed = ", ".join(INTERACTIONS.names)
        return f"(SELECT {listed}, operation FROM {self._good('interactions')}{before})"

    def arrived(self, now: int) -> int:
        """Return the arrival time of the batch in microseconds: `now` if no event is held back.

        Otherwise `now` may be the time of a held-back event, so the arrival is at most the cut or
        the time of the lake's newest event, whichever is later.
        """
        if self.cut is None:
            return now
        return min(now, max(self.cut, self.manifest.latest or 0))

    def good_rows(self, table: str) -> pa.Table:
        """Return the good items or users, each id once, and rows for ids that events create."""
        schema, key = SCHEMAS[table], KEYS[table]
        there = columns_of(self.connection, f"{table}_rows")
        extra = [name for name in there if name.startswith("vector_")]
        names = ", ".join([*schema.names, *extra])
        query = (
            f"SELECT {names} FROM {self._good(table)}"
            f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY number DESC) = 1"
        )
        found = self.connection.sql(query).to_arrow_table()
        fields = [*schema, *(pa.field(name, pa.list_(pa.float32())) for name in extra)]
        rows = found.cast(pa.schema([pa.field(f.name, f.type) for f in fields]))
        if self.creates(table):
            rows = pa.concat_tables([rows, self._created(table)], promote_options="default")
        return rows

    def withdrawn(self) -> pa.Table:
        """Return the items of the lake that a complete catalogue no longer has, as unavailable.

        Items in quarantine and items that only events mention are not withdrawn. If a row of the
        catalogue has no id, no item is withdrawn, because the row may be any of them.
        """
        path = None if self.lake is None else self.lake / "items.parquet"
        if not self.batch.whole_catalogue or path is None or not path.is_file():
            return SCHEMAS["items"].empty_table()
        (nameless,) = self._row(f"SELECT count(*) FROM items_prepared WHERE {c.ITEM_ID} IS NULL")
        before = pq.read_table(path)
        if nameless or self.batch.rejected.get("items"):
            return before.slice(0, 0)
        gone = self.connection.sql(
            f"SELECT {c.ITEM_ID} FROM {parquet([path])} a ANTI JOIN items_prepared"
            f" USING ({c.ITEM_ID}) WHERE a.{c.AVAILABLE} AND NOT ({BARE})"
        ).to_arrow_table()
        ids = gone.column(c.ITEM_ID).cast(pa.string())
        rows = before.filter(pc.is_in(before.column(c.ITEM_ID), value_set=ids))
        # updated_at is removed, so that the items count as unavailable from the batch's arrival.
        for column, value in ((c.AVAILABLE, False), (c.UPDATED_AT, None)):
            field = SCHEMAS["items"].field(column)
            values = pa.array([value] * len(rows), field.type)
            column_index = rows.schema.get_field_index(column)
            if column_index < 0:  # a lake of an earlier version lacks the column
                rows = rows.append_column(field, values)
            else:
                rows = rows.set_column(column_index, field, values)
        return rows

    def _good(self, table: str) -> str:
        """Return SQL of the rows that are not in `<table>_bad`."""
        source = self._judged(table)
        if not self.counts[table].broken:
            return source
        number = NUMBER[table]
        return f"(SELECT * FROM {source} ANTI JOIN {table}_bad b ON {source}.{number} = b.number)"

    def creates(self, table: str) -> bool:
        """Return whether events create rows of this table for unknown ids."""
        policy = self.config.unknown_items if table == "items" else self.config.unknown_users
        return policy == "create" or table in self.batch.create

    def _created(self, table: str) -> pa.Table:
        key = KEYS[table]
        ids = self.connection.sql(
            f"SELECT DISTINCT {key} AS id FROM {self.good_events()} e"
            f" ANTI JOIN known_{table} k ON e.{key} = k.id WHERE {key} IS NOT NULL"
        ).to_arrow_table()
        columns = {key: ids.column("id").cast(pa.string())}
        if table == "items":
            columns[c.CATEGORIES] = pa.array([[]] * ids.num_rows, pa.list_(pa.string()))
            columns[c.AVAILABLE] = pa.array([True] * ids.num_rows, pa.bool_())
        return pa.table(columns)

    def _view(self, table: str, rules: list[Rule]) -> None:
        """Create `<table>_rows`: the prepared rows and the derived columns of the rules."""
        mine = [rule for rule in rules if rule.table == table]
        derived = [
            (rule, f"{rule.value} AS {name(rule.check.column)}") for rule in mine if rule.value
        ]
        listed = ", ".join(["*", *(sql for _, sql in derived)])
        try:
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {table}_rows AS SELECT {listed} FROM {table}_prepared"
            )
        except duckdb.Error:
            for rule, sql in derived:
                self._bind(rule, f"SELECT {sql} FROM {table}_prepared LIMIT 0")
            raise
        for rule in mine:
            if rule.query is not None:
                self._bind(rule, rule.query)

    def _bind(self, rule: Rule, query: str) -> None:
        try:
            self.connection.execute(query)
        except duckdb.Error as error:
            text = str(error).splitlines()[0]
            raise ConfigError(
                f"validation.expectations: '{rule.name}': {text}; want an SQL condition on the"
                f" columns of {rule.table}: {', '.join(SCHEMAS[rule.table].names)}"
            ) from None

    def _part(self, table: str, rules: list[Rule]) -> None:
        """Create `<table>_bad` and count the rows that break each rule, in one pass.

        The column `broken` lists the positions of the broken rules in `reasons`.
        """
        mine = [rule for rule in rules if rule.table == table and rule.action != "warn"]
        names = [n for n in SCHEMAS[table].names if n != c.EVENT_ORDER]
        file = c.SOURCE if table == "interactions" else quoted(table)
        if self.batch.posted:
            file = quoted(INBOX)
        cases = ", ".join(
            f"CASE WHEN {rule.bad} THEN {rule_index} END" for rule_index, rule in enumerate(mine)
        )
        condition = " OR ".join(f"({rule.bad})" for rule in mine)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table}_bad AS SELECT {', '.join(names)},"
            f" {file} AS file, {NUMBER[table]} AS number,"
            f" list_filter([{cases}], lambda one: one IS NOT NULL) AS broken"
            f" FROM {table}_rows WHERE {condition}"
        )
        counts = self.counts[table]
        from_service = " OR ".join(f"starts_with(file, {quoted(prefix)})" for prefix in POSTED)
        found = self.connection.execute(
            f"SELECT place, count(*), count(*) FILTER ({from_service})"
            f" FROM (SELECT unnest(broken) AS place, file FROM {table}_bad) GROUP BY 1"
        ).fetchall()
        counts.broken = {mine[place].name: rows for place, rows, _ in found}
        counts.posted_broken = {mine[place].name: posted for place, _, posted in found}
        figures = f"SELECT count(*), count(*) FILTER ({from_service}) FROM"
        counts.bad, counts.posted_bad = self._row(f"{figures} {table}_bad")
        all_rows = f"(SELECT {file} AS file FROM {self._judged(table)})"
        counts.rows, counts.posted_rows = self._row(f"{figures} {all_rows}")
        self.reasons[table] = [(rule.name, rule.reason) for rule in mine]

    def _judged(self, table: str) -> str:
        return "staged" if table == "interactions" else f"{table}_prepared"

    def _row(self, query: str) -> tuple[Any, ...]:
        (row,) = self.connection.execute(query).fetchall()
        return row

    def _table_rows(self, table: str, key: str) -> None:
        relation = staged_rows(self.folder, table)
        if table == "users":
            relation = f"({self._of_known(relation, c.CREATED_AT)})"
        there = columns_of(self.connection, relation)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table}_prepared AS"
            f" SELECT * FROM {with_conflicts(relation, key, there)}"
        )

    def _of_known(self, relation: str, moment: str) -> str:
        """Return SQL of the rows that don't belong to the past of a forgotten user.

        Args:
            relation: staged events or users.
            moment: column with the time of a row; NULL counts as the past.
        """
        register = Register(self.root.parent / "forgotten")
        if not register.requests:
            return f"SELECT * FROM {relation} WHERE true"
        name = f"forgotten_{moment}"
        register.table(self.connection, relation, name=name)
        return (
            f"SELECT s.* FROM {relation} s LEFT JOIN {name} f USING ({c.USER_ID})"
            f" WHERE coalesce(epoch_us({moment}), 0) >= coalesce(f.asked_at, 0)"
        )

    def _known(self, table: str, key: str) -> None:
        good = f"SELECT {key} AS id FROM {self._good(table)}"
        if self.lake is not None and (self.lake / f"{table}.parquet").is_file():
            good += f" UNION SELECT {key} FROM {parquet([self.lake / f'{table}.parquet'])}"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE known_{table} AS"
            f" SELECT DISTINCT id, true AS known FROM ({good}) WHERE id IS NOT NULL"
        )

    def _joins(self, table: str) -> bool:
        """Return whether events must be joined with the known ids of this table.

        Only then a rule needs to know whether an event's item or user is known.
        """
        policy = self.config.unknown_items if table == "items" else self.config.unknown_users
        return policy == "quarantine" and table not in self.batch.create


def with_conflicts(relation: str, key: str, columns: Iterable[str]) -> str:
    """Return SQL that adds `number` and `id_conflict` to staged items or users.

    `id_conflict` is true if another row has the same id but different content.

    Args:
        key: id column.
        columns: columns of the relation.
    """
    data_columns = [n for n in columns if n not in ("faults", "original", "operation", "excluded")]
    return f"""(
        SELECT *, coalesce(operation = 'insert' AND {key} IS NOT NULL
            AND min(content) OVER (PARTITION BY {key})
            <> max(content) OVER (PARTITION BY {key}), false) AS id_conflict
        FROM (
            SELECT *, row_number() OVER () - 1 AS number,
                CASE WHEN operation = 'insert' THEN hash({", ".join(data_columns)}) END AS content
            FROM {relation}
        )
    )"""
