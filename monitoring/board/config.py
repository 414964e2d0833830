"""The guardrails of configs/guardrails.toml: typed, and checked before anything is judged."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from monitoring.traffic.join import Delays
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import WHOLE_MEASURES
from shortlist.config import Config, load_toml

Action = Literal["notify", "hold", "stop_canary", "roll_back", "retrain", "source_off"]
ACTIONS: tuple[Action, ...] = (
    "notify", "hold", "stop_canary", "roll_back", "retrain", "source_off",
)  # fmt: skip
MILD: tuple[Action, ...] = ("notify", "retrain")
"""Actions that leave users and promotions alone; the others make the verdict `hold`."""
Compare = Literal["absolute", "champion", "holdout", "previous", "reference"]


LOOKS_PER_WINDOW = 16.0
"""Independent looks that checks during one window's length amount to."""
Family = Literal["data", "features", "models", "product", "traffic", "measurement"]


class BoardConfig(Config):
    """Settings of the whole board: budget of false alarms, length of a canary, cool-down."""

    weeks_per_false_alarm: float = Field(default=26.0, gt=0)
    """Budget of the whole board: on average one false alarm in this many weeks."""
    checks_per_week: float = Field(default=168.0, gt=0)
    """How often the board is judged; 168 = every hour."""
    canary_days: float = Field(default=14.0, gt=0)
    """Longest duration of a canary. Sequential tests spend their part of the budget over it."""
    sample_ratio_alpha: float = Field(default=0.001, gt=0, lt=1)
    """Level of the sample-ratio check. If it fails, no comparison of arms is judged."""
    cool_down_hours: float = Field(default=24.0, ge=0)
    """Hours after an action within which the same guardrail doesn't act again."""

    @property
    def alpha_per_week(self) -> float:
        """False-alarm probability per week of all guardrails that look at windows."""
        return 1 / self.weeks_per_false_alarm

    def looks_per_week(self, window_hours: float) -> float:
        """Return how many independent looks the checks of a week amount to, for one window.

        Consecutive checks see nearly the same window. The maximum of a sliding mean exceeds u
        standard errors within one window's length with a probability of about u^2 times that of a
        single look (Slepian 1961); u is about 4 at this budget.
        """
        return min(self.checks_per_week, LOOKS_PER_WINDOW * 168 / window_hours)

    @property
    def alpha_per_canary(self) -> float:
        """False-alarm probability of all sequential guardrails over one canary.

        A canary lasts `canary_days`, so this is the share of the budget for that time, at most 5%.
        """
        return min(0.05, self.canary_days / 7 / self.weeks_per_false_alarm)


class Guardrail(Config):
    """One condition that live traffic must meet; a row `[[guardrail]]`."""

    name: str = Field(min_length=1)
    """Unique name, in reports, alarms and commands."""
    figure: str = Field(min_length=1)
    """A figure of docs/reference/figures.md, `exposure/<column>=<value>`, or a figure of the
    Evidently report. `exposure/<column>=*` and `coverage/category=*` stand for every value; the
    worst one is reported."""
    bad: Literal["low", "high"]
    """Which side of the limit is wrong."""
    compare: Compare = "absolute"
    """`absolute`: the limit is a value of the figure. `champion`, `holdout`: a difference from that
    arm at the same time. `previous`: from the four windows of equal length before. `reference`:
    from the release's lists of the test window. Differences are relative: -0.05 is 5% less."""
    limit: float = Field(allow_inf_nan=False)
    """Value, or relative difference, up to which the figure is fine."""
    least_change: float = Field(default=0.0, ge=0)
    """Smallest absolute difference that counts, in the figure's unit, with a relative limit; for
    figures near 0. The larger of both is allowed."""
    window_hours: float = Field(default=168.0, gt=0)
    """The window ends with the newest closed request. For an arm it starts with the experiment."""
    slice: str = "all"
    """`all` or `<column>=<value>`, e.g. `group=new`."""
    min_users: int = Field(default=100, ge=1)
    """With fewer users in the denominator the guardrail isn't judged; its level is `waiting`."""
    test: Literal["sequential", "window", "none"] = "window"
    """`sequential`: valid for any number of looks at the same experiment. `window`: a test of each
    window. `none`: the value itself is compared, for figures without random error."""
    action: Action = "notify"
    """What an alarm does."""
    source: str | None = None
    """Candidate source that the action `source_off` switches off."""
    together_with: str | None = None
    """Name of another guardrail that must be broken too, e.g. `clicks rise`."""
    required: bool = True
    """Whether a missing figure is reported as `missing`, which is no pass; false for figures that
    only some data have (ratings, purchases)."""
    alarm: bool = True
    """Whether breaking the guardrail alone is an alarm; false for a condition that others name in
    `together_with`."""
    meaning: str = Field(min_length=1)
    """What the guardrail protects, in a few words."""
    runbook: str = Field(min_length=1)
    """Anchor of the entry in docs/monitoring.md."""

    @model_validator(mode="after")
    def _consistent(self) -> "Guardrail":
        relative = self.compare != "absolute"
        if self.test == "sequential" and self.compare not in ("champion", "holdout"):
            raise ValueError(
                f"guardrail '{self.name}': test sequential compares arms of an experiment, want"
                " compare champion or holdout"
            )
        if relative and ((self.bad == "low") != (self.limit <= 0)):
            raise ValueError(
                f"guardrail '{self.name}': limit {self.limit:g} is a relative difference, want"
                f" {'at most 0 for bad low' if self.bad == 'low' else 'above 0 for bad high'}"
            )
        if self.action == "source_off" and not self.source:
            raise ValueError(f"guardrail '{self.name}': action source_off needs a source")
        if self.action == "stop_canary" and self.compare not in ("champion", "holdout"):
            raise ValueError(
                f"guardrail '{self.name}': action stop_canary needs compare champion or holdout"
            )
        if self.least_change and self.compare != "previous":
            raise ValueError(f"guardrail '{self.name}': least_change needs compare previous")
        if self.figure.endswith("=*") and (self.compare, self.test) != ("previous", "none"):
            raise ValueError(
                f"guardrail '{self.name}': figure '{self.figure}' stands for several values, want"
                " compare previous and test none"
            )
        has_error = self.figure in MEASURES or self.figure in WHOLE_MEASURES
        has_error |= self.figure.startswith("exposure/") or self.compare == "reference"
        if self.test != "none" and not has_error:
            raise ValueError(
                f"guardrail '{self.name}': figure '{self.figure}' is not in"
                " docs/reference/figures.md, or has no standard error; want another figure, or"
                " test none"
            )
        return self


class Cause(Config):
    """A probable cause of alarms: a row `[[cause]]`. The first row whose signs are all there is
    named."""

    family: Family
    """What is at fault: data, features, models, product, traffic or measurement."""
    signs: tuple[str, ...] = Field(min_length=1)
    """Names of guardrails that are beyond their limits, all of them."""
    meaning: str = Field(min_length=1)
    """What has probably happened, in a few words."""


class GuardrailFile(Config):
    """Content of configs/guardrails.toml."""

    board: BoardConfig = BoardConfig()
    delays: Delays = Delays()
    guardrail: tuple[Guardrail, ...] = Field(min_length=1)
    cause: tuple[Cause, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> "GuardrailFile":
        names = [row.name for row in self.guardrail]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"guardrail names must be unique, repeated: {', '.join(twice)}")
        for row in self.guardrail:
            if row.together_with is not None and row.together_with not in names:
                raise ValueError(
                    f"guardrail '{row.name}': together_with '{row.together_with}' is no guardrail;"
                    f" want one of {', '.join(names)}"
                )
        for cause in self.cause:
            unknown = sorted(set(cause.signs) - set(names))
            if unknown:
                raise ValueError(
                    f"cause '{cause.meaning}': sign '{unknown[0]}' is no guardrail; want one of"
                    f" {', '.join(names)}"
                )
        return self


def load_board(path: Path | str) -> GuardrailFile:
    """Read the guardrails of a TOML file; raises ConfigError with file and key."""
    return load_toml(path, GuardrailFile)
