"""Guardrails: conditions that the figures of live traffic must meet. Pure functions.

A guardrail is one row of a TOML file: a figure, a threshold for a warning and one for the verdict
`hold` (don't use this release). Guardrails detect a recommender that gains clicks while diversity,
satisfaction or other figures get worse.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from monitoring.figures import Figure
from shortlist.config import Config, load_toml
from shortlist.plain_json import finite

Level = Literal["pass", "warn", "hold"]
SEVERITY: tuple[Level, ...] = ("pass", "warn", "hold")


class GuardrailError(ValueError):
    """A guardrail names an unknown figure; the message lists the known ones."""


class Guardrail(Config):
    """One row of configs/guardrails.toml."""

    name: str = Field(min_length=1)
    figure: str = Field(min_length=1)
    direction: Literal["min", "max"]
    """`min`: the figure must not be below the thresholds; `max`: it must not be above them."""
    warn: float = Field(allow_inf_nan=False)
    hold: float = Field(allow_inf_nan=False)
    relative_to: Literal["reference", "absolute"] = "absolute"
    """`reference`: the thresholds are multiples of the figure in the reference window."""
    meaning: str = Field(min_length=1)

    @model_validator(mode="after")
    def _hold_is_worse(self) -> "Guardrail":
        if self.direction == "min" and self.hold > self.warn:
            raise ValueError(f"direction min: hold {self.hold} must not be above warn {self.warn}")
        if self.direction == "max" and self.hold < self.warn:
            raise ValueError(f"direction max: hold {self.hold} must not be below warn {self.warn}")
        return self


class GuardrailsConfig(Config):
    """All guardrails of one file; names are unique."""

    guardrail: tuple[Guardrail, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> "GuardrailsConfig":
        names = [row.name for row in self.guardrail]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"guardrail names must be unique, repeated: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Verdict:
    """The verdict of one guardrail, with the figure and the thresholds it was compared with."""

    name: str
    verdict: Level
    figure: str
    value: float
    reference: float
    direction: str
    warn: float  # absolute threshold, also if the row gives a multiple of the reference
    hold: float  # absolute threshold, as for `warn`
    reason: str
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """Return all fields; NaN becomes null, because JSON has no NaN."""
        return finite(asdict(self))


def load_guardrails(path: Path | str) -> tuple[Guardrail, ...]:
    """Load the guardrails of a TOML file; raises ConfigError with file and key."""
    return load_toml(path, GuardrailsConfig).guardrail


def judge(figures: Mapping[str, Figure], guardrails: Sequence[Guardrail]) -> list[Verdict]:
    """Return a verdict for each guardrail, in order.

    A figure or reference without a value (NaN) gives a warning. If the figure violates the hold
    threshold but its interval contains the threshold, the evidence is too weak: the verdict is a
    warning.

    Raises:
        GuardrailError: a guardrail names an unknown figure.
    """
    return [_judge_one(figures, guardrail) for guardrail in guardrails]


def overall(verdicts: Sequence[Verdict]) -> Level:
    """Return the worst verdict; `pass` if there is none."""
    given = [verdict.verdict for verdict in verdicts]
    for level in reversed(SEVERITY):
        if level in given:
            return level
    return "pass"


def _judge_one(figures: Mapping[str, Figure], guardrail: Guardrail) -> Verdict:
    if guardrail.figure not in figures:
        raise GuardrailError(
            f"guardrail '{guardrail.name}': figure '{guardrail.figure}' is unknown, want one of"
            f" {', '.join(sorted(figures))}"
        )
    figure = figures[guardrail.figure]
    relative = guardrail.relative_to == "reference"
    scale = figure.reference if relative else 1.0
    warn, hold = guardrail.warn * scale, guardrail.hold * scale
    level, reason = _level(guardrail, figure, warn, hold)
    return Verdict(
        name=guardrail.name,
        verdict=level,
        figure=guardrail.figure,
        value=figure.current,
        reference=figure.reference,
        direction=guardrail.direction,
        warn=warn,
        hold=hold,
        reason=reason,
        meaning=guardrail.meaning,
    )


def _level(guardrail: Guardrail, figure: Figure, warn: float, hold: float) -> tuple[Level, str]:
    name, value = guardrail.figure, figure.current
    if math.isnan(value):
        return "warn", f"{name} has no value in this window: there is no data for it"
    if math.isnan(warn):
        return "warn", f"{name} is {value:.4g}, but the reference window has no value to compare"
    low = guardrail.direction == "min"
    against = ""
    if guardrail.relative_to == "reference":
        against = f" ({guardrail.warn:g} and {guardrail.hold:g} of the reference's"
        against += f" {figure.reference:.4g})"
    limits: tuple[tuple[Level, float], ...] = (("hold", hold), ("warn", warn))
    for level, limit in limits:
        if value < limit if low else value > limit:
            side = "below" if low else "above"
            reason = f"{name} is {value:.4g}, {side} the {level} limit {limit:.4g}{against}"
            best = figure.high if low else figure.low
            if level == "hold" and (best >= limit if low else best <= limit):
                # Without an interval `best` is NaN, both comparisons are false and `hold` stays.
                return "warn", f"{reason}, but its 95% interval reaches {best:.4g}: too uncertain"
            return level, reason
    side = "at least" if low else "at most"
    return "pass", f"{name} is {value:.4g}, {side} {warn:.4g}{against}"
