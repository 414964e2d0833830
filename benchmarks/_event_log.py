"""A log in memory for benchmarks of single sources: training data, and the requests of a window."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from models.content.reviews import Reviews
from models.data import TrainingData
from models.queries import Queries
from models.recommend.queries import build_queries
from models.user_log import UserLog
from shortlist import columns as c
from shortlist.behaviour.refusals import NO_REFUSALS
from shortlist.contracts import event_codes, microseconds
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    DAY_BUCKETS,
    ITEM_STATE,
    RequestRows,
    time_features,
)
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.features.searches import NO_SEARCHES
from shortlist.items.catalogue import Catalogue
from shortlist.splits import Requests


class EventLog:
    """Target events of a catalogue's items, and the users who have at least one."""

    def __init__(
        self,
        events: pa.Table,
        *,
        catalogue: Catalogue,
        attributes: Mapping[str, dict[str, str]],
    ):
        """
        Args:
            events: INTERACTIONS contract, sorted by time.
            attributes: {user id: attributes}.
        """
        self.events = events
        self.catalogue = catalogue
        self.time = microseconds(events.column(c.EVENT_TIMESTAMP)).to_numpy()
        names, self.user = np.unique(events.column(c.USER_ID).to_numpy(), return_inverse=True)
        self.user_ids = [str(name) for name in names]
        self.attributes = [attributes.get(name, {}) for name in self.user_ids]
        self.profiles = ProfileEncoder.fit(self.attributes)
        self.places = {name: row for row, name in enumerate(self.user_ids)}

    def until(self, end: int, *, rule: type[UserLog] = UserLog) -> UserLog:
        """Return the events before `end` (microseconds), with histories by `rule`."""
        rows = int(np.searchsorted(self.time, end))
        table = self.events.slice(0, rows)
        return rule.build(
            self.user[:rows],
            num_users=len(self.user_ids),
            num_items=self.catalogue.num_items,
            item_idx=self.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist()),
            time=self.time[:rows],
            known=self.time[:rows] + 1,
            value=table.column(c.VALUE).to_numpy().astype(np.float64),
            type_code=event_codes(table.column(c.EVENT_TYPE)),
        )

    def training_data(
        self, log: UserLog, *, read_reviews: Callable[[], Reviews] | None = None
    ) -> TrainingData:
        """Return a log, made by `until`, as training data."""
        return TrainingData.from_log(
            log,
            catalogue=self.catalogue,
            user_ids=self.user_ids,
            profile=self.profiles.encode(self.attributes),
            profile_cardinalities=self.profiles.cardinalities,
            read_reviews=read_reviews,
        )

    def queries(self, log: UserLog, drawn: Requests) -> tuple[Queries, list[np.ndarray]]:
        """Return requests as queries, and the relevant items of each.

        Args:
            log: the events of the histories, made by `until`.
            drawn: requests of users who are in `user_ids`.
        """
        user = np.array([self.places[name] for name in drawn.user_ids])
        end = log.known_by(user, drawn.at)
        events = [log.history(u, e) for u, e in zip(user, end, strict=True)]
        n = len(user)
        state = {f"user_{name}": values for name, values in log.states(user, drawn.at).items()}
        read = RequestRows(
            user_ids=drawn.user_ids,
            context_ids=["unknown|unknown|00"] * n,
            at=drawn.at,
            user=state | empty_group_state("user", n),
            history_items=[self.catalogue.vocab.decode(log.item_idx[rows]) for rows in events],
            history_times=[log.time[rows] for rows in events],
            history_values=[log.value[rows] for rows in events],
            history_types=[log.type_code[rows] for rows in events],
            attributes=[self.attributes[u] for u in user],
            context={name: np.zeros(n) for name in CONTEXT_STATE}
            | {name: time_features(drawn.at)[name] for name in CONTEXT_ON_DEMAND},
            searches=[NO_SEARCHES] * n,
            refusals=[NO_REFUSALS] * n,
        )
        queries = build_queries(read, catalogue=self.catalogue, profiles=self.profiles)
        return queries, [self.catalogue.vocab.encode(items) for items in drawn.relevant]

    @property
    def no_items(self) -> ItemState:
        """Empty item states, for sources that don't read them."""
        size = self.catalogue.num_items + 1
        state = {name: np.zeros(size) for name in ITEM_STATE} | empty_group_state("item", size)
        state["item_day_counts"] = np.zeros((size, DAY_BUCKETS))
        return ItemState(pack_id="none", as_of=0, state=state)
