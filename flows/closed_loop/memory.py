"""A feature store in memory with the same states as in Feast, for loops of many days.

States are aggregates per user, item or context, such as counts, decayed sums and histories. User
states are updated by each event with `update_user_state`, as for events posted to the service. Item
and context states are recomputed at each midnight, as `featurize` does. States by event type and
searches stay empty, in training and in serving: a loop learns from its target events only.

Shapes: E events, N items.
"""

from dataclasses import dataclass, field

import numpy as np

from shortlist.behaviour.refusals import NO_REFUSALS
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.feature_store.online.user_state import FeatureEvent, UserState, update_user_state
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_ON_DEMAND,
    DAY_BUCKETS,
    HALF_LIFE,
    USER_STATE,
    RequestRows,
    schema_hash,
    time_features,
)
from shortlist.features.pack import FeaturePack
from shortlist.features.searches import NO_SEARCHES

EMPTY_STATE = UserState()


@dataclass
class Targets:
    """Target events (the event types that models learn from) in order of arrival."""

    user: np.ndarray  # (E,) int64 user rows
    item: np.ndarray  # (E,) int64 item rows
    time: np.ndarray  # (E,) int64 microseconds
    value: np.ndarray  # (E,) float64, NaN for none
    type_code: np.ndarray  # (E,) int64 EVENT_CODE
    context: np.ndarray  # (E,) str context ids

    def before(self, end: int) -> "Targets":
        return self.take(np.flatnonzero(self.time < end))

    def take(self, rows: np.ndarray) -> "Targets":
        return Targets(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def empty(cls) -> "Targets":
        """Return an empty table."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none, np.empty(0), none, np.empty(0, dtype=str))

    @classmethod
    def concat(cls, parts: list["Targets"]) -> "Targets":
        names = ("user", "item", "time", "value", "type_code", "context")
        return cls(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


@dataclass
class MemoryStore:
    """A FeatureReader in memory.

    `push` updates user states by events. `tick`, called at midnight, recomputes item and context
    states.
    """

    user_ids: list[str]
    item_ids: list[str]
    attributes: dict[str, dict[str, str]]
    once: bool = True
    """Whether a history holds each item once (at its newest event) instead of all events."""
    users: dict[str, UserState] = field(default_factory=dict)
    parts: list[Targets] = field(default_factory=list)
    contexts: dict[str, tuple[float, float, int]] = field(default_factory=dict)

    def push(self, events: Targets) -> None:
        """Store the events and update the states of their users."""
        if len(events.user) == 0:
            return
        self.parts.append(events)
        order = np.argsort(events.time, kind="stable")
        for row in order:
            user_id = self.user_ids[events.user[row]]
            event = FeatureEvent(
                user_id=user_id,
                item_id=self.item_ids[events.item[row]],
                timestamp=int(events.time[row]),
                value=float(events.value[row]),
                type_code=int(events.type_code[row]),
            )
            self.users[user_id] = update_user_state(
                self.users.get(user_id, EMPTY_STATE), event, once=self.once
            )

    def targets(self) -> Targets:
        """Return all events pushed so far."""
        self.parts = [Targets.concat(self.parts) if self.parts else Targets.empty()]
        return self.parts[0]

    def read(self, user_ids: list[str], context_ids: list[str], at: np.ndarray) -> RequestRows:
        """Return the newest states, see `FeatureReader`; histories end strictly before `at`."""
        states = [self.users.get(user_id, EMPTY_STATE) for user_id in user_ids]
        cuts = [int(np.searchsorted(s.times, now)) for s, now in zip(states, at, strict=True)]
        contexts = [self.contexts.get(name, (0.0, 0.0, 0)) for name in context_ids]
        events, decayed, last = zip(*contexts, strict=True) if contexts else ((), (), ())
        clock = time_features(at)
        return RequestRows(
            user_ids=list(user_ids),
            context_ids=list(context_ids),
            at=at,
            user={
                name: np.array(
                    [getattr(state, name.removeprefix("user_")) for state in states],
                    dtype=np.int64 if name.endswith("_time") else np.float64,
                )
                for name in USER_STATE
            }
            | empty_group_state("user", len(user_ids)),
            history_items=[s.items[:cut] for s, cut in zip(states, cuts, strict=True)],
            history_times=[
                np.array(s.times[:cut], dtype=np.int64) for s, cut in zip(states, cuts, strict=True)
            ],
            history_values=[
                np.array(s.values[:cut], dtype=np.float64)
                for s, cut in zip(states, cuts, strict=True)
            ],
            history_types=[
                np.array(s.types[:cut], dtype=np.int64) for s, cut in zip(states, cuts, strict=True)
            ],
            attributes=[self.attributes.get(user_id, {}) for user_id in user_ids],
            context={
                "context_events": np.array(events, dtype=np.float64),
                "context_decayed": np.array(decayed, dtype=np.float64),
                "context_last_time": np.array(last, dtype=np.int64),
            }
            | {name: clock[name] for name in CONTEXT_ON_DEMAND},
            searches=[NO_SEARCHES for _ in user_ids],
            refusals=[NO_REFUSALS for _ in user_ids],
        )

    def tick(self, as_of: int) -> FeaturePack:
        """Recompute item and context states from the events before `as_of`; return the item states.

        Args:
            as_of: a midnight in microseconds.
        """
        events = self.targets().before(as_of) if self.parts else Targets.empty()
        names, code = np.unique(events.context, return_inverse=True)
        state = states_of(code, events, size=len(names))
        self.contexts = {
            str(name): (state["events"][i], state["decayed"][i], int(state["last_time"][i]))
            for i, name in enumerate(names)
        }
        n = len(self.item_ids)
        item = {f"item_{k}": v for k, v in states_of(events.item, events, size=n).items()}
        age = (as_of - events.time - 1) // MICROSECONDS_PER_DAY
        recent = age < DAY_BUCKETS
        cells = events.item[recent] * DAY_BUCKETS + (DAY_BUCKETS - 1 - age[recent])
        days = np.bincount(cells, minlength=n * DAY_BUCKETS).reshape(n, DAY_BUCKETS)
        return FeaturePack(
            as_of=as_of,
            item_ids=self.item_ids,
            state=item | {"item_day_counts": days} | empty_group_state("item", n),
            schema=schema_hash(),
        )


def states_of(key: np.ndarray, events: Targets, *, size: int) -> dict[str, np.ndarray]:
    """Aggregate the events of each key to state columns (size,); `key` is (E,)."""
    known = ~np.isnan(events.value)
    last = np.zeros(size, dtype=np.int64)
    np.maximum.at(last, key, events.time)
    first = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(first, key, events.time)
    weight = np.exp2((events.time - last[key]) / HALF_LIFE)
    return {
        "events": np.bincount(key, minlength=size).astype(np.float64),
        "decayed": np.bincount(key, weights=weight, minlength=size),
        "last_time": last,
        "first_time": np.where(last > 0, first, 0),
        "value_sum": np.bincount(key[known], weights=events.value[known], minlength=size),
        "value_count": np.bincount(key[known], minlength=size).astype(np.float64),
        "value_decayed": np.bincount(
            key[known], weights=events.value[known] * weight[known], minlength=size
        ),
        "value_weight": np.bincount(key[known], weights=weight[known], minlength=size),
    }
