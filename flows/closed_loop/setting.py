"""Shared inputs of all arms of a simulation: world, schedule, and the tables that models may read.

An arm is a policy that fills the home pages. The world holds the simulated users and items.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.behaviour.repeats import ALLOW, EXCLUDE
from shortlist.config import Config, ConfigError
from shortlist.contracts import ITEMS, check
from shortlist.features.finalize import context_id
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue
from simulation.tables import Publisher
from simulation.world import World


class Schedule(Config):
    """Days before the arms fill the pages, and the days between and covered by trainings."""

    warm_days: int = 10
    """Number of days with the logging policy before the sources are trained for the first time.

    The logging policy is the simulated site's policy without a trained model.
    """
    shadow_days: int = 4
    """Number of further days with the logging policy, on which chains log features for the ranker.
    """
    retrain_days: int = 7
    """Number of days between trainings."""
    window_days: int = 21
    """Number of days of logged impressions that a ranker is trained on."""

    @property
    def start(self) -> int:
        """First day on which the arms fill the pages."""
        return self.warm_days + self.shadow_days


@dataclass(frozen=True)
class Setting:
    """Inputs of a simulation, the same for all arms."""

    world: World
    days: int
    """Number of days with pages filled by the arms, from `schedule.start` on."""
    schedule: Schedule
    cache: Path
    preset: str
    """Name or path of the world's parameters."""
    publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        config, users = self.world.config, self.world.num_users
        if users > config.chunk:
            raise ConfigError(
                f"world '{config.name}' has {users:,} users, want at most `chunk`"
                f" ({config.chunk:,}): a closed loop simulates all users together"
            )
        object.__setattr__(self, "publisher", Publisher(self.world))

    @property
    def repeats(self) -> str:
        """Whether lists may repeat items that a user has had.

        ALLOW if the world has staples (items that users buy again and again), else EXCLUDE.
        """
        return ALLOW if self.world.config.population.staples else EXCLUDE

    @property
    def end(self) -> int:
        return self.schedule.start + self.days

    @cached_property
    def key(self) -> str:
        """Hash of the world's config and schedule. Stored days are reused only if it is equal."""
        about = [self.world.config.model_dump(mode="json"), self.schedule.model_dump()]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def items(self) -> pa.Table:
        """The items of all simulated days, including those that arrive after the first day."""
        table = self.publisher.items(0, self.world.num_items)
        return check(table, ITEMS, where="simulated items").select(ITEMS.names)

    def catalogue(self, day: int) -> Catalogue:
        """Return the catalogue of a day. Items that arrive later are unavailable.

        On all days, item_idx is the item's row + 1.
        """
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
        """Return (S,) context ids of home pages."""
        return np.array(
            [
                context_id(surface="home", device="phone" if mobile else "desktop", at=int(now))
                for now, mobile in zip(at, phone, strict=True)
            ],
            dtype=str,
        )
