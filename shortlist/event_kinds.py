"""Events by what people did, beside the run's target events: one table from which states, their
columns and features of items and users are made.

A kind's state is a count and a decayed sum, of an item over everyone and of a user over everything.
A lake without such events has zero states, and each of its features is then the same everywhere.

Shapes: K kinds.
"""

from dataclasses import dataclass

import numpy as np

KINDS: dict[str, tuple[str, ...]] = {
    "impressions": ("impression",),
    "clicks": ("click", "view"),
    "carts": ("add_to_cart",),
    "purchases": ("purchase",),
    "negatives": ("dislike", "hide", "return"),
}
"""Kind -> event types. To add one: a line here; the schema hash changes, so train anew."""
NUM_KINDS = len(KINDS)
KIND_TYPES = tuple(event_type for types in KINDS.values() for event_type in types)
KIND_OF = {name: place for place, types in enumerate(KINDS.values()) for name in types}
"""Event type -> place of its kind in a state's lists."""


def kind_state(prefix: str) -> tuple[str, ...]:
    """Names of the state of `item` or `user`: two lists in the order of KINDS, and the newest and
    the first time of any of them. The sums are as of the newest time, as all decayed sums are.
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
ITEM_KIND_FEATURES = (
    *(f"item_{kind}_log" for kind in KINDS),
    *(f"item_{rate.name}" for rate in RATES),
    *(f"item_{rate.name}_recent" for rate in RATES),
)
USER_KIND_FEATURES = (
    *(f"user_{kind}_recent_log" for kind in KINDS),
    *(f"user_{rate.name}" for rate in RATES),
)


def item_kind_features(counts: np.ndarray, now: np.ndarray) -> list[np.ndarray]:
    """(..., K) counts and decayed sums, brought to the request's time -> each of
    ITEM_KIND_FEATURES (...).
    """
    logs = np.log1p(counts)
    return [
        *(logs[..., place] for place in range(NUM_KINDS)),
        *(rate.smoothed(counts) for rate in RATES),
        *(rate.smoothed(now) for rate in RATES),
    ]


def user_kind_features(counts: np.ndarray, now: np.ndarray) -> list[np.ndarray]:
    """(B, K) counts and decayed sums, brought to the request's time -> each of USER_KIND_FEATURES
    (B,).
    """
    logs = np.log1p(now)
    return [
        *(logs[..., place] for place in range(NUM_KINDS)),
        *(rate.smoothed(counts) for rate in RATES),
    ]


def no_kinds(prefix: str, *shape: int) -> dict[str, np.ndarray]:
    """The state of whom no event is known: of `shape`, its lists (*shape, K)."""
    return {
        name: np.zeros(shape, dtype=np.int64)
        if name.endswith("_time")
        else np.zeros((*shape, NUM_KINDS))
        for name in kind_state(prefix)
    }
