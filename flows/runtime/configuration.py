"""Configuration of a run: the typed model of its TOML file, also used as flow parameter."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from flows.validate import ValidateConfig
from models.index.config import IndexConfig
from models.ranking.registry import RankerConfig
from models.ranking.stack import StackConfig
from models.ranking.value_heads import ValueHeadsConfig
from models.recommend.cold_start.new_positions import NewItemsConfig
from models.recommend.rerank.config import RerankConfig, vector_source, with_rerank
from models.registry import SourceConfig
from shortlist.behaviour.value import OutcomeName
from shortlist.clock import HomeClock
from shortlist.config import Config, ConfigPath, Settings, load_toml
from shortlist.datasets import DataConfig
from shortlist.feature_store import home_clock
from shortlist.splits import MAX_REQUESTS_PER_USER
from shortlist.ticks import DAILY, HOURLY, tick_length


class FeaturesConfig(Config):
    """When item features change."""

    tick: str | None = None
    """Time between two versions of the item features, such as "30m", "1h" or "1d".

    It must divide a day. None: an hour on the wall clock, a day on the replay clock. After a change
    the next featurize rebuilds all states.
    """

    @field_validator("tick")
    @classmethod
    def _whole_part_of_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            tick_length(value)
        return value


CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class SplitConfig(Config):
    """Time windows and evaluation requests of a run."""

    fractions: tuple[float, float, float, float] = (0.70, 0.10, 0.05, 0.10)
    """Shares of the lake's target events in four consecutive windows.

    The windows train the sources, train the ranker, validate and test. Shares are scaled to sum
    to 1.
    """
    max_requests_per_user: int = Field(default=MAX_REQUESTS_PER_USER, ge=1)
    """Maximum number of requests of a user in a window; more are sampled."""


class TrainConfig(Config):
    """Sources and rankers to train; each source type at most once."""

    sources: tuple[SourceConfig, ...]
    """Each is a table with a `kind` and the keys of that kind."""
    rankers: tuple[RankerConfig, ...]
    """Each is a table with a `kind`; validation chooses one of them."""
    candidates_per_source: int = Field(default=100, ge=1)
    """Number of items that each source retrieves for a request."""
    rerank: RerankConfig | None = None
    """Re-ranking of the served list (docs/reranking.md); None: the list is ordered by score."""
    new_items: NewItemsConfig = NewItemsConfig()
    """Positions that lists keep for new items (docs/cold-start.md)."""
    index: IndexConfig = IndexConfig()
    """Vector indexes of the sources (docs/serving.md)."""
    parallel: int = Field(default=2, ge=1)
    """Number of sources trained at the same time."""
    threads: int = Field(default=1, ge=1)
    """Threads per source. Rankers are trained one at a time, with `parallel * threads` threads."""
    device: str = "cpu"
    """Torch device for sources and neural rankers, e.g. `cuda`. LambdaMART always uses the CPU."""

    @model_validator(mode="before")
    @classmethod
    def _former_keys(cls, content: Any) -> Any:
        return with_rerank(content)

    @model_validator(mode="after")
    def _has_vectors(self) -> "TrainConfig":
        name = vector_source(self.rerank)
        kinds = [source.kind for source in self.sources]
        if name is not None and name not in kinds:
            raise ValueError(
                f"rerank.vectors needs the source {name}; `sources` has {', '.join(kinds)}: add"
                f' {{ kind = "{name}" }}, or set rerank.vectors = "categories"'
            )
        return self

    @model_validator(mode="after")
    def _stacks_learn_from_candidates(self) -> "TrainConfig":
        """A stack trains its members again on parts of the candidates' requests."""
        labels = {r.kind: getattr(r, "labels", "candidates") for r in self.rankers}
        for ranker in self.rankers:
            for member in ranker.members if isinstance(ranker, StackConfig) else ():
                if labels.get(member, "candidates") != "candidates":
                    raise ValueError(
                        f"train.rankers: the stack reads {member}, which has labels ="
                        f' "{labels[member]}"; want labels = "candidates" for members of a stack'
                    )
        return self


class EvaluateConfig(Config):
    """How lists are judged."""

    ks: tuple[int, ...] = (5, 10, 20, 50, 100)
    """List lengths at which lists are judged."""
    list_size: int = 10
    """Length of the shown list, the k of coverage, diversity, novelty and popularity bias."""
    bootstrap_draws: int = 1000
    """Number of bootstrap samples of users for an interval."""


class MonitorConfig(Config):
    """What monitoring reads and by which limits it judges."""

    max_requests: int = Field(default=1_000, ge=1)
    """Number of the newest responses that a report reads."""
    days: int = Field(default=28, ge=1)
    """Number of days of the serving log to report on, before its newest response. On the replay
    clock the report covers the whole log.
    """
    guardrails: ConfigPath = CONFIGS / "guardrails.toml"
    """TOML file with the guardrails."""


class RunConfig(Config):
    """Configuration of a run: the whole pipeline on one data set."""

    name: str
    """Name of the run's data set or purpose; part of the run's id."""
    seed: int = 0
    """Seed of everything that is random in the run."""
    gates: ConfigPath = CONFIGS / "gates.toml"
    """TOML file with the limits of the gates."""
    data: DataConfig
    validation: ValidateConfig = ValidateConfig()
    features: FeaturesConfig = FeaturesConfig()
    split: SplitConfig = SplitConfig()
    train: TrainConfig
    value: dict[OutcomeName, float] = Field(default_factory=dict)
    """Outcomes of a recommendation and their weights (docs/value.md). The ranker `value` orders
    items by the expected weighted sum, and rankers are then compared by it. Empty: rankers are
    compared by nDCG."""
    evaluate: EvaluateConfig = EvaluateConfig()
    monitor: MonitorConfig = MonitorConfig()

    @model_validator(mode="after")
    def _value_has_a_ranker(self) -> "RunConfig":
        named = any(ranker.kind == "value" for ranker in self.train.rankers)
        if self.value and not any(self.value.values()):
            raise ValueError("value: all weights are 0, want at least one other number")
        if named and not self.value:
            raise ValueError(
                "train.rankers has the ranker value, which needs [value] with outcomes and weights,"
                " such as `purchase = 1.0`"
            )
        return self

    @property
    def rankers(self) -> tuple[RankerConfig, ...]:
        """The rankers to train, with the weights of `[value]` inserted."""
        return tuple(
            ranker.model_copy(update={"weights": self.value})
            if isinstance(ranker, ValueHeadsConfig)
            else ranker
            for ranker in self.train.rankers
        )

    @property
    def tick(self) -> int:
        """Tick length of item features in microseconds."""
        if self.features.tick is not None:
            return tick_length(self.features.tick)
        return DAILY if self.data.clock == "replay" else HOURLY

    def clock(self, settings: Settings) -> HomeClock:
        """Return the home's clock. SHORTLIST_CLOCK takes precedence over the run's `clock`."""
        return home_clock(settings, self.data.clock)


def load_run_config(path: Path | str) -> RunConfig:
    """Read a run's TOML file. Raises ConfigError with file and key."""
    return load_toml(path, RunConfig)
