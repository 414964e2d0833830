"""Where the data is and how its columns map to the contracts."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shortlist import columns as c
from shortlist.config import Config, ConfigPath, beside_file
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, ITEMS, USERS
from shortlist.counting import ListRules
from shortlist.moments import TIME_UNITS
from shortlist.repeats import repeat_after

Format = Literal["csv", "jsonl", "parquet"]
Decimal = Literal[".", ","]
OPERATION = "operation"
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(second|minute|hour|day)s?")
MOVIELENS = ("movielens-latest-small", "movielens-1m", "movielens-20m", "movielens-32m")


class FileTable(Config):
    """Files of one table: one file, a folder, a glob, or any fsspec URI such as s3://bucket/*.csv.

    `columns` maps names of the contract to the files' own; `operation` (insert, correct, delete)
    may be among them.
    """

    path: str = Field(min_length=1)
    columns: dict[str, str]
    format: Format | None = None
    """None: told by the file's ending (.csv .tsv .jsonl .ndjson .parquet, then .gz or .zst)."""
    separator: str | None = Field(default=None, min_length=1, max_length=4)
    """Between the fields of a CSV file. None: the one that its first line has."""
    header: tuple[str, ...] = ()
    """Names of the columns, where the first line of a CSV file is data already."""
    quote: str = '"'
    sparse: bool = False
    """JSON Lines: a mapped key may be missing in the first thousand lines."""
    encoding: str = "utf-8"
    """utf-8, utf-16, or any that Python knows and that has ASCII's bytes, e.g. cp1251."""
    decimal: Decimal = "."
    """Mark of fractions in numbers that are text. With "," 1.234 is 1234."""
    timestamp_unit: str = "s"
    """s, ms, us, ns, iso, excel (days of a spreadsheet), or a pattern such as "%d.%m.%Y %H:%M"."""
    time_zone: str = "UTC"
    """Of times that do not name one."""

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
            units = ", ".join(f'"{one}"' for one in TIME_UNITS)
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
    for name in columns:
        if name not in (*names, OPERATION) and not name.startswith("vector_"):
            raise ValueError(f"'{name}' is no column of the contract, want {', '.join(names)}")
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(f"columns must map {', '.join(missing)} to columns of the file")


class InteractionFile(FileTable):
    """Events. Required are user_id, item_id, event_timestamp, and event_type or one for all."""

    event_type: str | None = None
    """The type of every event, where the files have no column for it."""
    event_types: dict[str, str] = Field(default_factory=dict)
    """{the files' word: the contract's}, e.g. {"order": "purchase"}."""
    no_user: tuple[str, ...] = ()
    """Words in the column of users that mean nobody, e.g. ["NA"] or [""]: each session then stands
    alone. Rows without a session go to quarantine.
    """
    exact_ids: bool = False
    """An id like 196.0 isn't read as 196 but goes to quarantine: the writer has text for ids."""
    unrated: float | None = None
    """The value of a rating that means "not rated", e.g. -1: such an event becomes
    `unrated_type`, without a value.
    """
    unrated_type: str = "view"

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
        return self


class ItemFile(FileTable):
    category_separator: str = "|"
    """With ">" the categories are a path from the widest to the narrowest."""
    category_key: str = "name"
    """What a category is called, where categories are lists of objects."""
    attributes: tuple[str, ...] = ()
    complete: bool = True
    """Whether the file is the whole catalogue: items that a newer one lacks become unavailable.
    False: a file of changes. Without effect where `operation` is mapped.
    """

    @model_validator(mode="after")
    def _complete(self) -> "ItemFile":
        _known_columns(self.columns, ITEMS.names, (c.ITEM_ID,))
        return self


class UserFile(FileTable):
    attributes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> "UserFile":
        _known_columns(self.columns, USERS.names, (c.USER_ID,))
        return self


class FilesConfig(Config):
    """Your own data: CSV, JSON Lines or Parquet, plain, gzip or zstd."""

    interactions: tuple[InteractionFile, ...] = Field(min_length=1)
    """One table, or several ([[data.files.interactions]]) that together are the log."""
    items: ItemFile | None = None
    """None: the catalogue is what the interactions mention."""
    users: UserFile | None = None

    @field_validator("interactions", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | InteractionFile) else value


class DatabaseTable(FileTable):
    """A table or query of the database, by the mapping of a file."""

    path: str = ""
    table: str | None = None
    query: str | None = None
    watermark: str | None = None
    """A column that only grows (an id, a time of change): the next run reads on from there."""
    look_back: int | str | None = None
    """Read again what lies this far below the watermark: rows that were committed late. "1 hour" or
    the like for times, a number for ids. Events that the lake has already are not taken twice.
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
        """`look_back` as a difference of two values of the watermark's column."""
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
    pass


class DatabaseItems(DatabaseTable, ItemFile):
    @model_validator(mode="after")
    def _no_files(self) -> "DatabaseItems":
        if "complete" in self.model_fields_set:
            raise ValueError("complete has no effect on a database; map `available`")
        return self


class DatabaseUsers(DatabaseTable, UserFile):
    pass


class DatabaseConfig(Config):
    """Any SQLAlchemy URL; `$NAME` in it is taken from the environment, so that no password is in
    the file.
    """

    url: str
    interactions: DatabaseInteractions
    items: DatabaseItems | None = None
    users: DatabaseUsers | None = None
    chunk_rows: int = Field(default=50_000, ge=1)


class SimulatedConfig(Config):
    """Which simulated world, and how much of it. The package `simulation` reads these settings."""

    preset: str = "shop"
    """A preset's name, or the path of a TOML file of your own."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """None: the preset's."""
    days: int | None = Field(default=None, ge=1)
    """Length of the world's calendar; None: the preset's."""
    log_days: int | None = Field(default=None, ge=1)
    """Days of the log that are published, with the users and items of that time; None: all."""

    @field_validator("preset")
    @classmethod
    def _beside_file(cls, value: str, info: ValidationInfo) -> str:
        return beside_file(value, info) if value.endswith(".toml") else value


class DataConfig(Config):
    """The source of one run, and which of its events recommendations are learned from."""

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
    ]
    origin: Literal["pip", "grouplens"] = "pip"
    """MovieLens-100K: out of the RecBole wheel by pip, or GroupLens' own archive."""
    path: ConfigPath | None = None
    """Public sets: an archive, file or folder that is here already."""
    category: str | None = None
    """Amazon Reviews 2023: the category's name, e.g. All_Beauty."""
    files: FilesConfig | None = None
    database: DatabaseConfig | None = None
    simulated: SimulatedConfig | None = None
    """A world with known truth; None is the preset `shop`."""
    target_events: tuple[str, ...] = Field(("rating",), min_length=1)
    like_threshold: float | None = None
    """A rating this high is also a `like`."""
    low_rating: float | None = None
    """A rating up to this value is negative feedback: the item isn't shown to that user again."""
    repeats: str = "exclude"
    """Whether what somebody consumed may be recommended to him again: "exclude", "allow", or after
    some time, e.g. "after 7 days".
    """
    wording: dict[str, str] = Field(default_factory=dict)
    """How reasons say what somebody did: {event type: past tense}, {"watch": "listened to"}."""
    session_gap_minutes: float | None = Field(default=30, gt=0)
    """Events of a user closer than this are one session, where the source names none."""
    exclude: tuple[str, ...] = ()
    """Events to leave out, as SQL conditions on the contract's columns: bots, test users."""
    clock: Literal["wall", "replay"] = "wall"
    impressions: bool = True
    """Whether a refresh makes events of the lists that the service has shown."""
    hold_back: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target events, the newest, that ingest leaves to `shortlist replay`: a demo
    without users sends them as traffic. The cut is a time, decided by a home's first ingest.
    """

    @property
    def has_time(self) -> bool:
        """Whether event times mean anything; sequences have an order only."""
        return self.source != "sequences"

    @property
    def repeat_after(self) -> int | None:
        """Microseconds after which an item may be recommended again; None: never."""
        return repeat_after(self.repeats)

    @property
    def lists(self) -> ListRules:
        """What counts of a user's events, and what the lists of them hold."""
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
