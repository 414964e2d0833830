"""Typed configuration: the base class `Config`, the TOML loader, and the deployment's `Settings`.

Three types of setting are kept apart: hyperparameters (a component's Config, stored in the
release's manifest), the run environment (device, rng, paths: passed as arguments), and the
deployment environment (`Settings`).
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class ConfigError(ValueError):
    """A configuration file is invalid; the message gives the file, the key and a valid value."""


class Config(BaseModel):
    """Base class of all configs: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


FOLDER = "folder"
"""Key of the pydantic validation context that holds the folder of the TOML file."""


def beside_file(path: str, info: ValidationInfo) -> str:
    """Resolve a path from a TOML file relative to that file's folder; a URI is not changed."""
    folder = (info.context or {}).get(FOLDER)
    if "://" in path:
        return path
    return inside_root(path if folder is None else str(folder / path))


def inside_root(path: str) -> str:
    """Check that a path lies in SHORTLIST_DATA_ROOT, if that is set; links are followed.

    The folder with the gates and guardrails of this project is allowed too.

    Raises:
        ValueError: it lies outside.
    """
    root = Settings().data_root
    if root is None:
        return path
    allowed = (root.resolve(), Path(__file__).resolve().parents[1] / "configs")
    if not any(Path(path).resolve().is_relative_to(folder) for folder in allowed):
        raise ValueError(f"lies outside of SHORTLIST_DATA_ROOT={root}; want a path in that folder")
    return path


def _path_beside_file(path: Path, info: ValidationInfo) -> Path:
    return Path(beside_file(str(path), info))


ConfigPath = Annotated[Path, AfterValidator(_path_beside_file)]
"""Type of a path in a config; in a TOML file it is relative to the file's folder."""
ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_toml(path: Path | str, schema: type[ConfigT]) -> ConfigT:
    """Read a TOML file as one typed config. Paths in it are relative to the file's folder.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key is unknown, missing or of the wrong
            type.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, want a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    try:
        return schema.model_validate(data, context={FOLDER: path.absolute().parent})
    except ValidationError as error:
        lines = [f"{path}: {describe(problem)}" for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def describe(problem) -> str:
    """Format one pydantic error as 'key: message (got value)'."""
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if problem["type"] == "missing":
        return f"{key}: is required"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):  # printing a whole section would not help
        return f"{key}: {message}"
    return f"{key}: {message} (got {problem['input']!r})"


class EpsilonGreedy(Config):
    """Exploration that shows a random item instead in a share of the positions."""

    kind: Literal["epsilon"] = "epsilon"
    share: float = Field(gt=0, le=1)
    """Probability of a random item, for each position."""


class Softmax(Config):
    """Exploration that samples the list by its scores (Plackett-Luce)."""

    kind: Literal["softmax"] = "softmax"
    temperature: float = Field(gt=0)
    """Scores are scaled to [0, 1] over the pool and divided by the temperature.

    A small value gives nearly the same list, a large one a random order of the pool.
    """
    pool: int = Field(default=50, ge=1, le=500)
    """Number of best items from which the list is drawn."""


Explore = Annotated[EpsilonGreedy | Softmax, Field(discriminator="kind")]


class Settings(BaseSettings):
    """Deployment settings (paths, clock, URLs), read from `SHORTLIST_*` variables and
    `shortlist.toml`.

    Create it where it is needed (`Settings()`), never at import.
    """

    model_config = SettingsConfigDict(
        env_prefix="SHORTLIST_",
        toml_file="shortlist.toml",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path("var")
    """Folder that contains everything a deployment writes."""
    clock: Literal["wall", "replay"] | None = None
    """`replay`: requests may have `at`, and 'now' follows the data. None: as set in the release."""
    service_url: str = "http://127.0.0.1:3000"
    """Address of the service, for commands that ask it or send it traffic."""
    online_store: str = "sqlite"
    """`sqlite` (a file under home) or a Redis URI such as `redis://127.0.0.1:6379/0`."""

    request_budget_ms: float = Field(default=500.0, gt=0)
    """Milliseconds from a request's start. A stage that would start later is skipped
    (docs/serving.md).
    """
    online_timeout_ms: float = Field(default=100.0, gt=0)
    """Longest wait of a request for an online store that is a server (Redis), in milliseconds."""
    gentle_refresh: bool = True
    """Whether `shortlist refresh` runs with low priority and on half of the cores while the home's
    service runs on the same machine."""
    log_days: int = Field(default=90, ge=1)
    """Days that the serving log and the answer log are kept; a refresh deletes older files."""
    notify_url: str | None = None
    """URL to which alarms of guardrails are posted as JSON; None: `<home>/notifications.jsonl`."""
    explore: Explore | None = None
    """Exploration by the service (docs/reranking.md); None: off."""

    refresh_minutes: int = Field(default=60, ge=1, le=1440)
    """Minutes between two scheduled refreshes; `shortlist deploy` sets the schedule."""
    notify_webhook: SecretStr | None = None
    """URL that gets a JSON post on failure, refusal, hold and missed schedule."""
    notify_slack: SecretStr | None = None
    """Incoming webhook of a Slack channel that gets the same notifications."""
    notify_email: tuple[str, ...] = ()
    """Addresses that get the same notifications by Twilio SendGrid, from the first to all."""
    notify_sendgrid_key: SecretStr | None = None
    """API key of SendGrid; required by `notify_email`."""

    max_body_kb: int = Field(default=16_384, ge=1)
    """Largest body of a request in kB; a larger one is refused with 413."""
    max_in_flight: int = Field(default=256, ge=1)
    """Requests that a worker handles at the same time; more are refused with 503."""
    max_lag_ms: float = Field(default=5_000.0, gt=0)
    """Wait for a free worker after which requests are refused with 503, in milliseconds."""
    rate_limit: float | None = Field(default=None, gt=0)
    """Requests per second of one client and worker; more are refused with 429. None: no limit."""
    data_root: Path | None = None
    """Folder that all paths in a run's TOML file must be in; None: any path.

    Set it if other people can start runs, for example in Prefect's form.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _can_send_email(self) -> "Settings":
        if self.notify_email and self.notify_sendgrid_key is None:
            raise ValueError("notify_email needs notify_sendgrid_key, the API key of SendGrid")
        return self

    @property
    def home_name(self) -> str:
        """Short, stable name of the home for servers shared by several homes (Prefect, Redis).

        It is the folder's name and six hex digits of the sha256 of its path.
        """
        path = self.home.resolve()
        folder = re.sub(r"[^a-z0-9]+", "_", path.name.lower()).strip("_")[:20] or "home"
        return f"{folder}_{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def quarantine(self) -> Path:
        return self.home / "quarantine"

    @property
    def features(self) -> Path:
        """State snapshots in Parquet, read by Feast's offline store."""
        return self.home / "features"

    @property
    def feast(self) -> Path:
        """Feast's registry and the SQLite online store."""
        return self.home / "feast"

    @property
    def rules(self) -> Path:
        """TOML file of the business rules for all requests; a missing file means no rules."""
        return self.home / "rules.toml"

    @property
    def accepted_rules(self) -> Path:
        """The rule sets that the service has used, one JSON file each, named by their id."""
        return self.home / "rules"

    @property
    def packs(self) -> Path:
        return self.home / "packs"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def serving_log(self) -> Path:
        return self.home / "serving_log"

    @property
    def answer_log(self) -> Path:
        """Responses of /similar and /events, one JSON line each."""
        return self.home / "answer_log"

    @property
    def events(self) -> Path:
        """Inbox of posted events: JSON Lines, flushed to disk before a post is acknowledged."""
        return self.home / "events"

    @property
    def event_rules(self) -> Path:
        """Validation rules on single events; the service applies them to posted events."""
        return self.home / "event_rules.json"

    @property
    def held_back(self) -> Path:
        """Newest events of a demo's data, kept out of the lake for the replay."""
        return self.home / "held_back"

    @property
    def forgotten(self) -> Path:
        """Register of forgotten people, proofs of erasures, and the key of hashed user ids."""
        return self.home / "forgotten"

    @property
    def logs(self) -> Path:
        """Log files of long commands, one file per call."""
        return self.home / "logs"

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    @property
    def great_expectations(self) -> Path:
        """Root of Great Expectations' file context (`project_root_dir`)."""
        return self.home / "great_expectations"

    @property
    def data_docs(self) -> Path:
        return self.great_expectations / "gx" / "uncommitted" / "data_docs" / "local_site"

    @property
    def cache(self) -> Path:
        """Downloaded sources, kept between runs."""
        return self.home / "cache"
