"""Every number of the world, with its meaning, unit and source; a preset is a short TOML that
changes some.

Where no source is named, the value is a choice that keeps the calibrated figures of
`shortlist bench calibration` near the real sets; nobody has measured it.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from shortlist.config import Config

Share = Annotated[float, Field(ge=0, le=1)]
Odds = Annotated[float, Field(ge=-20, le=20)]
"""Log-odds: beyond 20 a chance is 0 or 1 for all that anybody could measure."""
Weight = Annotated[float, Field(ge=0, le=20)]
"""A factor that can only take away, or a length."""
Spread = Annotated[float, Field(ge=0, le=3)]
"""Standard deviation of a logarithm: with 3, one in forty is 400 times the median."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Parameters(Config):
    """A part of a world's numbers: `inf` and `nan` are none."""

    model_config = ConfigDict(allow_inf_nan=False)


class Population(Parameters):
    """Who is there, and who comes."""

    users: int = Field(default=2_000, ge=1, le=20_000_000)
    """Users on the first day."""
    users_per_day: float = Field(default=10.0, ge=0, le=1_000_000)
    """New users a day, as a mean."""
    tastes: int = Field(default=2, ge=1, le=200)
    """Topics a user cares for."""
    taste_noise: Weight = 0.35
    """Length of a user's own direction, beside topics of length 1."""
    taste_drift: Weight = 0.02
    """Standard deviation of a day's step of a taste, of length 1: tastes half renewed in a year
    (Koren 2009 found drifts of this order in Netflix's ratings)."""
    taste_pull: Share = 0.01
    """Share by which a taste moves towards each consumed item: what is shown shapes taste (Jiang et
    al. 2019, "Degenerate feedback loops")."""
    staples: int = Field(default=0, ge=0, le=100)
    """Items that a user needs again and again: groceries, coffee, a song. 0: nobody does."""
    staple_days: float = Field(default=7.0, gt=0, le=365)
    """Median days until a staple is needed again."""
    staple_spread: Spread = 0.5
    """Standard deviation of the logarithm of those days, from user to user and item to item."""
    visits_per_day: float = Field(default=0.35, gt=0, le=20)
    """Mean sessions of a contented user a day."""
    activity_shape: float = Field(default=1.0, ge=0.05, le=1_000)
    """Shape of the gamma distribution of activity: the smaller, the more heavy users."""
    churn: Share = 0.03
    """Chance a day to leave, for somebody without any trust; nobody leaves with full trust."""
    comeback: Share = 0.01
    """Chance a day that somebody who left comes back, at full trust."""


class Catalogue(Parameters):
    """What there is to show."""

    items: int = Field(default=1_000, ge=1, le=5_000_000)
    """Items on the first day."""
    items_per_day: float = Field(default=5.0, ge=0, le=100_000)
    """New items a day, as a mean."""
    topics: int = Field(default=12, ge=2, le=200)
    """Topics; their sizes fall like 1 / (rank + 3)."""
    dim: int = Field(default=12, ge=2, le=256)
    """Length of taste and item vectors."""
    item_noise: Weight = 0.5
    """Length of an item's own direction, beside its topic of length 1."""
    brands: int = Field(default=40, ge=1, le=100_000)
    """Brands; a topic's items are of seven of them."""
    appeal_quality: float = Field(default=0.1, ge=-1, le=1)
    """Correlation of what makes people click with what is worth it: low, or clicks would do as a
    measure of worth."""
    price_mean: float = Field(default=30.0, gt=0, le=1_000_000)
    """Median price, in whatever currency."""
    price_spread: Spread = 0.7
    """Standard deviation of the logarithm of prices."""
    minutes: float = Field(default=6.0, gt=0, le=1_440)
    """Median length of an item's film or video."""
    watchable: Share = 0.5
    """Share of items with a film."""
    images: bool = False
    """Draw an image of each item (PNG, 32 x 32): to be shown. `vector_image` does not come from its
    pixels and is there without it; like the other vectors it is a blurred view of the item's own.
    """


class Sessions(Parameters):
    """How a visit goes."""

    slate: int = Field(default=10, ge=1, le=500)
    """Places of a page."""
    max_pages: int = Field(default=12, ge=1, le=50)
    """Pages after which a visit ends in any case."""
    go_on: Odds = -0.5
    """Log-odds of asking for one more page after a page that pleased nobody."""
    patience: Weight = 1.0
    """Standard deviation of them from user to user: most visits are short, some are very long."""
    go_on_pleased: Odds = 0.8
    """What a satisfaction of 1 adds to them."""
    mood: Weight = 0.5
    """Length of a session's mood, beside a taste of length 1."""
    search: Share = 0.12
    """Share of pages that a query asks for."""
    page_gap: Seconds = 25.0
    """Mean seconds between the end of one page and the next."""
    dwell: Seconds = 40.0
    """Mean seconds on a page of an item."""
    evening: Share = 0.6
    """Share of visits in the evening (around 20 h), the others around noon."""
    weekend: float = Field(default=1.25, gt=0, le=10)
    """Visits on Saturday and Sunday, relative to other days."""
    phone: Share = 0.65
    """Share of users who mostly come by phone."""


class Behaviour(Parameters):
    """What people do with what they see. Log-odds unless said otherwise."""

    position_decay: float = Field(default=1.1, ge=0, le=10)
    """A place k is looked at with chance k ** -decay (Joachims et al. 2005; trivago's
    list gives its first place 31% of clicks, 40% of those on ten)."""
    click: Odds = -2.6
    """Of a click on a looked-at item that means nothing to a user and has a mean appeal."""
    click_affinity: Odds = 2.2
    """Added by an affinity of 1: an item right on the user's taste."""
    click_appeal: Odds = 0.8
    """Added by each unit of appeal, a standard normal."""
    click_due: Odds = 3.0
    """Added for a staple of the user's that is needed again."""
    staple_alone: Share = 0.7
    """Chance that a needed staple that no page showed is bought all the same, by the user's own
    list, at the end of a visit."""
    boredom: Weight = 1.2
    """What full boredom with a topic takes away from affinity."""
    boredom_rise: Share = 0.08
    """Boredom with a topic from each of its items consumed."""
    boredom_decay: Share = 0.75
    """Share of a boredom that is left a day later."""
    satisfaction: Odds = -0.25
    """Of an item that means nothing to a user; satisfaction is signed, about -1 to 1."""
    satisfaction_affinity: Odds = 0.9
    """Satisfaction added by an affinity of 1."""
    satisfaction_quality: Odds = 0.55
    """Satisfaction added by each unit of quality, a standard normal."""
    satisfaction_clickbait: Weight = 0.3
    """What appeal beyond quality takes away: a promise that is not kept."""
    satisfaction_noise: Weight = 0.3
    """Standard deviation of satisfaction from click to click."""
    view: Share = 0.9
    """Share of clicks whose page is looked at; the others go back at once."""
    cart: Odds = -2.0
    """Of putting a looked-at item of mean quality and price into the cart."""
    cart_affinity: Odds = 1.2
    """Added by an affinity of 1."""
    cart_quality: Odds = 0.8
    """Added by each unit of quality."""
    cart_price: Weight = 0.8
    """Taken away by each unit of the logarithm of price over the mean price."""
    cart_intent: Weight = 1.0
    """Standard deviation of a session's intent to buy."""
    purchase: Odds = 0.0
    """Log-odds of paying for what is in the cart; a third to a half is usual."""
    send_back: Odds = -2.2
    """Of what was bought, if of mean quality."""
    send_back_quality: Weight = 1.0
    """Taken away by each unit of quality."""
    send_back_days: float = Field(default=5.0, gt=0, le=3_650)
    """Mean days until it comes back, beyond the first."""
    watch: Odds = 0.0
    """Log-odds of the share of a film that is watched, at a satisfaction of 0."""
    watch_satisfaction: Odds = 2.0
    """Added by a satisfaction of 1."""
    watch_spread: float = Field(default=6.0, ge=0.1, le=1_000)
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
    trust_gain: Weight = 0.45
    """What a satisfaction of 1 adds to that."""
    visit_floor: Share = 0.15
    """Visits of a user without any trust, relative to full trust."""


class Logging(Parameters):
    """The policy that made the log: known propensities for every place."""

    uniform: Share = 0.10
    """Share of places filled from everything that is available, all alike."""
    personal: Share = 0.35
    """Share filled from the topic the user likes best, by popularity within."""
    skew: Spread = 1.05
    """Standard deviation of the logarithm of what 'popular' means, MovieLens-like around 1."""
    loudness: Share = 0.5
    """Correlation of that with appeal."""
