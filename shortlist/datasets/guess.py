"""What a stranger's columns probably are: by their names, and by what is in them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.config import OPERATION, FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.guess_time import guess_time
from shortlist.datasets.locate import SourceFile, locate
from shortlist.datasets.readers import json_keys, open_raw

SAMPLE = 5_000
NAMES: dict[str, tuple[str, ...]] = {
    c.USER_ID: (
        *("userid", "user", "customerid", "customer", "visitorid", "uid", "accountid", "memberid"),
        *("reviewerid", "clientid", "buyerid", "personid", "who"),
    ),
    c.ITEM_ID: (
        *("itemid", "item", "productid", "product", "movieid", "sku", "parentasin", "asin"),
        *("articleid", "bookid", "songid", "trackid", "contentid", "videoid", "isbn", "what", "id"),
    ),
    c.EVENT_TIMESTAMP: (
        *("eventtimestamp", "timestamp", "eventtime", "datetime", "time", "ts", "createdat"),
        *("unixreviewtime", "date", "when", "at"),
    ),
    c.EVENT_TYPE: ("eventtype", "event", "action", "behavior", "behaviour", "type", "kind"),
    c.VALUE: ("rating", "stars", "value", "score", "price", "amount", "quantity", "seconds"),
    c.EVENT_ID: ("eventid",),
    c.TEXT: ("reviewtext", "text", "review", "comment"),
    c.QUERY: ("query", "searchterm", "search"),
    c.SESSION_ID: ("sessionid", "session"),
    c.REQUEST_ID: ("requestid",),
    c.POSITION: ("position", "rank"),
    c.SURFACE: ("surface", "page", "channel"),
    c.DEVICE: ("device", "platform"),
    OPERATION: (),  # never guessed
}
ITEM_NAMES: dict[str, tuple[str, ...]] = {
    c.ITEM_ID: NAMES[c.ITEM_ID],
    c.TITLE: ("title", "name", "productname", "itemname", "movietitle"),
    c.DESCRIPTION: ("description", "overview", "summary", "details"),
    c.CATEGORIES: ("categories", "category", "genres", "genre", "tags", "department"),
    c.BRAND: ("brand", "store", "manufacturer", "author", "artist"),
    c.PRICE: ("price", "cost"),
    c.PUBLISHED_AT: ("publishedat", "published", "year", "releasedate", "releaseyear", "date"),
    c.AVAILABLE: ("available", "instock"),
    c.IMAGE: ("image", "imageurl", "imurl", "picture"),
    c.UPDATED_AT: (),  # its unit can't be told from a few rows
    OPERATION: (),
}
USER_NAMES: dict[str, tuple[str, ...]] = {
    c.USER_ID: (*NAMES[c.USER_ID], "id"),
    c.CREATED_AT: ("createdat", "registered", "joined"),
}
WORDS = {
    **{"buy": "purchase", "order": "purchase", "transaction": "purchase", "sale": "purchase"},
    **{"addtocart": "add_to_cart", "cart": "add_to_cart", "basket": "add_to_cart"},
    **{"pv": "view", "pageview": "view", "viewed": "view", "detail": "view", "refund": "return"},
    **{"clicked": "click", "fav": "like", "favorite": "like", "favourite": "like", "play": "watch"},
    **{"rate": "rating", "rated": "rating", "purchased": "purchase", "impressions": "impression"},
}
SEPARATORS = ("|", ";", ">", ",")


TABLES = {"interactions": NAMES, "items": ITEM_NAMES, "users": USER_NAMES}


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

    def __init__(self, path: str, cache: Path):
        self.path = path
        self.file: SourceFile = locate(path, format=None, cache=cache)[0]
        names = json_keys(self.file) if self.file.format == "jsonl" else []
        asked = FileTable(path=path, columns={name: name for name in names}, sparse=True)
        self.raw = open_raw(self.file, asked)
        # An object is no value: its own keys are columns.
        self.columns = [
            one
            for one in self.raw.expressions
            if not any(other.startswith((f"{one}.", f"{one}[0].")) for other in names)
        ]
        listed = ", ".join(f"({self.raw.expressions[one]})::VARCHAR" for one in self.columns)
        rows = self.ask(f"SELECT {listed} FROM {self.raw.relation} LIMIT {SAMPLE}")
        if not rows:
            raise DatasetError(f"{self.file.name}: has no rows below its header")
        self.values = {
            one: [row[i] for row in rows if row[i] is not None]
            for i, one in enumerate(self.columns)
        }

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

    def range(self, column: str) -> tuple[float, float] | None:
        """Smallest and largest number of a column, over the whole file."""
        number = f"try_cast({self.raw.expressions[column]} AS DOUBLE)"
        ((low, high),) = self.ask(f"SELECT min({number}), max({number}) FROM {self.raw.relation}")
        return None if low is None else (low, high)

    def counts(self, column: str) -> dict[str, int]:
        """The most frequent values of a column, over the whole file."""
        text = f"({self.raw.expressions[column]})::VARCHAR"
        query = f"SELECT {text}, count(*) FROM {self.raw.relation} WHERE {text} IS NOT NULL"
        return dict(self.ask(f"{query} GROUP BY 1 ORDER BY 2 DESC LIMIT 50"))

    def guess(self, names: dict[str, tuple[str, ...]], chosen: dict[str, str]) -> Guess:
        """Map columns by name; what was chosen is taken as it is.

        Raises:
            DatasetError: a chosen column is not there.
        """
        plain = {_plain(one): one for one in reversed(self.columns)}
        inner = {_plain(one.split(".")[-1]): one for one in reversed(self.columns) if "." in one}
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
            found = next((plain[word] for word in words if word in plain), None)
            if found is None and key in (c.USER_ID, c.ITEM_ID):  # product.sku
                found = next(
                    (inner[word] for word in words if word in inner and word != "id"), None
                )
            if found is not None and found not in mapping.values():
                mapping[key] = found
        examples = {one: list(dict.fromkeys(self.values[one]))[:3] for one in self.columns}
        return Guess(self.path, self.columns, examples, mapping)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def guess_events(
    sample: Sample,
    chosen: dict[str, str],
    *,
    event_type: str | None,
    time_unit: str | None,
) -> Guess:
    """Raises DatasetError if a required column cannot be guessed; the message says how to help."""
    found = sample.guess(NAMES, chosen)
    for key in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP):
        if key not in found.mapping:
            raise DatasetError(
                f"{sample.file.name}: which column is {key}? There are"
                f" {', '.join(sample.columns)}; say --column {key}=NAME"
            )
    times = guess_time(sample, found.mapping[c.EVENT_TIMESTAMP], time_unit)
    found.more["timestamp_unit"] = times.unit
    found.notes += times.notes
    found.newest = times.newest
    if event_type is not None or c.EVENT_TYPE not in found.mapping:
        found.mapping.pop(c.EVENT_TYPE, None)
        value = found.mapping.get(c.VALUE, "").lower()
        by_value = "rating" if re.search("rat|star|score", value) else "view"
        by_value = "purchase" if re.search("price|amount|quantity", value) else by_value
        found.more["event_type"] = event_type or by_value
        if found.more["event_type"] not in EVENT_TYPES:
            raise DatasetError(f"--event-type {event_type}: want one of {', '.join(EVENT_TYPES)}")
    else:
        words = sample.counts(found.mapping[c.EVENT_TYPE])
        plain = {word: _plain(word) for word in words}
        mapped = {word: WORDS[text] for word, text in plain.items() if text in WORDS}
        mapped |= {
            word: spelled
            for word in words
            if (spelled := re.sub("[- ]", "_", word.lower())) in EVENT_TYPES and spelled != word
        }
        unknown = [word for word in words if word not in EVENT_TYPES and word not in mapped]
        if len(unknown) == len(words):
            raise DatasetError(
                f"{sample.file.name}: column '{found.mapping[c.EVENT_TYPE]}' has"
                f" {', '.join(unknown[:5])}, none of which is an event type; say --event-type for"
                " all, or map them by hand with event_types"
            )
        found.more["event_types"] = mapped
        found.words = words
    return found


def _guess_beside_log(
    sample: Sample, chosen: dict[str, str], names: Any, key: str, *, in_log: str
) -> Guess:
    """A table whose key is called as in the log, if there is such a column.

    Raises:
        DatasetError: no column is the key.
    """
    if in_log in sample.columns:
        chosen = {key: in_log} | chosen
    found = sample.guess(names, chosen)
    if key not in found.mapping:
        raise DatasetError(
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
    if categories is not None:
        text = "".join(sample.values[categories])
        counts = {mark: text.count(mark) for mark in SEPARATORS}
        best = max(counts, key=lambda mark: counts[mark])
        found.more["category_separator"] = best if counts[best] else "|"
    return found


def guess_users(sample: Sample, chosen: dict[str, str], user_column: str) -> Guess:
    """Users: columns of few values are attributes."""
    found = _guess_beside_log(sample, chosen, USER_NAMES, c.USER_ID, in_log=user_column)
    used = set(found.mapping.values())
    few = [one for one in sample.columns if one not in used and _few(sample.values[one])]
    found.more["attributes"] = few
    return found


def _few(values: list[str]) -> bool:
    return 1 < len(set(values)) <= max(20, len(values) // 20)
