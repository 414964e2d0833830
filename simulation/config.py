"""Configuration of a simulated world, and the loader of presets."""

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
    """Full configuration of a world. The same config gives the same events, bit for bit."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name of the world, used in results and folder names."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of all random draws."""
    start: date = date(2026, 1, 5)
    """Date of day 0."""
    days: int = Field(default=30, ge=1, le=MAX_DAYS)
    """Number of simulated days. All users and items that arrive on these days are drawn at the
    start."""
    chunk: int = Field(default=50_000, ge=1)
    """Number of users simulated together (a chunk), to bound memory. Changing it changes the
    events."""
    population: Population = Population()
    """Users, their tastes and their activity."""
    catalogue: Catalogue = Catalogue()
    """Items and topics."""
    sessions: Sessions = Sessions()
    """Length and timing of visits."""
    behaviour: Behaviour = Behaviour()
    """Actions of users on the items they are shown."""
    logging: Logging = Logging()
    """Logging policy: the policy that fills the pages of the published log."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sessions.slate > self.catalogue.items:
            raise ValueError(
                f"sessions.slate is {self.sessions.slate}, want at most catalogue.items"
                f" ({self.catalogue.items}): a slate cannot repeat an item"
            )
        if self.logging.uniform + self.logging.personal > 1:
            raise ValueError(
                f"logging.uniform + logging.personal is"
                f" {self.logging.uniform + self.logging.personal:g}, want at most 1"
            )
        if self.logging.uniform == 0 and self.logging.skew > 0:
            raise ValueError(
                "logging.uniform is 0, want more than 0 while logging.skew is above 0: otherwise"
                " rare items are almost never shown, and the log has no support for them"
            )
        if self.population.tastes > self.catalogue.topics:
            raise ValueError(
                f"population.tastes is {self.population.tastes}, want at most catalogue.topics"
                f" ({self.catalogue.topics})"
            )
        self._fits("users", self.population.users, self.population.users_per_day, MAX_USERS)
        self._fits("items", self.catalogue.items, self.catalogue.items_per_day, MAX_ITEMS)
        return self

    def _fits(self, what: str, first: int, per_day: float, most: int) -> None:
        """Raise ValueError if the expected total after `days` days exceeds `most`."""
        end = first + per_day * self.days
        if end > most:
            raise ValueError(
                f"{first:,} {what} plus {per_day:g} a day give {end:,.0f} {what} after"
                f" {self.days:,} days, want at most {most:,}"
            )


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_world_config(preset: str, *, changes: dict[str, object] | None = None) -> WorldConfig:
    """Load a preset by name, or a TOML file by path.

    Args:
        changes: top-level keys to replace; a value of None keeps the value of the file.

    Raises:
        ConfigError: the preset or file doesn't exist, or a parameter is out of bounds.
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
        # The file alone was valid, so the error comes from `changes`.
        asked = ", ".join(f"{name} = {value}" for name, value in given.items())
        lines = [
            f"world '{preset}' with {asked}: {describe(problem)}" for problem in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None
