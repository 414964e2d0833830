"""Configuration of validation: the section [validation] of a run's TOML."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, model_validator

from shortlist.config import Config

Action = Literal["warn", "quarantine", "stop"]
Policy = Literal["keep", "quarantine", "create"]


class ValidationFailed(ValueError):
    """A batch was refused; the message names unmet expectations and limits, and where to look."""


class RuleChange(Config):
    """A change of a rule on rows (action, budget) or of a batch figure (action, `min`, `max`)."""

    action: Action | None = None
    """What happens if the rule is broken; None: as the rule has it."""
    budget: float | None = Field(default=None, ge=0, le=1)
    """Maximum share of rows that may break the rule. A larger share stops the batch, unless the
    action is warn.
    """
    min: float | None = None
    """Least valid value of the figure."""
    max: float | None = None
    """Greatest valid value of the figure."""


class Expectation(Config):
    """An expectation that a user defines in the TOML: either `row`, an SQL condition that every row
    should meet, or `batch`, an SQL aggregate over the table with the limits `min` and `max`.
    """

    name: str = Field(min_length=1)
    """Name in reports and in the quarantine."""
    table: Literal["interactions", "items", "users"] = "interactions"
    """The table that is judged."""
    row: str | None = None
    """SQL condition that each row should meet."""
    batch: str | None = None
    """SQL aggregate over the batch."""
    min: float | None = None
    """Least valid value of `batch`."""
    max: float | None = None
    """Greatest valid value of `batch`."""
    action: Action | None = None
    """What happens if it isn't met."""
    budget: float | None = Field(default=None, ge=0, le=1)
    """Greatest share of rows that may break `row`; beyond it the batch is refused."""

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
    """Limits and rules of validation."""

    failure_budget: float = Field(default=0.01, ge=0, le=1)
    """Maximum share of a table's rows that may be quarantined; with more the batch is refused."""
    rating_range: tuple[float, float] = (1, 5)
    """Lowest and highest valid rating."""
    min_rows: int = Field(default=1, ge=1)
    """A batch with fewer events is refused."""
    max_rows: int | None = None
    """A batch with more events is refused; None: no limit."""
    earliest: datetime = datetime(1970, 2, 18, tzinfo=UTC)
    """Earliest valid event time. Seconds or milliseconds read as microseconds are earlier."""
    earliest_published: datetime = datetime(1800, 1, 1, tzinfo=UTC)
    """Earliest valid date of publication."""
    max_age_days: float | None = Field(default=None, gt=0)
    """Maximum age of the newest event; None: no limit."""
    max_text: int = Field(default=100_000, ge=1)
    """Maximum length of `text` and `query`, in characters."""
    unknown_items: Policy = "keep"
    """What to do with events about items that are in neither the catalogue nor the batch."""
    unknown_users: Policy = "create"
    """What to do with events about users that the users table lacks."""
    burst_per_minute: int = Field(default=300, ge=1)
    """If a user has more events than this within a minute, a warning reports a possible bot."""
    rules: dict[str, RuleChange] = Field(default_factory=dict)
    """{rule or figure: change}; an unknown name is an error that lists all names."""
    expectations: tuple[Expectation, ...] = ()
    """Your own expectations."""

    @model_validator(mode="after")
    def _names_once(self) -> "ValidateConfig":
        names = [expectation.name for expectation in self.expectations]
        if len(set(names)) < len(names):
            raise ValueError("expectations: every name once")
        return self

    @property
    def earliest_microseconds(self) -> int:
        """`earliest` in microseconds."""
        moment = self.earliest
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return round(aware.timestamp() * 1e6)
