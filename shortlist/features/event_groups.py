"""Event groups: states and features for groups of event types, such as clicks and views.

They don't depend on the target events (the event types that models learn to predict). EVENT_GROUPS
is the single definition from which states, stored columns and features are derived. The state of a
group is a count and a decayed sum (half-life `counting.HALF_LIFE`). An item's state covers events
of all users; a user's state covers events on all items. Without events of a group, its states are
zero and its features are constant.

Shapes: G event groups.
"""

from dataclasses import dataclass

import numpy as np

from shortlist.behaviour.counting import HALF_LIFE

EVENT_GROUPS: dict[str, tuple[str, ...]] = {
    "impressions": ("impression",),
    "clicks": ("click", "view"),
    "carts": ("add_to_cart",),
    "purchases": ("purchase",),
    "negatives": ("dislike", "hide", "return"),
}
"""Event group -> event types. Adding a group changes the schema hash, so models must be retrained.
"""
NUM_GROUPS = len(EVENT_GROUPS)
GROUPED_TYPES = tuple(event_type for types in EVENT_GROUPS.values() for event_type in types)
GROUP_OF = {name: index for index, types in enumerate(EVENT_GROUPS.values()) for name in types}
"""Event type -> position of its group in the lists of a state."""


def group_state_names(prefix: str) -> tuple[str, ...]:
    """Return the column names of the event-group state of an `item` or a `user`.

    The columns are: counts and decayed sums, both in the order of EVENT_GROUPS; time of the newest
    event; time of the first event. Decayed sums are as of the newest event.
    """
    names = ("group_counts", "group_decayed", "group_last_time", "group_first_time")
    return tuple(f"{prefix}_{name}" for name in names)


ITEM_GROUP_STATE = group_state_names("item")
USER_GROUP_STATE = group_state_names("user")


@dataclass(frozen=True)
class Rate:
    """Smoothed ratio of two event groups: (part + weight * prior) / (max(of, part) + weight).

    `part` and `of` are counts of two groups, such as clicks and impressions. `prior` is the rate
    without any events; `weight` is the number of events the prior is worth. `of` is raised to at
    least `part`, because a clicked item was seen even if the log lacks the impression. So a rate is
    never above 1.
    """

    name: str
    part: str
    of: str
    prior: float
    weight: float = 20.0

    @property
    def meaning(self) -> str:
        """Description for `shortlist features`."""
        return (
            f"{self.part} per {self.of}, smoothed with {self.weight:g} events at {self.prior:g}"
            f" ({self.of} counted as at least {self.part})"
        )


RATES = (
    Rate("click_rate", "clicks", "impressions", 0.05),
    Rate("conversion", "purchases", "clicks", 0.05),
    Rate("cart_rate", "carts", "clicks", 0.1),
    Rate("negative_rate", "negatives", "clicks", 0.05),
)
_PART = [list(EVENT_GROUPS).index(rate.part) for rate in RATES]
_OF = [list(EVENT_GROUPS).index(rate.of) for rate in RATES]
_WEIGHT = np.array([rate.weight for rate in RATES])
_PRIOR = np.array([rate.prior for rate in RATES])
SPANS = ("", "_7d")
"""Suffixes of feature names: counts of all time, and decayed sums with HALF_LIFE."""


def group_feature_names(prefix: str) -> tuple[str, ...]:
    """Return the event-group feature names of an `item` or a `user`: first the counts of all groups
    for each of SPANS, then all rates for each of SPANS.
    """
    counts = (f"{prefix}_{group}{span}_log" for span in SPANS for group in EVENT_GROUPS)
    return *counts, *(f"{prefix}_{rate.name}{span}" for span in SPANS for rate in RATES)


ITEM_GROUP_FEATURES = group_feature_names("item")
USER_GROUP_FEATURES = group_feature_names("user")


def group_features(
    counts: np.ndarray, decayed: np.ndarray, elapsed: np.ndarray
) -> list[np.ndarray]:
    """Return the event-group features, one array (...) for each of `group_feature_names`.

    Args:
        counts: (..., G) counts of all time.
        decayed: (..., G) decayed sums as of the newest event.
        elapsed: (...) microseconds from the newest event to the request.
    """
    now = decayed * np.exp2(-np.maximum(elapsed, 0) / HALF_LIFE)[..., None]
    spans = np.stack([counts, now])
    part = spans[..., _PART]
    rates = (part + _WEIGHT * _PRIOR) / (np.maximum(spans[..., _OF], part) + _WEIGHT)
    return [
        each[span, ..., index]
        for each in (np.log1p(spans), rates)
        for span in range(len(SPANS))
        for index in range(each.shape[-1])
    ]


def empty_group_state(prefix: str, *shape: int) -> dict[str, np.ndarray]:
    """Return the state of users or items without events: zeros of shape `shape`.

    Columns that hold a list per user or item have one more dimension.
    """
    return {
        f"{prefix}_group_counts": np.zeros((*shape, NUM_GROUPS)),
        f"{prefix}_group_decayed": np.zeros((*shape, NUM_GROUPS)),
        f"{prefix}_group_last_time": np.zeros(shape, dtype=np.int64),
        f"{prefix}_group_first_time": np.zeros(shape, dtype=np.int64),
    }
