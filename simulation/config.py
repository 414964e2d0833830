"""One world as a config: its parameters, and the presets that ship with it."""

from datetime import date
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from shortlist.config import ConfigError, describe, load_toml
from simulation.parameters import (
    Behaviour,
    Catalogue,
    Logging,
    Parameters,
    Population,
    Sessions,
)

PRESETS = Path(__file__).with_name("presets")
MAX_DAYS = 3_650
MAX_USERS, MAX_ITEMS = 20_000_000, 5_000_000


class WorldConfig(Parameters):
    """One world. The same config is the same world, to the last event."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Of the world, in results and folders."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of everything that is drawn."""
    start: date = date(2026, 1, 5)
    """The first day."""
    days: int = Field(default=30, ge=1, le=MAX_DAYS)
    """Length of the calendar: who and what will ever arrive."""
    chunk: int = Field(default=50_000, ge=1)
    """Users simulated together: bounds memory. It belongs to the world, as the seed does."""
    population: Population = Population()
    """Who is there, and who comes."""
    catalogue: Catalogue = Catalogue()
    """What there is to show."""
    sessions: Sessions = Sessions()
    """How a visit goes."""
    behaviour: Behaviour = Behaviour()
    """What people do with what they see."""
    logging: Logging = Logging()
    """The policy that made the log."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sessions.slate > self.catalogue.items:
            raise ValueError(
                f"sessions.slate is {self.sessions.slate}, but catalogue.items is"
                f" {self.catalogue.items}: a slate cannot hold more items than there are"
            )
        if self.logging.uniform + self.logging.personal > 1:
            raise ValueError(
                f"logging.uniform + logging.personal is"
                f" {self.logging.uniform + self.logging.personal:g}, want at most 1"
            )
        if self.logging.uniform == 0 and self.logging.skew > 0:
            raise ValueError(
                "logging.uniform is 0: want more, or rare items are never shown and a log without"
                " support says nothing about them"
            )
        if self.population.tastes > self.catalogue.topics:
            raise ValueError(
                f"population.tastes is {self.population.tastes}, there are only"
                f" {self.catalogue.topics} topics"
            )
        self._fits("users", self.population.users, self.population.users_per_day, MAX_USERS)
        self._fits("items", self.catalogue.items, self.catalogue.items_per_day, MAX_ITEMS)
        return self

    def _fits(self, what: str, first: int, per_day: float, most: int) -> None:
        """Raises ValueError: more arrive in the world's time than it can hold."""
        end = first + per_day * self.days
        if end > most:
            raise ValueError(
                f"{first:,} {what} and {per_day:g} more a day are {end:,.0f} {what} in"
                f" {self.days:,} days, want at most {most:,}"
            )


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_world_config(preset: str, *, changes: dict[str, object] | None = None) -> WorldConfig:
    """A preset by name, or a TOML file of your own by path; `changes` replace top-level keys.

    Raises:
        ConfigError: there is no such preset or file, or a parameter is impossible.
    """
    path = PRESETS / f"{preset}.toml"
    if not path.is_file():
        path = Path(preset)
        if path.suffix != ".toml":
            raise ConfigError(
                f"preset '{preset}' is unknown, want one of {', '.join(preset_names())} or the"
                " path of a TOML file"
            )
    config = load_toml(path, WorldConfig)
    given = {name: value for name, value in (changes or {}).items() if value is not None}
    if not given:
        return config
    try:
        return WorldConfig.model_validate(config.model_dump() | given)
    except ValidationError as error:
        # The file by itself is possible: what is not was asked for by the caller.
        asked = ", ".join(f"{name} = {value}" for name, value in given.items())
        lines = [f"world '{preset}' with {asked}: {describe(one)}" for one in error.errors()]
        raise ConfigError("\n".join(lines)) from None
