"""Configuration of data sources: the section [data] of a run's TOML."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shortlist import columns as c
from shortlist.behaviour.counting import ListRules
from shortlist.behaviour.repeats import repeat_after
from shortlist.config import Config, ConfigPath, beside_file
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, ITEMS, USERS
from shortlist.moments import TIME_UNITS

Format = Literal["csv", "jsonl", "parquet"]
Decimal = Literal[".", ","]
OPERATION = "operation"
OPEN = "?"
"""Text that `shortlist init` writes in place of a column or unit that could not be guessed."""
ALL_KEYS = "*"
"""Value of `category_key`: the categories are the keys of a map."""
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(second|minute|hour|day)s?")
MOVIELENS = ("movielens-latest-small", "movielens-1m", "movielens-20m", "movielens-32m")


class FileTable(Config):
    """Files of one table, and how to read them.

    `path` is a file, a folder, a glob, or an fsspec URI such as s3://bucket/*.csv. `columns` maps
    names of the contract, and optionally `operation` (insert, correct, delete), to column names of
    the files.
    """

    path: str = Field(min_length=1)
    """A file, folder, glob or URI; relative paths start at the TOML file."""
    columns: dict[str, str]
    """{name in the contract: name in the file}."""
    format: Format | None = None
    """None: decided by the file's ending (.csv .tsv .jsonl .ndjson .parquet, optionally followed by
    .gz or .zst) and content.
    """
    separator: str | None = Field(default=None, min_length=1, max_length=4)
    """Field separator of CSV files. None: guessed from the first line."""
    header: tuple[str, ...] = ()
    """Column names of CSV files without a header line; empty: the first line is the header."""
    quote: str = '"'
    """Character around CSV fields that contain separators or line ends."""
    sparse: bool = False
    """For JSON Lines: whether a mapped key may be missing in all of the first thousand lines. If
    not, such a key is an error.
    """
    encoding: str = "utf-8"
    """utf-8, utf-16, or any Python encoding that contains ASCII, e.g. cp1251."""
    decimal: Decimal = "."
    """Decimal mark of numbers in text columns. If it is a comma, the text 1.234 is read as 1234."""
    timestamp_unit: str = "s"
    """s, ms, us, ns (since 1970), iso, excel (day numbers), ticks (100 ns since the year 1),
    filetime (100 ns since 1601), or a pattern such as "%d.%m.%Y %H:%M".
    """
    time_zone: str = "UTC"
    """Time zone of times that don't have one."""

    @field_validator("path", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("path")
    @classmethod
    def _beside_file(cls, value: str, info: ValidationInfo) -> str:
        return beside_file(value, info)

    @field_validator("timestamp_unit")
    @classmethod
    def _known_unit(cls, value: str) -> str:
        if value not in TIME_UNITS and "%" not in value:
            units = ", ".join(f'"{unit}"' for unit in TIME_UNITS)
            raise ValueError(f'want {units}, or a pattern like "%d.%m.%Y %H:%M"')
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            fits = value == "utf-16" or "a,\n".encode(value) == b"a,\n"
        except LookupError:
            fits = False
        if not fits:
            raise ValueError('want "utf-8", "utf-16", "latin-1", "cp1251" or the like')
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        import zoneinfo

        if value not in zoneinfo.available_timezones():
            raise ValueError("no such time zone, want a name like Europe/Berlin")
        return value


def _known_columns(columns: dict[str, str], names: list[str], required: tuple[str, ...]) -> None:
    for name, column in columns.items():
        if column == OPEN:
            raise ValueError(f"{name} is '{OPEN}', an open question: write the column's name there")
        if name not in (*names, OPERATION) and not name.startswith("vector_"):
            raise ValueError(f"'{name}' is no column of the contract, want {', '.join(names)}")
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(f"columns must map {', '.join(missing)} to columns of the file")


class InteractionFile(FileTable):
    """Files of events.

    `columns` must map user_id, item_id and event_timestamp. Either it maps event_type as well, or
    the setting `event_type` is required.
    """

    event_type: str | None = None
    """Type of events without a value in the mapped column of event types; type of all events if no
    such column is mapped.
    """
    event_types: dict[str, str] = Field(default_factory=dict)
    """{word in the files: event type}, e.g. {"order": "purchase"}."""
    no_user: tuple[str, ...] = ()
    """Values of the user column that mean an unknown user, e.g. ["NA"] or [""]. Each session of
    such rows is treated as a separate user; rows without a session go to quarantine.
    """
    exact_ids: bool = False
    """Whether an id like 196.0 goes to quarantine. If not, it is read as 196. For sources whose ids
    are text.
    """
    unrated: float | None = None
    """Value of ratings that means "not rated", e.g. -1. Such events get the type `unrated_type` and
    no value.
    """
    unrated_type: str = "view"
    """Event type of ratings that have the value `unrated`."""

    return_if_negative: str | None = None
    """Column with a quantity or an amount, e.g. "Quantity". A purchase in which it is negative
    becomes a `return`, and its value loses its minus sign.
    """

    @model_validator(mode="after")
    def _complete(self) -> "InteractionFile":
        known = [name for name in INTERACTIONS.names if name not in (c.EVENT_ORDER, c.SOURCE)]
        _known_columns(self.columns, known, (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP))
        if c.EVENT_TYPE not in self.columns and self.event_type not in EVENT_TYPES:
            raise ValueError(
                "no event type: map 'event_type' to a column, or set event_type to one of"
                f" {', '.join(EVENT_TYPES)} (got {self.event_type!r})"
            )
        wrong = {*self.event_types.values(), self.unrated_type} - set(EVENT_TYPES)
        if wrong:
            raise ValueError(f"event type '{min(wrong)}' is unknown, want {', '.join(EVENT_TYPES)}")
        if self.unrated is not None and c.VALUE not in self.columns:
            raise ValueError("unrated has no effect: map 'value' to a column")
        no_purchase = c.EVENT_TYPE not in self.columns and self.event_type != "purchase"
        if self.return_if_negative is not None and no_purchase:
            raise ValueError("return_if_negative has no effect: no event is a purchase")
        return self


class ItemFile(FileTable):
    """Files of the catalogue. `columns` must map item_id."""

    category_separator: str = "|"
    """Separator of category names in a text. With ">" they are a path from general to specific."""
    category_key: str = "name"
    """Key of a category's name if categories are objects or lists of objects. "*": the keys are the
    names, as in {"Drama": 1, "War": 0}; a key whose value is false, 0 or missing is left out.
    """
    attributes: tuple[str, ...] = ()
    """Columns that are kept as attributes."""
    complete: bool = True
    """True: the files are the whole catalogue, and items missing in a newer version become
    unavailable. False: the files contain changes only. Ignored if `operation` is mapped.
    """

    @model_validator(mode="after")
    def _complete(self) -> "ItemFile":
        _known_columns(self.columns, ITEMS.names, (c.ITEM_ID,))
        return self


class UserFile(FileTable):
    """Files of users. `columns` must map user_id."""

    attributes: tuple[str, ...] = ()
    """Columns that are kept as attributes."""

    @model_validator(mode="after")
    def _complete(self) -> "UserFile":
        _known_columns(self.columns, USERS.names, (c.USER_ID,))
        return self


class FilesConfig(Config):
    """A user's files: CSV, JSON Lines or Parquet, plain or compressed with gzip or zstd."""

    interactions: tuple[InteractionFile, ...] = Field(min_length=1)
    """One table, or several ([[data.files.interactions]]) that are combined."""
    items: ItemFile | None = None
    """None: the catalogue consists of the ids in the interactions."""
    users: UserFile | None = None

    @field_validator("interactions", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | InteractionFile) else value


class DatabaseTable(FileTable):
    """A table or query of a database, with the same mapping options as a file."""

    path: str = ""
    """A database has none."""
    table: str | None = None
    """Name of a table, or see `query`."""
    query: str | None = None
    """A SELECT statement instead of a table."""
    watermark: str | None = None
    """Column that only increases (an id, a time of change): the next run reads from its last value.
    """
    look_back: int | str | None = None
    """How far below the watermark rows are read again, to find rows that were committed late. A
    text like "1 hour" for times, a number for ids; 0 if rows are committed in the order of the
    watermark. Without it, ingest prints a warning. Events that were read before are not added
    twice.
    """

    @model_validator(mode="after")
    def _one_of_both(self) -> "DatabaseTable":
        if (self.table is None) == (self.query is None):
            raise ValueError("want either `table` or `query`")
        if self.look_back is not None and self.watermark is None:
            raise ValueError("look_back has no effect without `watermark`")
        _ = self.look_back_distance  # raises if it can't be read
        return self

    @property
    def look_back_distance(self) -> timedelta | int | None:
        """`look_back` as a difference of two values of the watermark column. Raises ValueError."""
        if self.look_back is None or isinstance(self.look_back, int):
            if (self.look_back or 0) < 0:
                raise ValueError(f"look_back is {self.look_back}, want a positive number")
            return self.look_back
        found = DURATION.fullmatch(self.look_back.strip())
        if found is None:
            raise ValueError(
                f'look_back is {self.look_back!r}, want a time such as "1 hour" (seconds, minutes,'
                " hours, days) or a number for ids"
            )
        return timedelta(**{f"{found[2]}s": float(found[1])})


class DatabaseInteractions(DatabaseTable, InteractionFile):
    """Events of a database."""


class DatabaseItems(DatabaseTable, ItemFile):
    """The catalogue in a database."""

    @model_validator(mode="after")
    def _no_files(self) -> "DatabaseItems":
        if "complete" in self.model_fields_set:
            raise ValueError("complete has no effect on a database; map `available`")
        return self


class DatabaseUsers(DatabaseTable, UserFile):
    """Users in a database."""


class DatabaseConfig(Config):
    """Tables of a database."""

    url: str
    """SQLAlchemy URL. `$NAME` is replaced by an environment variable, to keep passwords out of the
    file.
    """
    interactions: DatabaseInteractions
    items: DatabaseItems | None = None
    users: DatabaseUsers | None = None
    chunk_rows: int = Field(default=50_000, ge=1)
    """Number of rows that are fetched at a time."""


class SimulatedConfig(Config):
    """Settings of a simulated world, read by the package `simulation`."""

    preset: str = "shop"
    """Name of a preset, or path of a TOML file."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """None: the seed of the preset."""
    days: int | None = Field(default=None, ge=1)
    """Number of simulated days; None: that of the preset."""
    log_days: int | None = Field(default=None, ge=1)
    """Number of simulated days whose events, users and items are read; None: all."""

    @field_validator("preset")
    @classmethod
    def _beside_file(cls, value: str, info: ValidationInfo) -> str:
        return beside_file(value, info) if value.endswith(".toml") else value


class DataConfig(Config):
    """Source of a run's data, and the rules by which its events are used."""

    source: Literal[
        "movielens-100k",
        "movielens-latest-small",
        "movielens-1m",
        "movielens-20m",
        "movielens-32m",
        "amazon-reviews-2023",
        "sequences",
        "files",
        "database",
        "simulated",
        "service",
        "commands",
    ]
    """What is read: your files, a database, posted events, or a public data set."""
    origin: Literal["pip", "grouplens"] = "pip"
    """For MovieLens-100K: the RecBole wheel, downloaded by pip, or the archive of GroupLens."""
    path: ConfigPath | None = None
    """For public data sets and sequences: a local archive, file or folder. None: download it."""
    category: str | None = None
    """For Amazon Reviews 2023: name of the category, e.g. All_Beauty."""
    files: FilesConfig | None = None
    database: DatabaseConfig | None = None
    simulated: SimulatedConfig | None = None
    """For a simulated world; None: the preset `shop`."""
    target_events: tuple[str, ...] = Field(("rating",), min_length=1)
    """Event types that models learn to predict."""
    like_threshold: float | None = None
    """A rating of at least this value also counts as a `like`; None: no rating does."""
    low_rating: float | None = None
    """A rating up to this value is negative feedback: the item isn't shown to that user again."""
    repeats: str = "exclude"
    """Whether items that a user has chosen may be recommended to that user again: "exclude" (no),
    "allow" (yes), or after some time, e.g. "after 7 days".
    """
    wording: dict[str, str] = Field(default_factory=dict)
    """{event type: verb in the past tense for reasons}, e.g. {"watch": "listened to"}."""
    session_gap_minutes: float | None = Field(default=30, gt=0)
    """If the source has no session ids, a user's events with smaller gaps form a session. None:
    don't derive sessions.
    """
    exclude: tuple[str, ...] = ()
    """SQL conditions on the contract's columns; matching events are left out (bots, test users)."""
    clock: Literal["wall", "replay"] = "wall"
    """What "now" is: the machine's time, or the end of the data, moved on by posted events."""
    impressions: bool = True
    """Whether a refresh adds the lists shown by the service to the lake, as impressions."""
    hold_back: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target events that validation keeps out of the lake; the newest ones. For a demo
    with an old data set and without users: `shortlist replay` sends them to the service as traffic.
    The first batch of a home fixes the time from which events are held back.
    """

    @property
    def has_time(self) -> bool:
        """Whether event times are real; sequence files have only an order."""
        return self.source != "sequences"

    @property
    def repeat_after(self) -> int | None:
        """Microseconds after which an item may be recommended again; None: never."""
        return repeat_after(self.repeats)

    @property
    def lists(self) -> ListRules:
        """Rules of counting events (shortlist/behaviour/counting.py) that these settings give."""
        return ListRules(
            once=self.repeat_after is None,
            low_rating=self.low_rating,
            like_threshold=self.like_threshold,
            exclude=self.exclude,
        )

    @field_validator("repeats")
    @classmethod
    def _known_repeats(cls, value: str) -> str:
        _ = repeat_after(value)
        return value

    @field_validator("target_events")
    @classmethod
    def _known_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for event_type in value:
            if event_type not in EVENT_TYPES:
                raise ValueError(f"'{event_type}' is unknown, want {', '.join(EVENT_TYPES)}")
        return value

    @field_validator("wording")
    @classmethod
    def _wording_of_types(cls, value: dict[str, str]) -> dict[str, str]:
        for event_type in value:
            if event_type not in EVENT_TYPES:
                raise ValueError(f"'{event_type}' is unknown, want {', '.join(EVENT_TYPES)}")
        return value

    @model_validator(mode="after")
    def _hold_back_is_a_demo(self) -> "DataConfig":
        if self.hold_back > 0 and self.clock == "wall":
            raise ValueError(
                'hold_back needs clock = "replay": on the wall\'s clock real users send the events'
            )
        return self

    @model_validator(mode="after")
    def _section_is_given(self) -> "DataConfig":
        for name in ("files", "database"):
            if (self.source == name) != (getattr(self, name) is not None):
                raise ValueError(
                    f'source "{name}" needs a section [data.{name}], and only that source'
                )
        if self.source == "amazon-reviews-2023" and self.category is None:
            raise ValueError('source "amazon-reviews-2023" needs `category`, e.g. "All_Beauty"')
        if self.source == "sequences" and self.path is None:
            raise ValueError('source "sequences" needs `path`, a file of one user a line')
        return self
