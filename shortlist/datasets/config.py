"""Where the data is and how its columns map to the contracts."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from shortlist.config import Config
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.simulated.source import SimulatedConfig


class InteractionFile(Config):
    """One file of events. `columns` maps names of the INTERACTIONS contract to the file's own."""

    path: Path
    columns: dict[str, str]
    event_type: str | None = None
    """The type of every event, where the file has no column for it."""
    timestamp_unit: Literal["s", "ms", "us", "iso"] = "s"


class ItemFile(Config):
    path: Path
    columns: dict[str, str]
    category_separator: str = "|"
    attributes: tuple[str, ...] = ()


class UserFile(Config):
    path: Path
    columns: dict[str, str]
    attributes: tuple[str, ...] = ()


class FilesConfig(Config):
    """Your own data: CSV, JSON Lines or Parquet, told by the file's ending."""

    interactions: InteractionFile
    items: ItemFile | None = None
    """None: the catalogue is what the interactions mention."""
    users: UserFile | None = None


class DataConfig(Config):
    """The source of one run, and which of its events recommendations are learned from."""

    source: Literal["movielens-100k", "files", "simulated", "service"]
    origin: Literal["pip", "grouplens"] = "pip"
    """MovieLens: out of the RecBole wheel by pip, or GroupLens' own archive."""
    path: Path | None = None
    """MovieLens from GroupLens: an archive or folder that is here already."""
    files: FilesConfig | None = None
    simulated: SimulatedConfig | None = None
    """A world with known truth; None is the preset `shop`."""
    target_events: tuple[str, ...] = Field(("rating",), min_length=1)
    like_threshold: float | None = None
    """A rating this high is also a `like`."""
    clock: Literal["wall", "replay"] = "wall"

    @field_validator("target_events")
    @classmethod
    def _known_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for event_type in value:
            if event_type not in EVENT_TYPES:
                raise ValueError(f"'{event_type}' is unknown, want {', '.join(EVENT_TYPES)}")
        return value

    @model_validator(mode="after")
    def _files_are_given(self) -> "DataConfig":
        if (self.source == "files") != (self.files is not None):
            raise ValueError('source "files" needs a section [data.files], and only that source')
        return self
