"""Limits that the contracts do not know, as one section of the run's TOML."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, model_validator

from shortlist.config import Config

Action = Literal["warn", "quarantine", "stop"]
Policy = Literal["keep", "quarantine", "create"]


class ValidationFailed(ValueError):
    """A batch was refused; the message names expectation, figures, budget, and where to look."""


class RuleChange(Config):
    """Another action or budget for a rule, another limit for a figure of the batch."""

    action: Action | None = None
    budget: float | None = Field(default=None, ge=0, le=1)
    """Share of the rows that may break a rule; beyond it the action is stop (warn stays warn)."""
    min: float | None = None
    max: float | None = None


class Expectation(Config):
    """One of your own. `row`: an SQL condition that every row should meet. `batch`: an SQL
    aggregate with limits.
    """

    name: str = Field(min_length=1)
    table: Literal["interactions", "items", "users"] = "interactions"
    row: str | None = None
    batch: str | None = None
    min: float | None = None
    max: float | None = None
    action: Action | None = None
    budget: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self) -> "Expectation":
        if (self.row is None) == (self.batch is None):
            raise ValueError("want either `row` (a condition) or `batch` (an aggregate)")
        if self.batch is not None and self.min is None and self.max is None:
            raise ValueError("`batch` needs `min`, `max` or both")
        if self.batch is not None and self.action == "quarantine":
            raise ValueError("a figure of the whole batch has no rows to quarantine: warn or stop")
        return self


class ValidateConfig(Config):
    """How strict validation is."""

    failure_budget: float = Field(default=0.01, ge=0, le=1)
    """Share of a table's rows that may go to quarantine before the batch is refused."""
    rating_range: tuple[float, float] = (1, 5)
    min_rows: int = Field(default=1, ge=1)
    max_rows: int | None = None
    earliest: datetime = datetime(1970, 2, 18, tzinfo=UTC)
    """Seconds and milliseconds that were read as microseconds lie before it."""
    earliest_published: datetime = datetime(1800, 1, 1, tzinfo=UTC)
    max_age_days: float | None = Field(default=None, gt=0)
    """The newest event may be this much older than the data's clock."""
    max_text: int = Field(default=100_000, ge=1)
    """Characters of a text."""
    unknown_items: Policy = "keep"
    """Events of an item that neither catalogue nor batch has."""
    unknown_users: Policy = "create"
    burst_per_minute: int = Field(default=300, ge=1)
    """More events of one user within a minute look like a bot."""
    rules: dict[str, RuleChange] = Field(default_factory=dict)
    """{rule or figure: change}; a misspelt name is an error that lists them all."""
    expectations: tuple[Expectation, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> "ValidateConfig":
        names = [one.name for one in self.expectations]
        if len(set(names)) < len(names):
            raise ValueError("expectations: every name once")
        return self

    @property
    def earliest_microseconds(self) -> int:
        """`earliest` as the events' times are."""
        moment = self.earliest
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return round(aware.timestamp() * 1e6)

    @property
    def enforced_rating_range(self) -> tuple[float, float] | None:
        """The range that ratings are held to; None if going beyond it is but a warning."""
        change = self.rules.get("value.rating_range")
        return None if change is not None and change.action == "warn" else self.rating_range
