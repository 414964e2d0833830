"""Sample of a file: its columns, its first rows as text, and counts over all rows."""

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.config import OPEN, Decimal, FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.cells import decimal_text, signed_text
from shortlist.datasets.files.json_keys import json_path, last_key
from shortlist.datasets.files.locate import SourceFile, locate
from shortlist.datasets.files.prepare import prepared
from shortlist.datasets.files.readers import collect_rejects, json_keys, open_raw
from shortlist.datasets.guess.encoding import guess_encoding
from shortlist.datasets.guess.names import NAMES, TABLES, WORDS, plain
from shortlist.lake.engine import quoted

SAMPLE = 5_000
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d+),\d+|[-+]?\d{1,3}(\.\d{3}){2,}")
"""A number with a decimal comma."""
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+")
"""A number with commas that may also be thousands separators of a whole number."""


@dataclass
class Guess:
    """The guess for one table: the mapping of its columns, options, notes and questions."""

    path: str
    columns: list[str]
    examples: dict[str, list[str]]
    mapping: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Other keys of the TOML section."""
    notes: list[str] = field(default_factory=list)
    """Messages to the user: how columns are read, and which guesses are uncertain."""
    words: dict[str, int] = field(default_factory=dict)
    """{word in the column of event types: number of rows}"""
    questions: list[str] = field(default_factory=list)
    """Questions that the user must answer, because a guess failed."""
    newest: int | None = None
    """Time of the newest event, in microseconds."""


def chosen_by_table(chosen: dict[str, str], tables: list[str]) -> dict[str, dict[str, str]]:
    """Split mappings like `item_id` or `items.item_id` by table.

    A name without a table belongs to the first table of `tables` that has it.

    Returns:
        {table: {name in the contract: column}}.

    Raises:
        DatasetError: no table has such a name.
    """
    out: dict[str, dict[str, str]] = {table: {} for table in tables}
    for asked, column in chosen.items():
        table, _, name = asked.rpartition(".")
        places = [
            table_name
            for table_name in tables
            if name in TABLES[table_name] and table in ("", table_name)
        ]
        if not places:
            names = [f"{table_name}.{key}" for table_name in tables for key in TABLES[table_name]]
            raise DatasetError(f"--column {asked}={column}: want one of {', '.join(names)}")
        out[places[0]][name] = column
    return out


class Sample:
    """The first rows of a file as text, and queries over all its rows.

    Args:
        path: file, folder, glob or URI; the first file is used.
        cache: folder for downloads.
        header: column names of a CSV file without a header line.
        encoding: encoding of the file; None: guess it.
        explode: if a JSON row has a list of objects that look like events, make each a row.

    Raises:
        DatasetError: the file can't be read, or has no rows.
    """

    def __init__(
        self,
        path: str,
        cache: Path,
        header: tuple[str, ...] = (),
        *,
        encoding: str | None = None,
        explode: bool = False,
    ):
        self.path = path
        self.file: SourceFile = locate(path, format=None, cache=cache)[0]
        self._folder = tempfile.TemporaryDirectory()
        self.notes: list[str] = []
        self.decimal: Decimal = "."
        self.rejected = 0
        """Number of lines that can't be parsed as rows."""
        self.options: dict[str, Any] = {"header": list(header)} if header else {}
        found = encoding or "utf-8"
        if encoding is None and self.file.format != "parquet":
            found = guess_encoding(self.file)
        if found != "utf-8":
            self.options["encoding"] = found
            if encoding is None:
                self.notes.append(
                    f"GUESS: {self.file.name} is {found}, not utf-8; --encoding if it is another"
                )
        asked = FileTable(path=path, columns={}, sparse=True, header=header, encoding=found)
        folder = Path(self._folder.name)
        self.file, asked = prepared(self.file, asked, folder)
        names = json_keys(self.file) if self.file.format == "jsonl" else []
        if explode:
            names, others = _with_events(names)
            if others:
                events = max(names, key=lambda name: name.count("[].")).rpartition("[].")[0]
                listed = ", ".join(f"'{column_name}'" for column_name in others)
                self.notes.append(
                    f"GUESS: each object of '{events}' is an event. {listed} may be events as well,"
                    " and is not read: add a second [[data.files.interactions]] for it"
                )
        asked = asked.model_copy(update={"columns": {name: name for name in names}})
        self.raw = open_raw(self.file, asked)
        # Leave out keys whose value is an object, since that object's keys are separate columns.
        self.columns = [
            expression
            for expression in self.raw.expressions
            if not any(other.startswith((f"{expression}.", f"{expression}[].")) for other in names)
        ]
        listed = ", ".join(
            f"({self.raw.expressions[column_name]})::VARCHAR" for column_name in self.columns
        )
        rows = self.ask(f"SELECT {listed} FROM {self.raw.relation} LIMIT {SAMPLE}")
        self.total = self._count()
        self.values = {
            column: [row[i] for row in rows if row[i] is not None]
            for i, column in enumerate(self.columns)
        }
        separated = self.file.format == "csv" and len(self.columns) > 1
        self.lacks_header = separated and not header and self._starts_with_data()
        """Whether the first line looks like a row of data instead of column names."""
        if not rows and not self.lacks_header:
            lost = f"; {self.notes[-1]}" if self.notes else ""
            raise DatasetError(f"{self.file.name}: has no rows below its header{lost}")

    def _starts_with_data(self) -> bool:
        if any(column.strip().lower() in ("nan", "inf", "infinity") for column in self.columns):
            return False
        is_data = [
            column
            for column in self.columns
            if re.fullmatch(r"[-+\d.:TZ /]*\d[-+\d.:TZ /]*", column)
            or column in self.values[column]
        ] or [column for column in self.columns if _like(column, self.values[column])][1:]
        known = {word for names in TABLES.values() for words in names.values() for word in words}
        numbers = [column for column in self.columns if NUMBER.fullmatch(column)]
        if numbers:  # beside numbers, words such as `review` and `search` are event types
            known -= {plain(word) for word in (*EVENT_TYPES, *WORDS)}
        return bool(is_data) and not any(plain(column) in known for column in self.columns)

    @property
    def name(self) -> str:
        return self.file.name

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            try:
                return connection.execute(query).fetchall()
            except duckdb.Error as error:
                text = str(error).splitlines()[0].split(": ", 1)[-1]
                raise DatasetError(f"{self.file.name}: cannot be read: {text}") from None

    def text(self, column: str) -> str:
        """Return SQL of a column's cells as ingest reads them: trimmed, NULL if empty."""
        return f"nullif(trim(({self.raw.expressions[column]})::VARCHAR), '')"

    def number(self, column: str) -> str:
        """Return SQL of a column's cells as numbers; NULL for other texts."""
        text = signed_text(self.text(column))
        return f"try_cast({decimal_text(text, self.decimal)} AS DOUBLE)"

    def numbers(
        self, column: str, *, without: float | None = None, where: str = "true"
    ) -> dict[float, int]:
        """Count the numbers in a column over the whole file; other texts are ignored.

        Args:
            without: a number to ignore.
            where: SQL condition on the rows.

        Returns:
            {number: number of rows}, sorted by the number.
        """
        number = self.number(column)
        if without is not None:
            number = f"nullif({number}, {without})"
        query = (
            f"SELECT n, count(*) FROM (SELECT {number} AS n FROM {self.raw.relation} WHERE {where})"
            " WHERE isfinite(n) GROUP BY 1 ORDER BY 1"
        )
        return dict(self.ask(query))

    def counts(self, column: str, *, words: tuple[str, ...] | None = None) -> dict[str, int]:
        """Count the 50 most frequent values of a column over the whole file.

        Args:
            words: count only these values, in lower case; upper and lower case are equal.
        """
        text = self.text(column)
        only = f"{text} IS NOT NULL"
        if words is not None:
            only = f"lower({text}) IN ({', '.join(quoted(word) for word in words)})"
        query = f"SELECT {text}, count(*) FROM {self.raw.relation} WHERE {only}"
        return dict(self.ask(f"{query} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 50"))

    def distinct(self, column: str) -> int:
        """Return the approximate number of distinct values of a column; at least 1."""
        query = f"SELECT approx_count_distinct({self.text(column)}) FROM {self.raw.relation}"
        return max(1, self.ask(query)[0][0])

    def empty(self, column: str) -> int:
        """Return the number of rows in which the column is empty."""
        query = f"SELECT count(*) FROM {self.raw.relation} WHERE {self.text(column)} IS NULL"
        return self.ask(query)[0][0]

    def lists_with_more(self, column: str) -> int:
        """Return the number of rows in which a list of `column` (`a[0].b`) has more objects."""
        before = column[: column.rindex("[0]")]
        if self.file.format != "jsonl":
            return 0
        outer, _, inner = before.rpartition("[].")
        source = f"o{column.count('[].')}" if outer else "line"
        length = f"json_array_length({source}, {quoted(json_path(inner))})"
        valid = "CASE WHEN json_valid(line) THEN " + length + " END"
        return self.ask(f"SELECT count(*) FROM {self.raw.relation} WHERE {valid} > 1")[0][0]

    def alternatives(self, key: str, column: str) -> list[str]:
        """Return other columns whose name means `key` and that are empty in fewer rows."""
        known, empty = set(NAMES[key]) - {"id"}, self.empty(column)
        others = [one for one in self.columns if plain(one) in known and one != column]
        return [one for one in others if self.empty(one) < empty]

    def guess_decimal(self, found: Guess, keys: tuple[str, ...]) -> None:
        """Set `decimal = ","` if most cells that aren't plain numbers are numbers with a comma.

        Args:
            keys: names in the contract of the columns to examine.
        """
        for column in (found.mapping.get(key, OPEN) for key in keys):
            cells = [] if column == OPEN else [cell.strip() for cell in self.values[column]]
            odd = [cell for cell in cells if cell and not NUMBER.fullmatch(cell)]
            with_comma = [cell for cell in odd if COMMA.fullmatch(cell)]
            is_decimal = any(not THOUSANDS.fullmatch(cell) for cell in with_comma)
            if is_decimal and len(with_comma) > len(odd) / 2:
                self.decimal = found.more["decimal"] = ","
                found.notes.append(
                    f"GUESS: numbers in '{column}' have a decimal comma: {with_comma[0]} is read as"
                    f" {with_comma[0].replace('.', '').replace(',', '.')}"
                )
                return

    def _count(self) -> int:
        """Count the rows of the whole file; add a note about lines that can't be parsed."""
        cells = ", ".join(f"({self.raw.expressions[column]})::VARCHAR" for column in self.columns)
        with duckdb.connect() as connection:
            try:
                ((rows, _),) = connection.execute(
                    f"SELECT count(*), max(hash({cells})) FROM {self.raw.relation}"
                ).fetchall()
                rejected = None
                if self.raw.rejects:
                    rejected = collect_rejects(connection, self.file, "interactions")
            except duckdb.Error as error:
                text = str(error).splitlines()[0].split(": ", 1)[-1]
                raise DatasetError(f"{self.file.name}: cannot be read: {text}") from None
        if rejected is not None:
            first = rejected.column("reason")[0].as_py()
            self.rejected = rejected.num_rows
            self.notes.append(
                f"{rejected.num_rows:,} lines are no rows and go to quarantine, e.g. {first}"
            )
        return int(rows)

    def guess(self, names: dict[str, tuple[str, ...]], chosen: dict[str, str]) -> Guess:
        """Map columns by their names.

        If the file has no header, no column is mapped, and a question asks for the names.

        Args:
            names: {name in the contract: known column names, best first}.
            chosen: {name in the contract: column}, given by the user.

        Raises:
            DatasetError: a chosen column doesn't exist.
        """
        examples = {column: list(dict.fromkeys(self.values[column]))[:3] for column in self.columns}
        found = Guess(self.path, self.columns, examples, {}, dict(self.options), notes=self.notes)
        if self.lacks_header and not set(chosen.values()) & set(self.columns):
            found.more["header"] = [OPEN] * len(self.columns)
            found.questions.append(
                f"{self.file.name}: its first line is data, not names of columns:"
                f" {', '.join(self.columns)[:80]}; name them: --header"
                " user_id,item_id,... (for another table --header items:item_id,title,...)"
            )
            return found
        found.mapping = self._mapped(names, chosen)
        return found

    def _mapped(self, names: dict[str, tuple[str, ...]], chosen: dict[str, str]) -> dict[str, str]:
        whole = {plain(column.rpartition("[].")[2]): column for column in reversed(self.columns)}
        inner = {
            plain(word): column
            for column in reversed(self.columns)
            if "." in column
            for word in (last_key(column).rpartition(".")[2], last_key(column))
        }
        mapping: dict[str, str] = {}
        for key, words in names.items():
            if key in chosen:
                if chosen[key] not in self.columns:
                    raise DatasetError(
                        f"{self.file.name}: no column '{chosen[key]}'; there are"
                        f" {', '.join(self.columns)}"
                    )
                mapping[key] = chosen[key]
                continue
            found = next((whole[word] for word in words if word in whole), None)
            if found is None and key in (c.USER_ID, c.ITEM_ID):  # a nested key, such as product.sku
                found = next(
                    (inner[word] for word in words if word in inner and word != "id"), None
                )
            if found is not None and found not in mapping.values():
                mapping[key] = found
        return mapping


def _like(name: str, values: list[str]) -> bool:
    """Return whether a column name looks like a value of its column.

    It must have digits, and most values must have the same pattern of letters, digits and other
    characters.
    """
    form = _form(name)
    return "9" in form and sum(_form(value) == form for value in values) > len(values) / 2


def _form(text: str) -> str:
    return re.sub("[^\\W\\d_]+", "a", re.sub(r"\d+", "9", text))


def _with_events(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the JSON keys, changed so that each object in a list of events becomes a row.

    A list is taken for events if its objects have an item: `events[0].item` becomes
    `events[].item`. The keys are unchanged if there is an item outside of lists.

    Returns:
        The keys, and the names of further lists that may be events.
    """
    items = [column_name for column_name in NAMES[c.ITEM_ID] if column_name != "id"]
    above = {plain(column_name) for column_name in names if "[0]." not in column_name}
    if above & set(items):
        return names, []
    lists = []
    for name in dict.fromkeys(one.rpartition("[0].")[0] for one in names if "[0]." in one):
        start = f"{name}[0]."
        if {plain(one.removeprefix(start)) for one in names if one.startswith(start)} & set(items):
            lists.append(name)
    if not lists:
        return names, []
    events = lists[0]
    ends = [found.end() for found in re.finditer(r"\[0\]\.", f"{events}[0].")]
    outer = [f"{events}[0]."[:end] for end in ends]
    changed = {}
    for name in names:
        path = name
        for start in reversed(outer):
            if name.startswith(start):
                path = f"{path[: len(start) - 4]}[].{path[len(start) :]}"
        changed[name] = path
    return list(changed.values()), [name for name in lists[1:] if not events.startswith(name)]
