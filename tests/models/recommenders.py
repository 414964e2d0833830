"""Recommenders with fitted sources and without a feature store."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from models import registry
from models.recommend.chain import Chain, ChainConfig
from models.recommend.hydrate import empty_rows
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.contracts import EVENT_CODE, ITEMS, check
from shortlist.feature_store import FeatureReader
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import DAY_BUCKETS, ITEM_STATE, schema_hash
from shortlist.features.pack import FeaturePack
from shortlist.features.profiles import ProfileEncoder
from shortlist.releases.release import Release

AT = 1_700_086_400_000_000


def fitted(names, data, validation, **configs):
    """Return {name: fitted source}; sources without an entry in `configs` have their defaults."""
    return {
        name: registry.fit(
            configs.get(name) or registry.parse_source(f'{{"kind": "{name}"}}'),
            data,
            validation,
            TrainingOptions(num_threads=1),
        )
        for name in names
    }


class NobodyKnown:
    """A feature reader that knows no user; for requests with `recent_items`."""

    def read(self, user_ids, context_ids, at):
        return empty_rows(user_ids, context_ids, at)


@dataclass
class Clicks:
    """A feature reader over (user_id, item_id, time); histories end before the request."""

    events: list[tuple[str, str, int]] = field(default_factory=list)

    def read(self, user_ids, context_ids, at):
        rows = empty_rows(user_ids, context_ids, at)
        own = [
            [(item, time) for who, item, time in self.events if who == user and time < now]
            for user, now in zip(user_ids, at.tolist(), strict=True)
        ]
        return replace(
            rows,
            history_items=[[item for item, _ in events] for events in own],
            history_times=[np.array([t for _, t in events], dtype=np.int64) for events in own],
            history_values=[np.full(len(events), np.nan) for events in own],
            history_types=[np.full(len(events), EVENT_CODE["click"]) for events in own],
        )


def pack_of(items: pa.Table, *, events: int = 3) -> FeaturePack:
    """Return a feature pack in which all items have the same number of events."""
    n = items.num_rows
    state = {
        name: np.full(n, events, dtype=np.int64 if name.endswith("_time") else np.float64)
        for name in ITEM_STATE
    } | empty_group_state("item", n)
    state["item_day_counts"] = np.ones((n, DAY_BUCKETS), dtype=np.int64)
    ids = items.column(c.ITEM_ID).to_pylist()
    return FeaturePack(as_of=AT, item_ids=ids, state=state, schema=schema_hash(), items=items)


def with_new(items: pa.Table, *rows: dict) -> pa.Table:
    base = {"available": True, "categories": []}
    new = [base | row for row in rows]
    return pa.concat_tables([items, check(_table(new), ITEMS, where="test")])


def _table(rows: list[dict]) -> pa.Table:
    names = {name for row in rows for name in row}
    fields = [field for field in ITEMS if field.name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def recommender_of(
    models,
    *names: str,
    items: pa.Table | None = None,
    profiles: ProfileEncoder | None = None,
    reader: FeatureReader | None = None,
    release_id: str | None = None,
    **config,
) -> Recommender:
    """Return a recommender without a ranker over fitted sources.

    Args:
        models: catalogue and fitted sources by name.
        config: further keys of the ChainConfig.
    """
    catalogue, fitted = models
    profiles = profiles or ProfileEncoder.fit([])
    chain = Chain(
        ChainConfig(candidate_sources=names, score_sources=names, **config),
        sources=fitted,
        ranker=None,
        catalogue=catalogue,
        profiles=profiles,
    )
    return Recommender(
        chain=chain,
        catalogue=catalogue,
        profiles=profiles,
        reader=reader or NobodyKnown(),
        pack=pack_of(catalogue.items if items is None else items),
        about={},
        release=None if release_id is None else Release(release_id, Path(), {}, {}),
    )
