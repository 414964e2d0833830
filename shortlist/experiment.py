"""Experiments: which release answers which user. One experiment runs in a home at a time.

`<home>/experiment.json` holds the running experiment; service workers follow the file. A user's arm
is a hash of the experiment's salt and the user_id, so it is the same in all workers and after a
restart. Ended experiments are kept in `<home>/experiments/`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from shortlist.config import Config, ConfigError, Settings
from shortlist.files.plain_json import write_json

NO_EXPERIMENT = "main"
"""Arm of the serving log for requests outside an experiment."""
BUCKETS = 10_000


class Arm(Config):
    """One variant of an experiment; a row `[[arm]]`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    """Name of the variant, in the serving log and in reports."""
    share: float = Field(gt=0, le=1)
    """Share of the users. The shares of all arms sum to 1."""
    release: str | None = None
    """Id of the release that answers this arm; None: the promoted release."""


class ExperimentConfig(Config):
    """Content of the TOML file that `shortlist experiment start` reads."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}$")
    """Name, and salt of the split of the users."""
    purpose: Literal["canary", "comparison"] = "canary"
    """`canary`: the board stops it, or promotes the challenger after `days`. `comparison`: only
    people end it; the board still stops it if a guardrail is broken."""
    champion: str
    """Name of the arm that the others are compared with."""
    challenger: str
    """Name of the judged arm."""
    holdout: str | None = None
    """Name of a long-term holdout arm, kept on one release; None: none."""
    days: float = Field(default=14.0, gt=0)
    """Days after which a canary without a broken guardrail is promoted."""
    min_users: int = Field(default=200, ge=2)
    """Users that each arm needs before a canary is promoted."""
    arm: tuple[Arm, ...] = Field(min_length=2)
    """The variants; their shares sum to 1."""

    @model_validator(mode="after")
    def _arms(self) -> "ExperimentConfig":
        names = [arm.name for arm in self.arm]
        if len(set(names)) < len(names) or NO_EXPERIMENT in names:
            raise ValueError(
                f"arms {', '.join(names)}: want different names, and none of them {NO_EXPERIMENT}"
            )
        for key in ("champion", "challenger", "holdout"):
            value = getattr(self, key)
            if value is not None and value not in names:
                raise ValueError(f"{key} '{value}' is no arm, want one of {', '.join(names)}")
        if self.champion == self.challenger:
            raise ValueError("champion and challenger are the same arm, want two")
        total = sum(arm.share for arm in self.arm)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the arms sum to {total:g}, want 1")
        if self.purpose == "canary" and self.of(self.challenger).release is None:
            raise ValueError(
                f"arm '{self.challenger}': a canary needs the release of its challenger"
            )
        return self

    def of(self, name: str) -> Arm:
        return next(arm for arm in self.arm if arm.name == name)

    @property
    def shares(self) -> dict[str, float]:
        return {arm.name: arm.share for arm in self.arm}


class Experiment(Config):
    """A running or ended experiment."""

    config: ExperimentConfig
    started: int
    """Microseconds of the home's clock; figures of the experiment start here."""
    started_at: str
    """Wall time of the start, ISO 8601."""
    ended: int | None = None
    outcome: str | None = None

    @property
    def name(self) -> str:
        return self.config.name

    def arm_of(self, user_id: str) -> str:
        """Return the user's arm."""
        return assign(user_id, self.config.arm, salt=self.config.name)


def assign(user_id: str, arms: Sequence[Arm], *, salt: str) -> str:
    """Return the arm of a user: a hash bucket of BUCKETS, split by the shares."""
    digest = hashlib.blake2b(f"{salt}\x1f{user_id}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "little") % BUCKETS / BUCKETS
    edge = 0.0
    for arm in arms:
        edge += arm.share
        if position < edge:
            return arm.name
    return arms[-1].name


def experiment_file(settings: Settings) -> Path:
    return settings.home / "experiment.json"


def running_experiment(settings: Settings) -> Experiment | None:
    """Return the running experiment; None if there is none.

    Raises:
        ConfigError: the file isn't valid.
    """
    path = experiment_file(settings)
    try:
        return Experiment.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        raise ConfigError(
            f"{path}: not an experiment: {error}; remove the file to end it"
        ) from None


def write_experiment(settings: Settings, experiment: Experiment) -> None:
    """Start an experiment for all workers, by an atomic replace."""
    write_json(experiment_file(settings), experiment.model_dump(mode="json"))


def archive_experiment(settings: Settings, experiment: Experiment) -> Path:
    """Keep an ended experiment, and remove the running one."""
    folder = settings.home / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    kept = write_json(folder / f"{experiment.name}.json", experiment.model_dump(mode="json"))
    experiment_file(settings).unlink(missing_ok=True)
    return kept


def past_experiments(settings: Settings) -> list[dict[str, Any]]:
    """Return the ended experiments, in the order of their start."""
    found = [
        json.loads(path.read_text())
        for path in sorted((settings.home / "experiments").glob("*.json"))
    ]
    return sorted(found, key=lambda experiment: experiment["started"])
