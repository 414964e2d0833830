"""What all arms of a simulation share: the world, its calendar, and what is known of it outside."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.catalogue import Catalogue
from shortlist.config import Config, ConfigError
from shortlist.contracts import ITEMS, check
from shortlist.features.finalize import context_id
from shortlist.features.profiles import ProfileEncoder
from shortlist.repeats import ALLOW, EXCLUDE
from simulation.tables import Publisher
from simulation.world import World


class Schedule(Config):
    """Days before an arm takes over, and how often it learns."""

    warm_days: int = 10
    """Days filled by the shop's own policy; sources learn from them first."""
    shadow_days: int = 4
    """Further such days on which an arm's chain looks on and logs features, for its ranker."""
    retrain_days: int = 7
    window_days: int = 21
    """Days of logged impressions that a ranker learns from."""

    @property
    def start(self) -> int:
        """The first day of an arm's own pages."""
        return self.warm_days + self.shadow_days


@dataclass(frozen=True)
class Setting:
    """A world, the days simulated, and the public tables; everything else is an arm's own."""

    world: World
    days: int
    """Days of the arms' own pages, after `schedule.start`."""
    schedule: Schedule
    cache: Path
    preset: str
    """Name or path of the world's parameters."""
    publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        config, users = self.world.config, self.world.num_users
        if users > config.chunk:
            raise ConfigError(
                f"world '{config.name}' has {users:,} users in chunks of {config.chunk:,}; a closed"
                " loop lives all of them together: want a smaller world, or a larger `chunk`"
            )
        object.__setattr__(self, "publisher", Publisher(self.world))

    @property
    def repeats(self) -> str:
        """The run's `repeats`: people with staples want them again."""
        return ALLOW if self.world.config.population.staples else EXCLUDE

    @property
    def end(self) -> int:
        return self.schedule.start + self.days

    @cached_property
    def key(self) -> str:
        """Of everything that decides what happens on a day: results under one key agree."""
        about = [self.world.config.model_dump(mode="json"), self.schedule.model_dump()]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def items(self) -> pa.Table:
        """Every item that will ever be, known and announced, each available from its day on."""
        table = self.publisher.items(0, self.world.num_items)
        return check(table, ITEMS, where="simulated items").select(ITEMS.names)

    def catalogue(self, day: int) -> Catalogue:
        """The catalogue as of a day; item_idx is the item's row plus one on every day."""
        available = pa.array(self.world.items.born <= day)
        at = self.items.schema.get_field_index(c.AVAILABLE)
        table = self.items.set_column(at, ITEMS.field(c.AVAILABLE), available)
        table = table.cast(pa.schema([*ITEMS]))
        return Catalogue.from_items(table)

    @cached_property
    def user_ids(self) -> list[str]:
        return self.publisher.user_ids.to_pylist()

    @cached_property
    def item_ids(self) -> list[str]:
        return self.publisher.item_ids.to_pylist()

    @cached_property
    def item_rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def attributes(self) -> dict[str, dict[str, str]]:
        table = self.publisher.users(0, self.world.num_users)
        rows = table.column(c.ATTRIBUTES).to_pylist()
        return {u: dict(row) for u, row in zip(self.user_ids, rows, strict=True)}

    @cached_property
    def profiles(self) -> ProfileEncoder:
        return ProfileEncoder.fit(self.attributes.values())

    def contexts(self, at: np.ndarray, phone: np.ndarray) -> np.ndarray:
        """(S,) context ids of home pages."""
        return np.array(
            [
                context_id(surface="home", device="phone" if mobile else "desktop", at=int(now))
                for now, mobile in zip(at, phone, strict=True)
            ],
            dtype=str,
        )
