"""What a stranger's columns probably are: by their names, and by what is in them."""

import contextlib
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.config import FileTable, ItemFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.guess_names import (
    ITEM_NAMES,
    NAMES,
    NO_ID,
    RATING,
    TABLES,
    USER_NAMES,
    WORDS,
    plain,
)
from shortlist.datasets.guess_time import guess_time
from shortlist.datasets.lists import categories_sql
from shortlist.datasets.locate import SourceFile, locate
from shortlist.datasets.prepare import (
    MIXED_LINES,
    guess_encoding,
    prepared,
    with_one_line_end,
)
from shortlist.datasets.readers import collect_rejects, json_keys, open_raw

SAMPLE = 5_000
SEPARATORS = ("|", ";", ">", ",")
OPEN = "?"
"""Stands in the TOML where a question is open."""
OBJECT_NAMES = ("name", "title", "label", "text", "value", "id")
MUCH = 0.05
"""Share of the rows from which one user is shown as suspicious."""


@dataclass
class Guess:
    """One table's files, their columns, and what they probably mean."""

    path: str
    columns: list[str]
    examples: dict[str, list[str]]
    mapping: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Other keys of the TOML section."""
    notes: list[str] = field(default_factory=list)
    """What to show beside the columns: how they are read, and what is uncertain."""
    words: dict[str, int] = field(default_factory=dict)
    """{word of the column of event types: rows}"""
    questions: list[str] = field(default_factory=list)
    """What could not be guessed and has to be said."""
    newest: int | None = None
    """Time of the newest event, in microseconds."""


def chosen_by_table(chosen: dict[str, str], tables: list[str]) -> dict[str, dict[str, str]]:
    """{table: {contract's name: column}} of mappings like `item_id` or `items.item_id`.

    A bare name is of the log where the log has such a name, else of the first table that has it.

    Raises:
        DatasetError: there is no such name.
    """
    out: dict[str, dict[str, str]] = {table: {} for table in tables}
    for asked, column in chosen.items():
        table, _, name = asked.rpartition(".")
        places = [one for one in tables if name in TABLES[one] and table in ("", one)]
        if not places:
            names = [f"{one}.{key}" for one in tables for key in TABLES[one]]
            raise DatasetError(f"--column {asked}={column}: want one of {', '.join(names)}")
        out[places[0]][name] = column
    return out


class Sample:
    """The first rows of a file as text, and figures over all of them."""

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
            names = _with_events(names)
        asked = asked.model_copy(update={"columns": {name: name for name in names}})
        self.raw = open_raw(self.file, asked)
        # An object is no value: its own keys are columns.
        self.columns = [
            one
            for one in self.raw.expressions
            if not any(other.startswith((f"{one}.", f"{one}[].")) for other in names)
        ]
        listed = ", ".join(f"({self.raw.expressions[one]})::VARCHAR" for one in self.columns)
        if self.file.format == "csv" and not header:
            self._refuse_data_for_a_header()
        query = f"SELECT {listed} FROM {{}} LIMIT {SAMPLE}"
        try:
            rows = self.ask(query.format(self.raw.relation))
        except DatasetError as error:
            if MIXED_LINES not in str(error):
                raise
            self.file = with_one_line_end(self.file, folder)
            self.raw = open_raw(self.file, asked)
            rows = self.ask(query.format(self.raw.relation))
        self.total = self._count()
        if not rows:
            lost = f"; {self.notes[-1]}" if self.notes else ""
            raise DatasetError(f"{self.file.name}: has no rows below its header{lost}")
        self.values = {
            one: [row[i] for row in rows if row[i] is not None]
            for i, one in enumerate(self.columns)
        }

    def _refuse_data_for_a_header(self) -> None:
        """Raises DatasetError if the first line is a row already: a name is no number or date."""
        if any(one.strip().lower() in ("nan", "inf", "infinity") for one in self.columns):
            return
        is_data = [
            one for one in self.columns if re.fullmatch(r"[-+\d.:TZ /]*\d[-+\d.:TZ /]*", one)
        ]
        known = {word for names in TABLES.values() for words in names.values() for word in words}
        if is_data and not any(plain(one) in known for one in self.columns):
            raise DatasetError(
                f"{self.file.name}: its first line is data, not names of columns:"
                f" {', '.join(self.columns)[:80]}; name them: --header"
                " user_id,item_id,... (for another table --header items:item_id,title,...)"
            )

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

    def range(self, column: str, *, without: float | None = None) -> tuple[float, float] | None:
        """Smallest and largest number of a column, over the whole file."""
        number = f"try_cast({self.raw.expressions[column]} AS DOUBLE)"
        if without is not None:
            number = f"nullif({number}, {without})"
        ((low, high),) = self.ask(f"SELECT min({number}), max({number}) FROM {self.raw.relation}")
        return None if low is None else (low, high)

    def counts(self, column: str) -> dict[str, int]:
        """The most frequent values of a column, over the whole file."""
        text = f"({self.raw.expressions[column]})::VARCHAR"
        query = f"SELECT {text}, count(*) FROM {self.raw.relation} WHERE {text} IS NOT NULL"
        return dict(self.ask(f"{query} GROUP BY 1 ORDER BY 2 DESC LIMIT 50"))

    def _count(self) -> int:
        """Rows of the whole file; lines that are no rows are noted."""
        cells = ", ".join(f"({self.raw.expressions[one]})::VARCHAR" for one in self.columns)
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
            self.notes.append(
                f"{rejected.num_rows:,} lines are no rows and go to quarantine, e.g. {first}"
            )
        return int(rows)

    def guess(self, names: dict[str, tuple[str, ...]], chosen: dict[str, str]) -> Guess:
        """Map columns by name; what was chosen is taken as it is.

        Raises:
            DatasetError: a chosen column is not there.
        """
        whole = {plain(one.split("[].")[-1]): one for one in reversed(self.columns)}
        inner = {plain(one.split(".")[-1]): one for one in reversed(self.columns) if "." in one}
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
            if found is None and key in (c.USER_ID, c.ITEM_ID):  # product.sku
                found = next(
                    (inner[word] for word in words if word in inner and word != "id"), None
                )
            if found is not None and found not in mapping.values():
                mapping[key] = found
        examples = {one: list(dict.fromkeys(self.values[one]))[:3] for one in self.columns}
        return Guess(
            self.path, self.columns, examples, mapping, dict(self.options), notes=self.notes
        )


def guess_events(
    sample: Sample,
    chosen: dict[str, str],
    *,
    event_type: str | None,
    time_unit: str | None,
) -> Guess:
    """The log. What cannot be guessed is among `questions`, and marked in the mapping."""
    found = sample.guess(NAMES, chosen)
    if c.USER_ID not in found.mapping and c.SESSION_ID in found.mapping:
        column = found.mapping.pop(c.SESSION_ID)
        found.mapping[c.USER_ID] = column
        found.notes.append(f"GUESS: no column of users: each '{column}' stands for one")
    for key in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP):
        if key not in found.mapping:
            found.questions.append(
                f"{sample.file.name}: which column is {key}? There are"
                f" {', '.join(sample.columns)}; say --column {key}=NAME"
            )
            found.mapping[key] = OPEN
    if found.mapping[c.EVENT_TIMESTAMP] != OPEN:
        try:
            times = guess_time(sample, found.mapping[c.EVENT_TIMESTAMP], time_unit)
            found.more["timestamp_unit"] = times.unit
            found.notes += times.notes
            found.newest = times.newest
        except DatasetError as error:
            found.questions.append(str(error))
            found.more["timestamp_unit"] = OPEN
    _guess_types(sample, found, event_type)
    _guess_nobody(sample, found)
    return found


def _guess_types(sample: Sample, found: Guess, event_type: str | None) -> None:
    """The events' types by their words, or one for all by the name of the value.

    Raises:
        DatasetError: there is no such type as the one asked for.
    """
    if event_type is not None or c.EVENT_TYPE not in found.mapping:
        found.mapping.pop(c.EVENT_TYPE, None)
        value = plain(found.mapping.get(c.VALUE, ""))
        by_value = "rating" if RATING.search(value) else "view"
        by_value = "purchase" if re.search("price|amount|quantity", value) else by_value
        found.more["event_type"] = event_type or by_value
        if found.more["event_type"] not in EVENT_TYPES:
            raise DatasetError(f"--event-type {event_type}: want one of {', '.join(EVENT_TYPES)}")
        if event_type is None:
            found.notes.append(f"GUESS: every event is a {by_value}; --event-type if it is another")
        if c.VALUE not in found.mapping:
            _ask_for_ratings(sample, found)
        elif found.more["event_type"] == "rating":
            _guess_unrated(sample, found)
        return
    words = sample.counts(found.mapping[c.EVENT_TYPE])
    spoken = {word: plain(word) for word in words}
    mapped = {word: WORDS[text] for word, text in spoken.items() if text in WORDS}
    mapped |= {
        word: spelled
        for word in words
        if (spelled := re.sub("[- ]", "_", word.lower())) in EVENT_TYPES and spelled != word
    }
    unknown = [word for word in words if word not in EVENT_TYPES and word not in mapped]
    column = found.mapping[c.EVENT_TYPE]
    if len(unknown) == len(words):
        found.questions.append(
            f"{sample.file.name}: column '{column}' has"
            f" {', '.join(unknown[:5])}, none of which is an event type; say --event-type for"
            " all, or map them by hand with event_types"
        )
    elif unknown:
        found.notes.append(
            f"'{column}' has words that are no event type: {', '.join(unknown[:5])}; those rows go"
            " to quarantine unless event_types maps them"
        )
    found.more["event_types"] = mapped
    found.words = words


def _ask_for_ratings(sample: Sample, found: Guess) -> None:
    """A column of few small numbers may be ratings: without them 1 star equals 5."""
    for column in sample.columns:
        values = set(sample.values[column])
        if column in found.mapping.values() or not 3 <= len(values) <= 21:
            continue
        if all(re.fullmatch(r"\d{1,2}([.,]\d+)?", one) for one in values):
            found.notes.append(
                f"'{column}' has few small numbers ({', '.join(sorted(values)[:5])}): if those are"
                f" ratings, say --column value={column} --event-type rating"
            )


def _guess_unrated(sample: Sample, found: Guess) -> None:
    """-1, or a 0 more frequent than any other rating, that means 'not rated'."""
    column = found.mapping[c.VALUE]
    counts: dict[float, int] = {}
    for text, rows in sample.counts(column).items():
        with contextlib.suppress(ValueError):
            counts[float(text)] = counts.get(float(text), 0) + rows
    rest = [one for one in counts if one > 0]
    if not rest:
        return
    often = counts.get(0.0, 0) > max(counts[one] for one in rest) and min(rest) >= 1
    mark = -1 if -1.0 in counts and min(counts) == -1 else 0 if often else None
    if mark is not None:
        found.more["unrated"] = mark
        found.notes.append(
            f"GUESS: {mark} in '{column}' ({counts[mark]:,} rows) means not rated; such events"
            " become views. Take out `unrated` if it is the worst rating"
        )


def _guess_nobody(sample: Sample, found: Guess) -> None:
    """Words for nobody, and users with an implausible share of the rows."""
    for key in (c.USER_ID, c.ITEM_ID):
        column = found.mapping[key]
        if column == OPEN:
            continue
        counts, total = sample.counts(column), sample.total
        for word, rows in counts.items():
            is_word = word.strip().lower() in NO_ID
            if not is_word and not (len(counts) > 20 and rows > max(MUCH * total, 20)):
                continue
            said = f"{rows:,} of {total:,} rows have {key} '{word}'"
            if key == c.ITEM_ID or not is_word:
                hint = f'; if that is nobody, set no_user = ["{word}"]' if key == c.USER_ID else ""
                found.notes.append(f"{said}: is that right?{hint}")
                continue
            found.more.setdefault("no_user", []).append(word)
            session = found.mapping.get(c.SESSION_ID)
            then = f"each '{session}' then stands alone" if session else "without a column of"
            then += "" if session else " sessions those rows go to quarantine"
            found.notes.append(f"GUESS: {said}: no user; {then}. Take out `no_user` if it is one")


def _guess_beside_log(
    sample: Sample, chosen: dict[str, str], names: Any, key: str, *, in_log: str
) -> Guess:
    """A table whose key is called as in the log, if there is such a column."""
    if in_log in sample.columns:
        chosen = {key: in_log} | chosen
    found = sample.guess(names, chosen)
    if key not in found.mapping:
        found.mapping[key] = OPEN
        found.questions.append(
            f"{sample.file.name}: which column is the {key.removesuffix('_id')}'s id? There are"
            f" {', '.join(sample.columns)}; say --column {key.removesuffix('_id')}s.{key}=NAME"
        )
    return found


def guess_items(sample: Sample, chosen: dict[str, str], item_column: str) -> Guess:
    """The catalogue: its key is called as in the log if there is such a column."""
    found = _guess_beside_log(sample, chosen, ITEM_NAMES, c.ITEM_ID, in_log=item_column)
    title = found.mapping.get(c.TITLE)
    if c.PUBLISHED_AT not in found.mapping and title is not None:
        years = [bool(re.search(r"\(\d{4}\)\s*$", text)) for text in sample.values[title]]
        if years and sum(years) / len(years) > 0.5:
            found.mapping[c.PUBLISHED_AT] = title
    categories = found.mapping.get(c.CATEGORIES)
    if categories is not None and _are_lists(sample, categories):
        _guess_lists(sample, found, categories)
    elif categories is not None:
        text = "".join(sample.values[categories])
        counts = {mark: text.count(mark) for mark in SEPARATORS}
        best = max(counts, key=lambda mark: counts[mark])
        found.more["category_separator"] = best if counts[best] else "|"
    return found


def _are_lists(sample: Sample, column: str) -> bool:
    values = sample.values[column]
    return sample.raw.types[column].endswith("[]") or (
        sum(one.strip()[:1] in ("[", "{") for one in values) > len(values) / 2
    )


def _guess_lists(sample: Sample, found: Guess, column: str) -> None:
    """Categories that are lists: of objects the name is taken; the first ones are shown."""
    text = " ".join(sample.values[column][:50])
    keys = re.findall(r"[{,]\s*['\"]?(\w+)['\"]?\s*:", text)
    key = next((one for one in OBJECT_NAMES if one in keys), next(iter(keys), "name"))
    if key != "name":
        found.more["category_key"] = key
    table = ItemFile(path="-", columns={c.ITEM_ID: "-"}, category_key=key)
    lists, _ = categories_sql(sample.raw, column, table, sample.name)
    ((first,),) = sample.ask(
        f"SELECT list(x) FROM (SELECT {lists} AS x FROM {sample.raw.relation} LIMIT 3)"
    )
    shown = "; ".join(", ".join(one) or "none" for one in first)
    of = f" of objects, by their '{key}'" if keys else ""
    found.notes.append(f"'{column}' is read as lists{of}: {shown}")


def _with_events(names: list[str]) -> list[str]:
    """Keys of JSON, with a list of objects that are events made a row for each of them."""
    items = [one for one in NAMES[c.ITEM_ID] if one != "id"]
    above = {plain(one) for one in names if "[0]." not in one}
    if above & set(items):
        return names
    for name in dict.fromkeys(one.split("[0].")[0] for one in names if one.count("[0].") == 1):
        start = f"{name}[0]."
        if {plain(one.removeprefix(start)) for one in names if one.startswith(start)} & set(items):
            return [one.replace(start, f"{name}[].", 1) for one in names]
    return names


def guess_users(sample: Sample, chosen: dict[str, str], user_column: str) -> Guess:
    """Users: columns of few values are attributes."""
    found = _guess_beside_log(sample, chosen, USER_NAMES, c.USER_ID, in_log=user_column)
    used = set(found.mapping.values())
    few = [one for one in sample.columns if one not in used and _few(sample.values[one])]
    found.more["attributes"] = few
    return found


def _few(values: list[str]) -> bool:
    return 1 < len(set(values)) <= max(20, len(values) // 20)
