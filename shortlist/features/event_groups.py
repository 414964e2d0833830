"""Events by what people did, beside the run's target events: one table from which states, their
columns and features of items and users are made.

A kind's state is a count and, for each of HALF_LIVES, a decayed sum: of an item over everyone, of a
user over everything. A lake without such events has zero states, and each of its features is then
the same everywhere.

Shapes: K kinds, H half-lives.
"""

from dataclasses import dataclass

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY

KINDS: dict[str, tuple[str, ...]] = {
    "impressions": ("impression",),
    "clicks": ("click", "view"),
    "carts": ("add_to_cart",),
    "purchases": ("purchase",),
    "negatives": ("dislike", "hide", "return"),
}
"""Kind -> event types. To add one: a line here; the schema hash changes, so train anew."""
NUM_KINDS = len(KINDS)
HALF_LIVES = {f"{days}d": days * MICROSECONDS_PER_DAY for days in (1, 7, 30)}
"""Name -> microseconds in which what an event counts for halves: today, this week, this month."""
NUM_DECAYED = len(HALF_LIVES) * NUM_KINDS
KIND_TYPES = tuple(event_type for types in KINDS.values() for event_type in types)
KIND_OF = {name: place for place, types in enumerate(KINDS.values()) for name in types}
"""Event type -> place of its kind in a state's lists."""


def kind_state(prefix: str) -> tuple[str, ...]:
    """Names of the state of `item` or `user`: a list in the order of KINDS, such a list for each of
    HALF_LIVES one after the other, and the newest and the first time of any of them. The sums are
    as of the newest time, as all decayed sums are.
    """
    names = ("kind_counts", "kind_decayed", "kind_last_time", "kind_first_time")
    return tuple(f"{prefix}_{name}" for name in names)


ITEM_KINDS = kind_state("item")
USER_KINDS = kind_state("user")


@dataclass(frozen=True)
class Rate:
    """How often `of` became `part`: (part + weight * prior) / (max(of, part) + weight).

    The prior is what is said of whom nothing is known, the weight how many events it is worth. What
    was clicked was seen, whether or not the log has the impression: `of` is at least `part`, and a
    rate never above 1.
    """

    name: str
    part: str
    of: str
    prior: float
    weight: float = 20.0

    def smoothed(self, counts: np.ndarray) -> np.ndarray:
        """(..., K) counts -> (...)."""
        places = list(KINDS)
        part = counts[..., places.index(self.part)]
        of = np.maximum(counts[..., places.index(self.of)], part)
        return (part + self.weight * self.prior) / (of + self.weight)

    @property
    def says(self) -> str:
        return (
            f"{self.part} of {self.of}, towards {self.prior:g} by {self.weight:g} events"
            f" ({self.of} at least {self.part})"
        )


RATES = (
    Rate("click_rate", "clicks", "impressions", 0.05),
    Rate("conversion", "purchases", "clicks", 0.05),
    Rate("cart_rate", "carts", "clicks", 0.1),
    Rate("negative_rate", "negatives", "clicks", 0.05),
)
SPANS = ("", *(f"_{name}" for name in HALF_LIVES))
"""How names of features say over what they count: everything, or halved in so many days."""


def kind_features_of(prefix: str) -> tuple[str, ...]:
    """Names of the features of `item` or `user`: counts of every kind and every rate, over each of
    SPANS.
    """
    counts = (f"{prefix}_{kind}{span}_log" for span in SPANS for kind in KINDS)
    return *counts, *(f"{prefix}_{rate.name}{span}" for span in SPANS for rate in RATES)


ITEM_KIND_FEATURES = kind_features_of("item")
USER_KIND_FEATURES = kind_features_of("user")


def kind_features(counts: np.ndarray, decayed: np.ndarray, elapsed: np.ndarray) -> list[np.ndarray]:
    """Each of `kind_features_of`, (...).

    Args:
        counts: (..., K).
        decayed: (..., H * K), as of `elapsed` microseconds before the request.
        elapsed: (...).
    """
    aged = np.maximum(elapsed, 0)[..., None] / np.array([*HALF_LIVES.values()], dtype=np.float64)
    sums = decayed.reshape(*decayed.shape[:-1], len(HALF_LIVES), NUM_KINDS)
    now = sums * np.exp2(-aged)[..., None]  # (..., H, K)
    spans = [counts, *(now[..., place, :] for place in range(len(HALF_LIVES)))]
    logs = np.log1p(np.concatenate(spans, axis=-1))
    return [
        *(logs[..., place] for place in range(logs.shape[-1])),
        *(rate.smoothed(span) for span in spans for rate in RATES),
    ]


def no_kinds(prefix: str, *shape: int) -> dict[str, np.ndarray]:
    """The state of whom no event is known, of `shape`; its lists have one dimension more."""
    return {
        f"{prefix}_kind_counts": np.zeros((*shape, NUM_KINDS)),
        f"{prefix}_kind_decayed": np.zeros((*shape, NUM_DECAYED)),
        f"{prefix}_kind_last_time": np.zeros(shape, dtype=np.int64),
        f"{prefix}_kind_first_time": np.zeros(shape, dtype=np.int64),
    }
