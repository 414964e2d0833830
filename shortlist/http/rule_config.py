"""Business rules: their schema, for the rules file of a home and for the `rules` of a request.

A rule set is a TOML file with one table per rule (`[[filter]]`, `[[pin]]`, ...), or the same keys
as JSON in a request. docs/rules.md describes what each rule does, and in which order they apply.
"""

import hashlib
import math
from collections import Counter
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from shortlist import columns as c
from shortlist.config import Config, load_toml
from shortlist.ids import id_problem
from shortlist.moments import moment_problem

MAX_K = 500
"""Maximum length of a list, and the last position that a rule can name."""
MAX_RULES = 50
"""Maximum number of rules of one type in a rule set."""
MAX_IDS = 10_000
"""Maximum number of item ids in all `include` rules of a set, and in all `exclude` rules."""
MAX_VALUES = 1_000
MAX_TEXT = 256

TEXTS = (c.ITEM_ID, c.CATEGORIES, c.BRAND)
NUMBERS = (c.PRICE,)
DATES = (c.PUBLISHED_AT,)
MAP_PREFIX = f"{c.ATTRIBUTES}."
ATTRIBUTES = (*TEXTS, *NUMBERS, *DATES, f"{MAP_PREFIX}<key>")
OPERATORS = {
    "text": ("equals", "any_of", "none_of"),
    "number": ("equals", "at_least", "at_most"),
    "date": ("at_least", "at_most", "within_days"),
    "map": ("equals", "any_of", "none_of", "at_least", "at_most"),
}


def _name(value: str) -> str:
    if not 1 <= len(value) <= 64 or not value.isprintable() or value != value.strip():
        raise ValueError("want a name of 1 to 64 printable characters without blanks around it")
    return value


def _item_id(value: str) -> str:
    if problem := id_problem(value, of_user=False):
        raise ValueError(problem)
    return value


def _text(value: str) -> str:
    if not 1 <= len(value) <= MAX_TEXT:
        raise ValueError(f"want 1 to {MAX_TEXT} characters, got {len(value):,}")
    return value


def _plain(value: Any) -> Any:
    """Convert a date of a TOML file to ISO text, the form of dates in JSON requests."""
    return value.isoformat() if isinstance(value, date) else value


def _value(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("want a text or a number")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("want valid Unicode text") from None
        return _text(value)
    if not abs(value) <= 1e18:
        raise ValueError("want a number from -1e18 to 1e18")
    return value


VALUE_SCHEMA = {"type": ["string", "number", "null"], "maxLength": MAX_TEXT}
Name = Annotated[str, AfterValidator(_name)]
ItemId = Annotated[str, AfterValidator(_item_id)]
Text = Annotated[str, AfterValidator(_text)]
Value = Annotated[
    Any, BeforeValidator(_plain), AfterValidator(_value), WithJsonSchema(VALUE_SCHEMA)
]
Position = Annotated[int, Field(ge=1, le=MAX_K)]


def attribute_type(attribute: str) -> str | None:
    """Return "text", "number", "date" or "map" (a text that may be a number); None if unknown.

    Args:
        attribute: name of an item's column, or `attributes.<key>`.
    """
    if attribute.startswith(MAP_PREFIX):
        return "map" if len(attribute) > len(MAP_PREFIX) else None
    for name, members in (("text", TEXTS), ("number", NUMBERS), ("date", DATES)):
        if attribute in members:
            return name
    return None


class Condition(Config):
    """A condition on one attribute of an item. All given operators must hold.

    An item without the attribute meets `none_of` and no other operator.
    """

    attribute: Text = Field(description=f"one of {', '.join(ATTRIBUTES)}")
    equals: Value = None
    any_of: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_VALUES)
    none_of: list[Text] | None = Field(default=None, min_length=1, max_length=MAX_VALUES)
    at_least: Value = Field(default=None, description="a number, or a date (2026-11-30)")
    at_most: Value = None
    within_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        allow_inf_nan=False,
        description="published_at only: published in this many days before the request",
    )

    @model_validator(mode="after")
    def _operators_suit_the_attribute(self) -> "Condition":
        value_type = attribute_type(self.attribute)
        if value_type is None:
            raise ValueError(
                f"attribute '{self.attribute}' is unknown, want one of {', '.join(ATTRIBUTES)}"
            )
        valid = OPERATORS[value_type]
        given = [name for name in type(self).model_fields if name != "attribute"]
        given = [name for name in given if getattr(self, name) is not None]
        if not given:
            raise ValueError(f"no operator for '{self.attribute}', want one of {', '.join(valid)}")
        for name in given:
            if name not in valid:
                raise ValueError(
                    f"'{name}' is not an operator of '{self.attribute}', want one of"
                    f" {', '.join(valid)}"
                )
        if self.equals is not None and isinstance(self.equals, str) != (
            value_type in ("text", "map")
        ):
            want = "a number" if value_type == "number" else "a text"
            raise ValueError(f"equals: {self.equals!r} is not {want}, as '{self.attribute}' needs")
        low, high = self.bounds
        if low > high:
            raise ValueError(f"at_least {self.at_least!r} is above at_most {self.at_most!r}")
        return self

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value that meets the condition; dates in microseconds."""
        low = -math.inf if self.at_least is None else self._bound("at_least", self.at_least)
        high = math.inf if self.at_most is None else self._bound("at_most", self.at_most)
        if isinstance(self.equals, int | float):
            low = high = float(self.equals)
        return low, high

    def _bound(self, operator: str, value: Any) -> float:
        if self.attribute not in DATES:
            if isinstance(value, str):
                raise ValueError(f"{operator}: {value!r} is not a number")
            return float(value)
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(
                    f"{operator}: {value!r} is not a date, want one such as 2026-11-30"
                ) from None
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6
        if value != int(value) or (problem := moment_problem(int(value), kind="date")):
            problem = problem if value == int(value) else f"{value} is not a whole number"
            raise ValueError(f"{operator}: {problem}")
        return float(value)


Conditions = Annotated[list[Condition], Field(min_length=1, max_length=20)]


class Rule(Config):
    """Base class of all rules."""

    name: Name = Field(description="appears in answers and in the serving log")


class FilterRule(Rule):
    """Hard rule on attributes: `keep` only matching items, or `drop` matching items."""

    keep: Conditions | None = None
    drop: Conditions | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "FilterRule":
        if (self.keep is None) == (self.drop is None):
            raise ValueError("want either keep or drop, each a list of conditions")
        return self


class IdRule(Rule):
    """Hard rule on ids: only these items (`include`), or none of them (`exclude`)."""

    item_ids: list[ItemId] = Field(max_length=MAX_IDS)


class NotShownRule(Rule):
    """Hard rule: an item that was shown to a user isn't shown to that user again for some days.

    Only lists count that the service showed while the rule was in force.
    """

    days: float = Field(gt=0, le=365, allow_inf_nan=False)


class PinRule(Rule):
    """Shows an item at a position, if the item may be shown."""

    item_id: ItemId
    position: Position
    even_if_seen: bool = Field(
        default=False, description="also for users who consumed the item; never if they refused it"
    )


class MoveRule(Rule):
    """Moves matching items up (`boost`) or down (`bury`) among the candidates."""

    where: Conditions
    places: int = Field(ge=1, le=10_000, description="places in the ranker's order")


class CapRule(Rule):
    """Limits the number of similar items among the first `first`.

    At most `at_most` items may have the same value of `by`. With `where`, only matching items
    count; without `by`, all of them are counted together.
    """

    at_most: int = Field(ge=0, le=MAX_K)
    first: Position = Field(default=MAX_K, description="default: the whole list")
    by: Text | None = Field(default=None, description="categories, brand or attributes.<key>")
    where: Conditions | None = None

    @model_validator(mode="after")
    def _has_a_target(self) -> "CapRule":
        if self.by is None and self.where is None:
            raise ValueError("want by (an attribute), where (conditions), or both")
        if self.by is not None and (
            self.by == c.ITEM_ID or attribute_type(self.by) not in ("text", "map")
        ):
            raise ValueError(
                f"by: '{self.by}' has no values to count, want {c.CATEGORIES}, {c.BRAND} or"
                f" {MAP_PREFIX}<key>"
            )
        return self


class QuotaRule(Rule):
    """Requires that at least `at_least` of the first `first` items match `where`.

    If fewer matching items may be shown, the quota gets as many as possible.
    """

    at_least: Position
    first: Position = Field(default=MAX_K, description="default: the whole list")
    where: Conditions

    @model_validator(mode="after")
    def _fits(self) -> "QuotaRule":
        if self.at_least > self.first:
            raise ValueError(f"at_least {self.at_least} is more than first {self.first}")
        return self


class RuleSet(Config):
    """Business rules, by type. Rules of a request apply in addition to those of the file."""

    filter: list[FilterRule] = Field(default_factory=list, max_length=MAX_RULES)
    include: list[IdRule] = Field(default_factory=list, max_length=MAX_RULES)
    exclude: list[IdRule] = Field(default_factory=list, max_length=MAX_RULES)
    not_shown: list[NotShownRule] = Field(
        default_factory=list, max_length=MAX_RULES, description="only in the rules file"
    )
    pin: list[PinRule] = Field(default_factory=list, max_length=MAX_RULES)
    boost: list[MoveRule] = Field(default_factory=list, max_length=MAX_RULES)
    bury: list[MoveRule] = Field(default_factory=list, max_length=MAX_RULES)
    cap: list[CapRule] = Field(default_factory=list, max_length=MAX_RULES)
    quota: list[QuotaRule] = Field(default_factory=list, max_length=MAX_RULES)

    @model_validator(mode="after")
    def _consistent(self) -> "RuleSet":
        names = Counter(rule.name for rule in self.rules)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"rule name '{twice[0]}' is used twice, want a name per rule")
        for field, rules in (("include", self.include), ("exclude", self.exclude)):
            count = sum(len(rule.item_ids) for rule in rules)
            if count > MAX_IDS:
                raise ValueError(f"{field}: {count:,} item_ids in all, want at most {MAX_IDS:,}")
        return self

    @cached_property
    def rules(self) -> list[Rule]:
        """All rules, in the order of their types."""
        return [rule for field in type(self).model_fields for rule in getattr(self, field)]

    @property
    def arranges(self) -> bool:
        """Whether the set has soft rules: pins, boosts, buries, caps or quotas."""
        return bool(self.pin or self.boost or self.bury or self.cap or self.quota)

    @cached_property
    def days_not_shown(self) -> float:
        """The longest time for which a shown item is not shown again, in days; 0 for none."""
        return max((rule.days for rule in self.not_shown), default=0.0)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the set's content, in hex."""
        content = self.model_dump_json(exclude_defaults=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def id(self) -> str:
        """First eight hex digits of `digest`, used in logs, answers and file names."""
        return self.digest[:8]


class RulesInForce:
    """Holder of the rules in the home's file.

    All recommenders of a process share one object, so that a change applies to all of them.
    """

    def __init__(self, rules: RuleSet | None = None):
        self.rules = rules or RuleSet()


def load_rules(path: Path) -> RuleSet:
    """Read a rules file; return an empty set if the file does not exist.

    Raises:
        ConfigError: the file is not TOML, or a rule is invalid; one line per problem.
    """
    return load_toml(path, RuleSet) if path.exists() else RuleSet()
