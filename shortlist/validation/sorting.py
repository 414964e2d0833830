"""Parting a staged batch: views over its rows with what rules ask about, good rows, bad rows.

Everything is a view over Parquet or a small table of ids; events are never in memory as a whole.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from shortlist import columns as c
from shortlist.config import ConfigError
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.lake.engine import columns_of, parquet, quoted
from shortlist.lake.publish import GONE
from shortlist.lake.snapshot import Manifest, current_folder
from shortlist.lake.staging import PART_BITS, REJECTED, StagedBatch, staged_events, staged_rows
from shortlist.validation.config import ValidateConfig
from shortlist.validation.rules import Rule

KEYS = {"items": c.ITEM_ID, "users": c.USER_ID}
SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}
CONTENT = "hash(user_id, item_id, event_type, event_timestamp, value, text, query)"
MINUTE = 60_000_000


@dataclass
class Sorting:
    """A staged batch as relations of one connection: `<table>_rows` with all its rows."""

    connection: duckdb.DuckDBPyConnection
    root: Path
    folder: Path
    batch: StagedBatch
    config: ValidateConfig

    def __post_init__(self) -> None:
        self.lake = current_folder(self.root)
        self.unique_ids = False
        """Whether each given event_id is known to be there once."""
        self.manifest = Manifest() if self.lake is None else Manifest.read(self.lake)

    def prepare(self, rules: list[Rule]) -> None:
        """Make the views and small tables that the rules read.

        Raises:
            ConfigError: an expectation of the user's is no SQL over the table's columns.
        """
        for table, key in KEYS.items():
            self._table_rows(table, key)
            self._check(table, rules)
            self._known(table, key, rules)
        self._conflicts()
        self._operation_targets()
        self._bursts()
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
            CREATE OR REPLACE TEMP VIEW interactions_rows AS
            SELECT e.*, {known["items"]} AS item_is_known, {known["users"]} AS user_is_known,
                {self._flag("conflicts", "e.event_id")} AS id_conflict,
                e.operation IN ('correct', 'delete')
                    AND NOT {self._flag("targets", "e.event_id")} AS operation_misses,
                {self._burst_flag()} AS in_burst
            FROM {staged_events(self.folder)} e{joins}
        """)
        self._check("interactions", rules)

    def good_events(self, rules: list[Rule]) -> str:
        """Relation of the events that no quarantining rule holds back."""
        names = ", ".join(INTERACTIONS.names)
        return (
            f"(SELECT {names}, operation FROM interactions_rows"
            f" WHERE NOT excluded AND NOT ({any_bad(rules, 'interactions')}))"
        )

    def good_rows(self, table: str, rules: list[Rule]) -> pa.Table:
        """Items or users that are good, each once, and those that events are to create."""
        schema, key = SCHEMAS[table], KEYS[table]
        there = columns_of(self.connection, f"{table}_rows")
        extra = [name for name in there if name.startswith("vector_")]
        names = ", ".join([*schema.names, *extra])
        query = (
            f"SELECT {names} FROM {table}_rows WHERE NOT ({any_bad(rules, table)})"
            f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY number DESC) = 1"
        )
        found = self.connection.sql(query).to_arrow_table()
        fields = [*schema, *(pa.field(name, pa.list_(pa.float32())) for name in extra)]
        rows = found.cast(pa.schema([pa.field(f.name, f.type) for f in fields]))
        if self.creates(table):
            rows = pa.concat_tables([rows, self._created(table, rules)], promote_options="default")
        return rows

    def creates(self, table: str) -> bool:
        """Whether events bring ids of this table with them."""
        policy = self.config.unknown_items if table == "items" else self.config.unknown_users
        return policy == "create" or table in self.batch.create

    def _created(self, table: str, rules: list[Rule]) -> pa.Table:
        key, good = KEYS[table], self.good_events(rules)
        ids = self.connection.sql(
            f"SELECT DISTINCT {key} AS id FROM {good} e ANTI JOIN known_{table} k ON e.{key} = k.id"
            f" WHERE {key} IS NOT NULL"
        ).to_arrow_table()
        columns = {key: ids.column("id").cast(pa.string())}
        if table == "items":
            columns[c.CATEGORIES] = pa.array([[]] * ids.num_rows, pa.list_(pa.string()))
            columns[c.AVAILABLE] = pa.array([True] * ids.num_rows, pa.bool_())
        return pa.table(columns)

    def bad_rows(self, table: str, rules: list[Rule], target: Path) -> int:
        """Write the rows that go to quarantine: contract columns, the row as it was, why.

        Returns:
            how many there are; without one no file is written.
        """
        mine = [rule for rule in rules if rule.table == table and rule.action != "warn"]
        why = ", ".join(
            f"array_to_string([{', '.join(_case(rule, text) for rule in mine)}], '; ') AS {alias}"
            for alias, text in (("reason", "reason"), ("expectation", "name"))
        )
        names = ", ".join(f"r.{n}" for n in SCHEMAS[table].names if n != c.EVENT_ORDER)
        condition = any_bad(rules, table)
        if table == "interactions":
            bad = f"SELECT *, {c.SOURCE} AS file, {c.EVENT_ORDER} AS number, {why}"
            bad += f" FROM interactions_rows WHERE NOT excluded AND ({condition})"
            whole = f"SELECT {c.EVENT_ORDER} AS number, original FROM"
            whole += f" {staged_events(self.folder, original=True)}"
        else:
            bad = f"SELECT *, '{table}' AS file, {why} FROM {table}_rows WHERE {condition}"
            whole = f"SELECT number, original FROM {table}_rows"
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE bad AS {bad}")
        path = self.folder / "rejected.parquet"
        self.connection.register("no_lines", REJECTED.empty_table())
        lines = parquet([path]) if path.is_file() else "no_lines"
        text = "o.original" if table != "interactions" else "to_json(o.original)::VARCHAR"
        target.parent.mkdir(parents=True, exist_ok=True)
        ((count,),) = self.connection.execute(f"""
            COPY (
                (SELECT {names}, r.file,
                    r.number % (1::BIGINT << {PART_BITS}) + 1 - coalesce(l.so_far, 0) AS line,
                    coalesce(json_extract_string({text}, '$._line'), {text}) AS original,
                    r.reason, r.expectation, {self._mapping(table)} AS mapping
                FROM bad r JOIN ({whole}) o USING (number)
                ASOF LEFT JOIN ({self._likes(table)}) l
                    ON r.number >> {PART_BITS} = l.part AND r.number >= l.number
                ORDER BY r.number)
                UNION ALL BY NAME
                SELECT source AS file, line, original, reason, rule AS expectation, mapping
                FROM {lines} WHERE "table" = '{table}'
            ) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)
        """).fetchall()
        if count == 0:
            target.unlink()
        return int(count)

    def _mapping(self, table: str) -> str:
        """SQL of the place in the batch's `mappings`, by which the row was read."""
        if table != "interactions" or not self.batch.parts:
            return "NULL::BIGINT"
        last = max(int(part) for part in self.batch.parts)
        places = [self.batch.parts.get(str(part)) for part in range(last + 1)]
        listed = ", ".join("NULL" if place is None else str(place) for place in places)
        return f"list_extract([{listed}]::BIGINT[], (r.number >> {PART_BITS}) + 1)"

    def _likes(self, table: str) -> str:
        """Rows that ingest made of the rating before them: no lines of their own in the file."""
        staged = staged_events(self.folder)
        where = "event_type = 'like' AND ends_with(event_id, '-like')"
        where += f" AND {c.EVENT_ORDER} <= (SELECT max(number) FROM bad)"
        if table != "interactions":
            staged, where = f"(SELECT 0 AS {c.EVENT_ORDER})", "false"
        return (
            f"SELECT {c.EVENT_ORDER} AS number, {c.EVENT_ORDER} >> {PART_BITS} AS part,"
            f" row_number() OVER (PARTITION BY {c.EVENT_ORDER} >> {PART_BITS}"
            f" ORDER BY {c.EVENT_ORDER}) AS so_far FROM {staged} WHERE {where}"
        )

    def _table_rows(self, table: str, key: str) -> None:
        there = columns_of(self.connection, staged_rows(self.folder, table))
        own = [n for n in there if n not in ("faults", "original", "operation", "excluded")]
        content = f"hash({', '.join(own)})"
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE {table}_rows AS
            SELECT *, coalesce(operation = 'insert' AND {key} IS NOT NULL
                AND min(content) OVER (PARTITION BY {key})
                <> max(content) OVER (PARTITION BY {key}), false) AS id_conflict
            FROM (
                SELECT *, row_number() OVER () - 1 AS number,
                    CASE WHEN operation = 'insert' THEN {content} END AS content
                FROM {staged_rows(self.folder, table)}
            )
        """)

    def _known(self, table: str, key: str, rules: list[Rule]) -> None:
        good = f"SELECT {key} AS id FROM {table}_rows WHERE NOT ({any_bad(rules, table)})"
        if self.lake is not None and (self.lake / f"{table}.parquet").is_file():
            good += f" UNION SELECT {key} FROM {parquet([self.lake / f'{table}.parquet'])}"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE known_{table} AS"
            f" SELECT DISTINCT id, true AS known FROM ({good}) WHERE id IS NOT NULL"
        )

    def _joins(self, table: str) -> bool:
        """Whether rows are asked if their id is known; ids that are created always are."""
        policy = self.config.unknown_items if table == "items" else self.config.unknown_users
        return policy == "quarantine" and table not in self.batch.create

    def _conflicts(self) -> None:
        """Given ids that stand for two different events; derived ids cannot."""
        query = "SELECT NULL::VARCHAR AS event_id WHERE false"
        inserted = f"{staged_events(self.folder)} WHERE operation = 'insert'"
        if self.batch.given_ids and not self._ids_are_unique(inserted):
            query = (
                f"SELECT event_id FROM (SELECT event_id, {CONTENT} AS content FROM {inserted}"
                " AND hash(event_id) IN (SELECT id FROM repeated_ids))"
                " GROUP BY event_id HAVING min(content) <> max(content)"
            )
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE conflicts AS {query}")

    def _ids_are_unique(self, inserted: str) -> bool:
        """By their hashes, which take a fifth of the memory of the ids themselves."""
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE repeated_ids AS"
            f" SELECT hash(event_id) AS id FROM {inserted} GROUP BY 1 HAVING count(*) > 1"
        )
        found = self.connection.execute("SELECT count(*) FROM repeated_ids").fetchall()
        self.unique_ids = found == [(0,)]
        return self.unique_ids

    def _operation_targets(self) -> None:
        query = "SELECT NULL::VARCHAR AS event_id WHERE false"
        if self.batch.operations:
            staged = staged_events(self.folder)
            asked = f"(SELECT DISTINCT event_id FROM {staged} WHERE operation <> 'insert')"
            places = [f"(SELECT event_id FROM {staged} WHERE operation = 'insert')"]
            if self.lake is not None:
                files = [
                    self.lake / name
                    for part in self.manifest.partitions.values()
                    for name in part["files"]
                ]
                places += [parquet(files)] if files else []
                places += [parquet([self.lake / GONE])] if (self.lake / GONE).is_file() else []
            found = [
                f"SELECT a.event_id FROM {asked} a SEMI JOIN {p} USING (event_id)" for p in places
            ]
            query = " UNION ".join(found)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE targets AS {query}")

    def _bursts(self) -> None:
        """(user, minute) with more events than one person makes."""
        limit, staged = self.config.burst_per_minute, staged_events(self.folder)
        acted = "NOT excluded AND event_type IS DISTINCT FROM 'impression'"  # a list is many rows
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE busy AS
            SELECT user_id FROM {staged} WHERE {acted}
            GROUP BY user_id HAVING count(*) > {limit}
        """)
        self.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE bursts AS
            SELECT user_id, epoch_us(event_timestamp) // {MINUTE} AS minute, count(*) AS events
            FROM {staged} SEMI JOIN busy USING (user_id) WHERE {acted}
            GROUP BY ALL HAVING count(*) > {limit}
        """)

    def _burst_flag(self) -> str:
        if self.connection.execute("SELECT count(*) FROM bursts").fetchall() == [(0,)]:
            return "false"
        minute = f"epoch_us(e.event_timestamp) // {MINUTE}"
        return f"coalesce((e.user_id, {minute}) IN (SELECT (user_id, minute) FROM bursts), false)"

    def _flag(self, table: str, column: str) -> str:
        if self.connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]:
            return "false"
        return f"coalesce({column} IN (SELECT event_id FROM {table}), false)"

    def _check(self, table: str, rules: list[Rule]) -> None:
        """Bind every rule once, so that a wrong expectation is a message and not a crash."""
        for rule in rules:
            if rule.table != table:
                continue
            try:
                self.connection.execute(f"SELECT {rule.bad} FROM {table}_rows LIMIT 0")
            except duckdb.Error as error:
                text = str(error).splitlines()[0]
                raise ConfigError(
                    f"validation.expectations: '{rule.name}': {text}; want an SQL condition on the"
                    f" columns of {table}: {', '.join(SCHEMAS[table].names)}"
                ) from None


def any_bad(rules: list[Rule], table: str) -> str:
    """SQL: some quarantining rule of the table is broken."""
    mine = [f"({rule.bad})" for rule in rules if rule.table == table and rule.action != "warn"]
    return " OR ".join(mine) or "false"


def _case(rule: Rule, text: str) -> str:
    return f"CASE WHEN {rule.bad} THEN {quoted(getattr(rule, text))} END"
