"""Parameters of the simulated world, each with its meaning, unit and source.

A preset is a short TOML file that changes some of them. A default without a named source was not
measured. It was chosen so that simulated logs resemble real data sets (`shortlist bench
calibration` compares them).
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from shortlist.config import Config

Share = Annotated[float, Field(ge=0, le=1)]
Odds = Annotated[float, Field(ge=-20, le=20)]
"""Log-odds of a probability, or a term that is added to them. Beyond 20, the probability is
practically 0 or 1."""
Weight = Annotated[float, Field(ge=0, le=20)]
"""A factor or a vector length that can't be negative."""
Spread = Annotated[float, Field(ge=0, le=3)]
"""Standard deviation of a logarithm. With 3, one value in forty is over 400 times the median."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Parameters(Config):
    """Base of the parameter groups; refuses `inf` and `nan`."""

    model_config = ConfigDict(allow_inf_nan=False)


class Population(Parameters):
    """Users, their tastes and their activity."""

    users: int = Field(default=2_000, ge=1, le=20_000_000)
    """Users on the first day."""
    users_per_day: float = Field(default=10.0, ge=0, le=1_000_000)
    """Mean number of new users per day (Poisson)."""
    tastes: int = Field(default=2, ge=1, le=200)
    """Number of topics a user likes."""
    taste_noise: Weight = 0.35
    """Length of the random vector that is added to a user's taste; topic vectors have length 1."""
    taste_drift: Weight = 0.02
    """Standard deviation of the daily random step of a taste of length 1. With the default, about
    half of a taste changes in a year (Koren 2009 found such drifts in Netflix's ratings)."""
    taste_pull: Share = 0.01
    """Share of the distance by which a taste moves towards each clicked item. So shown items shape
    taste (Jiang et al. 2019, "Degenerate feedback loops")."""
    staples: int = Field(default=0, ge=0, le=100)
    """Number of items that each user needs repeatedly (staples, such as groceries); 0: none."""
    staple_days: float = Field(default=7.0, gt=0, le=365)
    """Median days until a staple is needed again."""
    staple_spread: Spread = 0.5
    """Standard deviation of the logarithm of `staple_days`, over users and items."""
    visits_per_day: float = Field(default=0.35, gt=0, le=20)
    """Mean number of visits per weekday of a user with full trust."""
    activity_shape: float = Field(default=1.0, ge=0.05, le=1_000)
    """Shape of the gamma distribution of activity; smaller values give more heavy users."""
    churn: Share = 0.03
    """Daily probability that a user with a trust of 0 leaves; it falls to 0 at full trust."""
    comeback: Share = 0.01
    """Daily probability that a user who left returns, at full trust; at a trust of 0 it is 0."""


class Catalogue(Parameters):
    """Items and topics."""

    items: int = Field(default=1_000, ge=1, le=5_000_000)
    """Items on the first day."""
    items_per_day: float = Field(default=5.0, ge=0, le=100_000)
    """Mean number of new items per day (Poisson)."""
    topics: int = Field(default=12, ge=2, le=200)
    """Number of topics; their sizes fall as 1 / (rank + 3)."""
    dim: int = Field(default=12, ge=2, le=256)
    """Dimension of taste and item vectors."""
    item_noise: Weight = 0.5
    """Length of the random vector added to an item's topic vector, which has length 1."""
    brands: int = Field(default=40, ge=1, le=100_000)
    """Number of brands; the items of a topic belong to seven of them."""
    appeal_quality: float = Field(default=0.1, ge=-1, le=1)
    """Correlation of an item's appeal (causes clicks) and quality (causes satisfaction). It is low,
    so that clicks are not a good measure of quality."""
    price_mean: float = Field(default=30.0, gt=0, le=1_000_000)
    """Median price; the currency is not specified."""
    price_spread: Spread = 0.7
    """Standard deviation of the logarithm of prices."""
    minutes: float = Field(default=6.0, gt=0, le=1_440)
    """Median length of an item's film, in minutes."""
    watchable: Share = 0.5
    """Share of items with a film."""
    images: bool = False
    """Whether to draw a PNG image of 32 x 32 pixels for each item. The column `vector_image` is
    published in any case: it is computed from the latent item vector, not from the pixels."""


class Sessions(Parameters):
    """Length and timing of visits."""

    slate: int = Field(default=10, ge=1, le=500)
    """Number of positions per page."""
    max_pages: int = Field(default=12, ge=1, le=50)
    """Maximum number of pages per visit."""
    go_on: Odds = -0.5
    """Log-odds of requesting another page after a page with a satisfaction of 0."""
    patience: Weight = 1.0
    """Standard deviation of these log-odds over users: most visits are short, some very long."""
    go_on_pleased: Odds = 0.8
    """Increase of these log-odds if the satisfaction with the page is 1."""
    mood: Weight = 0.5
    """Length of the session's random mood vector, which is added to a taste of length 1."""
    search: Share = 0.12
    """Share of pages that are results of a search."""
    page_gap: Seconds = 25.0
    """Mean seconds between the end of one page and the start of the next."""
    dwell: Seconds = 40.0
    """Mean seconds on the page of an item."""
    evening: Share = 0.6
    """Share of visits in the evening (around 20:00); the others are around 12:30."""
    weekend: float = Field(default=1.25, gt=0, le=10)
    """Factor on the visit probability on Saturday and Sunday."""
    phone: Share = 0.65
    """Share of users who make most of their visits by phone."""


class Behaviour(Parameters):
    """Actions of users on the items they are shown."""

    position_decay: float = Field(default=1.1, ge=0, le=10)
    """Position k is examined with probability k ** -decay (Joachims et al. 2005). On trivago the
    first position gets 31% of all clicks, and 40% of those on the first ten."""
    click: Odds = -2.6
    """Log-odds of a click on an examined item with affinity 0 and mean appeal."""
    click_affinity: Odds = 2.2
    """Increase of the click's log-odds at an affinity of 1 (item vector equal to the taste)."""
    click_appeal: Odds = 0.8
    """Increase of the click's log-odds per unit of appeal (standard normal)."""
    click_due: Odds = 3.0
    """Increase of the log-odds of click and add_to_cart for a staple that is needed again."""
    staple_alone: Share = 0.7
    """Probability that a user buys a staple that is still needed at the end of a visit, although no
    page led to it."""
    boredom: Weight = 1.2
    """Decrease of affinity at full boredom with the topic."""
    boredom_rise: Share = 0.08
    """Increase of boredom with a topic after each click on one of its items."""
    boredom_decay: Share = 0.75
    """Share of the boredom that remains a day later."""
    satisfaction: Odds = -0.25
    """Mean satisfaction with an item of affinity 0, mean quality and no clickbait. Satisfaction is
    signed, about -1 to 1."""
    satisfaction_affinity: Odds = 0.9
    """Increase of satisfaction at an affinity of 1."""
    satisfaction_quality: Odds = 0.55
    """Increase of satisfaction per unit of quality (standard normal)."""
    satisfaction_clickbait: Weight = 0.3
    """Decrease of satisfaction per unit by which appeal exceeds quality (clickbait)."""
    satisfaction_noise: Weight = 0.3
    """Standard deviation of satisfaction from click to click."""
    view: Share = 0.9
    """Share of clicks after which the item's page is viewed; after the others, users bounce."""
    cart: Odds = -2.0
    """Log-odds of add_to_cart for a viewed item of mean quality, mean price and affinity 0."""
    cart_affinity: Odds = 1.2
    """Increase of the log-odds of add_to_cart at an affinity of 1."""
    cart_quality: Odds = 0.8
    """Increase of the log-odds of add_to_cart per unit of quality."""
    cart_price: Weight = 0.8
    """Decrease of the log-odds of add_to_cart per unit of log(price / median price), for a user
    with a price sensitivity of 1."""
    cart_intent: Weight = 1.0
    """Standard deviation, over sessions, of the intent to buy, a term in the log-odds of
    add_to_cart."""
    purchase: Odds = 0.0
    """Log-odds of buying an item in the cart. In shops, usually a third to a half are bought."""
    send_back: Odds = -2.2
    """Log-odds of returning a purchased item of mean quality."""
    send_back_quality: Weight = 1.0
    """Decrease of these log-odds per unit of quality."""
    send_back_days: float = Field(default=5.0, gt=0, le=3_650)
    """Days from purchase to return are one day plus an exponential variable with this mean."""
    watch: Odds = 0.0
    """Log-odds of the share of a film that is watched, at a satisfaction of 0."""
    watch_satisfaction: Odds = 2.0
    """Increase of these log-odds at a satisfaction of 1."""
    watch_spread: float = Field(default=6.0, ge=0.1, le=1_000)
    """Concentration of the beta distribution of the watched share."""
    rating: Share = 0.25
    """Share of viewed items that get a rating."""
    review: Share = 0.3
    """Share of ratings with a review text."""
    like: Share = 0.4
    """Probability of a like after a satisfaction of 1, and of a dislike after -1."""
    hide: Share = 0.03
    """Probability of hiding an item that was examined, not clicked, and has negative affinity."""
    survey: Share = 0.15
    """Share of viewed items for which a survey is shown."""
    survey_answer: Share = 0.4
    """Probability of an answer to a survey; halved if satisfaction is below -0.5."""
    trust: Share = 0.6
    """Initial trust of a new user, 0 to 1."""
    trust_rate: Share = 0.12
    """Rate at which trust moves towards the value of each page, as a share of the distance."""
    trust_neutral: Share = 0.45
    """Value of a page with a satisfaction of 0."""
    trust_gain: Weight = 0.45
    """Increase of the value of a page if the satisfaction of its clicks sums to 1."""
    visit_floor: Share = 0.15
    """Visit probability at a trust of 0, relative to full trust."""


class Logging(Parameters):
    """The logging policy, which fills the pages of the log.

    The probability (propensity) of each item that it shows is known.
    """

    uniform: Share = 0.10
    """Share of positions with an item drawn uniformly from all available items."""
    personal: Share = 0.35
    """Share of positions with an item of the user's favourite topic, drawn by popularity."""
    skew: Spread = 1.05
    """Standard deviation of the logarithm of items' popularity weights; about 1 in MovieLens."""
    loudness: Share = 0.5
    """Correlation of the logarithm of an item's popularity weight with its appeal."""
