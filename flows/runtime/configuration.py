"""A run is one TOML file = one typed config; the flows' parameters are this same model."""

from pathlib import Path

from pydantic import Field, field_validator

from flows.validate import ValidateConfig
from models.ranking.registry import RankerConfig
from models.registry import SourceConfig
from shortlist.clock import HomeClock
from shortlist.config import Config, ConfigPath, Settings, load_toml
from shortlist.datasets import DataConfig
from shortlist.feature_store import home_clock
from shortlist.splits import MAX_REQUESTS_PER_USER
from shortlist.ticks import DAILY, HOURLY, tick_length


class FeaturesConfig(Config):
    tick: str | None = None
    """How often item features change: a whole part of a day like "30m", "1h", "1d". None: an hour
    on the wall clock, a day on the replay clock. Another tick builds the item states anew.
    """

    @field_validator("tick")
    @classmethod
    def _whole_part_of_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            tick_length(value)
        return value


CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class SplitConfig(Config):
    """Shares of the lake's target events: retrieval-train, ranker-train, validation, test. They are
    scaled to sum to 1.
    """

    fractions: tuple[float, float, float, float] = (0.70, 0.10, 0.05, 0.10)
    max_requests_per_user: int = Field(default=MAX_REQUESTS_PER_USER, ge=1)


class TrainConfig(Config):
    """What is trained. A name in `sources` is a registry kind; each kind at most once."""

    sources: tuple[SourceConfig, ...]
    rankers: tuple[RankerConfig, ...]
    candidates_per_source: int = Field(default=100, ge=1)
    mmr_strength: float = Field(default=0.0, ge=0, le=1)
    parallel: int = Field(default=2, ge=1)
    """Sources trained at the same time."""
    threads: int = Field(default=1, ge=1)
    """Threads of one source. A ranker is trained alone, on `parallel` times as many."""
    device: str = "cpu"
    """Where torch trains sources and DeepFM, e.g. `cuda`. LambdaMART always uses the CPU."""


class EvaluateConfig(Config):
    ks: tuple[int, ...] = (5, 10, 20, 50, 100)
    list_size: int = 10
    """k of the metrics that judge the shown list: coverage, diversity, novelty, popularity bias."""
    bootstrap_draws: int = 1000


class MonitorConfig(Config):
    max_requests: int = Field(default=1_000, ge=1)
    days: int = Field(default=28, ge=1)
    """Length of the serving log that is reported on, up to its newest answer. A demo on the replay
    clock reports on its whole log.
    """
    guardrails: ConfigPath = CONFIGS / "guardrails.toml"


class RunConfig(Config):
    """The whole pipeline on one data set."""

    name: str
    seed: int = 0
    gates: ConfigPath = CONFIGS / "gates.toml"
    data: DataConfig
    validation: ValidateConfig = ValidateConfig()
    features: FeaturesConfig = FeaturesConfig()
    split: SplitConfig = SplitConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    monitor: MonitorConfig = MonitorConfig()

    @property
    def tick(self) -> int:
        """Of item features, microseconds."""
        if self.features.tick is not None:
            return tick_length(self.features.tick)
        return DAILY if self.data.clock == "replay" else HOURLY

    def clock(self, settings: Settings) -> HomeClock:
        """The home's clock; the deployment may name another kind than the run."""
        return home_clock(settings, self.data.clock)


def load_run_config(path: Path | str) -> RunConfig:
    """Raises ConfigError naming file and key."""
    return load_toml(path, RunConfig)
