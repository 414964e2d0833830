"""Every number of the world, with its meaning, unit and source; a preset is a short TOML that
changes some.

Where no source is named, the value is a choice that keeps the calibrated figures of
`shortlist bench calibration` near the real sets; nobody has measured it.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from shortlist.config import Config, ConfigError, load_toml

PRESETS = Path(__file__).with_name("presets")
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Population(Config):
    """Who is there, and who comes."""

    users: int = Field(default=2_000, ge=1, le=20_000_000)
    users_per_day: Rate = 10.0
    """New users a day, as a mean."""
    tastes: int = Field(default=2, ge=1)
    """Topics a user cares for."""
    taste_noise: Rate = 0.35
    """Length of a user's own direction, beside topics of length 1."""
    taste_drift: Rate = 0.02
    """Standard deviation of a day's step of a taste, of length 1: tastes half renewed in a year
    (Koren 2009 found drifts of this order in Netflix's ratings)."""
    taste_pull: Rate = 0.01
    """Share by which a taste moves towards each consumed item: what is shown shapes taste (Jiang et
    al. 2019, "Degenerate feedback loops")."""
    visits_per_day: Positive = 0.35
    """Mean sessions of a contented user a day."""
    activity_shape: Positive = 1.0
    """Shape of the gamma distribution of activity: the smaller, the more heavy users."""
    churn: Share = 0.03
    """Chance a day to leave, for somebody without any trust; nobody leaves with full trust."""
    comeback: Share = 0.01
    """Chance a day that somebody who left comes back, at full trust."""


class Catalogue(Config):
    """What there is to show."""

    items: int = Field(default=1_000, ge=1, le=5_000_000)
    items_per_day: Rate = 5.0
    """New items a day, as a mean."""
    topics: int = Field(default=12, ge=2, le=200)
    dim: int = Field(default=12, ge=2, le=256)
    """Length of taste and item vectors."""
    item_noise: Rate = 0.5
    """Length of an item's own direction, beside its topic of length 1."""
    brands: int = Field(default=40, ge=1)
    appeal_quality: float = Field(default=0.1, ge=-1, le=1)
    """Correlation of what makes people click with what is worth it: low, or clicks would do as a
    measure of worth."""
    price_mean: Positive = 30.0
    price_spread: Rate = 0.7
    """Standard deviation of the logarithm of prices."""
    minutes: Positive = 6.0
    """Median length of an item's film or video."""
    watchable: Share = 0.5
    """Share of items with a film."""
    images: bool = False
    """Draw an image of each item (PNG, 32 x 32)."""


class Sessions(Config):
    """How a visit goes."""

    slate: int = Field(default=10, ge=1, le=500)
    max_pages: int = Field(default=12, ge=1, le=50)
    go_on: float = -0.5
    """Log-odds of asking for one more page after a page that pleased nobody."""
    patience: Rate = 1.0
    """Standard deviation of them from user to user: most visits are short, some are very long."""
    go_on_pleased: float = 0.8
    """What a satisfaction of 1 adds to them."""
    mood: Rate = 0.5
    """Length of a session's mood, beside a taste of length 1."""
    search: Share = 0.12
    """Share of pages that a query asks for."""
    page_gap: Positive = 25.0
    """Mean seconds between the end of one page and the next."""
    dwell: Positive = 40.0
    """Mean seconds on a page of an item."""
    evening: Share = 0.6
    """Share of visits in the evening (around 20 h), the others around noon."""
    weekend: Positive = 1.25
    """Visits on Saturday and Sunday, relative to other days."""
    phone: Share = 0.65
    """Share of users who mostly come by phone."""


class Behaviour(Config):
    """What people do with what they see. Log-odds unless said otherwise."""

    position_decay: Rate = 1.1
    """A place k is looked at with chance k ** -decay (Joachims et al. 2005; trivago's
    list gives its first place 31% of clicks, 40% of those on ten)."""
    click: float = -2.6
    click_affinity: float = 2.2
    click_appeal: float = 0.8
    boredom: Rate = 1.2
    """What full boredom with a topic takes away from affinity."""
    boredom_rise: Rate = 0.08
    """Boredom with a topic from each of its items consumed."""
    boredom_decay: Share = 0.75
    """Share of a boredom that is left a day later."""
    satisfaction: float = -0.25
    """Of an item that means nothing to a user; satisfaction is signed, about -1 to 1."""
    satisfaction_affinity: float = 0.9
    satisfaction_quality: float = 0.55
    satisfaction_clickbait: Rate = 0.3
    """What appeal beyond quality takes away: a promise that is not kept."""
    satisfaction_noise: Rate = 0.3
    view: Share = 0.9
    """Share of clicks whose page is looked at; the others go back at once."""
    cart: float = -2.0
    cart_affinity: float = 1.2
    cart_quality: float = 0.8
    cart_price: Rate = 0.8
    """Taken away by each unit of the logarithm of price over the mean price."""
    cart_intent: Rate = 1.0
    """Standard deviation of a session's intent to buy."""
    purchase: float = 0.0
    """Log-odds of paying for what is in the cart; a third to a half is usual."""
    send_back: float = -2.2
    """Of what was bought, if of mean quality."""
    send_back_quality: Rate = 1.0
    """Taken away by each unit of quality."""
    send_back_days: Positive = 5.0
    watch: float = 0.0
    watch_satisfaction: float = 2.0
    """Log-odds of the share of a film that is watched."""
    watch_spread: Positive = 6.0
    """Concentration of the beta distribution of that share."""
    rating: Share = 0.25
    """Share of looked-at items that get a rating."""
    review: Share = 0.3
    """Share of ratings with a text."""
    like: Share = 0.4
    """Chance of a like after a satisfaction of 1; of a dislike after -1."""
    hide: Share = 0.03
    """Chance to hide an item that was seen, disliked and not clicked."""
    survey: Share = 0.15
    """Share of looked-at items about which is asked ..."""
    survey_answer: Share = 0.4
    """... and which get an answer; the very dissatisfied answer half as often."""
    trust: Share = 0.6
    """Of a new user, 0 to 1."""
    trust_rate: Share = 0.12
    """How far one page moves trust towards what it was worth."""
    trust_neutral: Share = 0.45
    """What a page is worth that pleased and annoyed nobody."""
    trust_gain: Rate = 0.45
    """What a satisfaction of 1 adds to that."""
    visit_floor: Share = 0.15
    """Visits of a user without any trust, relative to full trust."""


class Logging(Config):
    """The policy that made the log: known propensities for every place."""

    uniform: Share = 0.10
    """Share of places filled from everything that is available, all alike."""
    personal: Share = 0.35
    """Share filled from the topic the user likes best, by popularity within."""
    skew: Rate = 1.05
    """Standard deviation of the logarithm of what 'popular' means, MovieLens-like around 1."""
    loudness: Share = 0.5
    """Correlation of that with appeal."""


class WorldConfig(Config):
    """One world. The same config is the same world, to the last event."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    start: date = date(2026, 1, 5)
    days: int = Field(default=30, ge=1, le=3_650)
    chunk: int = Field(default=50_000, ge=1)
    """Users simulated together: bounds memory. It belongs to the world, as the seed does."""
    population: Population = Population()
    catalogue: Catalogue = Catalogue()
    sessions: Sessions = Sessions()
    behaviour: Behaviour = Behaviour()
    logging: Logging = Logging()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sessions.slate > self.catalogue.items:
            raise ValueError(
                f"sessions.slate is {self.sessions.slate}, but catalogue.items is"
                f" {self.catalogue.items}: a slate cannot hold more items than there are"
            )
        if self.logging.uniform + self.logging.personal > 1:
            raise ValueError(
                f"logging.uniform + logging.personal is"
                f" {self.logging.uniform + self.logging.personal:g}, want at most 1"
            )
        if self.logging.uniform == 0 and self.logging.skew > 0:
            raise ValueError(
                "logging.uniform is 0: want more, or rare items are never shown and a log without"
                " support says nothing about them"
            )
        if self.population.tastes > self.catalogue.topics:
            raise ValueError(
                f"population.tastes is {self.population.tastes}, there are only"
                f" {self.catalogue.topics} topics"
            )
        return self


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_world_config(preset: str, *, changes: dict[str, object] | None = None) -> WorldConfig:
    """A preset by name, or a TOML file of your own by path; `changes` replace top-level keys.

    Raises:
        ConfigError: there is no such preset or file, or a parameter is impossible.
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
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
