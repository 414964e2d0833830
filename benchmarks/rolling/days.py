"""The data of `shortlist bench rollout`: a log that grows by a day or a slice at a time."""

import csv
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flows.runtime.configuration import RunConfig, load_run_config
from simulation import open_world

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SECOND = 1_000_000
NEWEST_SHARE = 0.2
SHOP_DAYS = 28


class Days(Protocol):
    """A growing log. On each day, models are trained on the log so far and judged on the next."""

    @property
    def days(self) -> range:
        """The days; day + 1 exists as data for the last of them, too."""
        ...

    def config(self, day: int) -> RunConfig:
        """Return the configuration whose source has the log before `day`, or what is new in it."""
        ...

    def window(self, day: int) -> tuple[int, int]:
        """Return start and end of `day`, in microseconds."""
        ...


@dataclass(frozen=True)
class Shop:
    """The last days of a simulated shop, with the configuration of configs/simulated-shop.toml."""

    settings: dict[str, Any]
    """Keys of `[train]` that replace those of the configuration."""
    num_days: int = SHOP_DAYS
    preset: str = "shop"

    @cached_property
    def base(self) -> RunConfig:
        config = load_run_config(CONFIGS / "simulated-shop.toml")
        assert config.data.simulated is not None
        simulated = config.data.simulated.model_copy(update={"preset": self.preset})
        data = config.data.model_copy(update={"simulated": simulated})
        return with_train(config.model_copy(update={"data": data}), self.settings)

    @cached_property
    def world(self) -> Any:
        assert self.base.data.simulated is not None
        return open_world(self.base.data.simulated)

    @property
    def days(self) -> range:
        last = self.world.config.days
        return range(last - self.num_days, last)

    def config(self, day: int) -> RunConfig:
        assert self.base.data.simulated is not None
        simulated = self.base.data.simulated.model_copy(update={"log_days": day})
        data = self.base.data.model_copy(update={"hold_back": 0.0, "simulated": simulated})
        return self.base.model_copy(update={"data": data})

    def window(self, day: int) -> tuple[int, int]:
        return self.world.midnight(day), self.world.midnight(day + 1)


@dataclass(frozen=True)
class LatestSmall:
    """MovieLens latest-small, whose newest events are cut into slices of equal count."""

    settings: dict[str, Any]
    work: Path
    num_slices: int = 8
    folder: Path = field(
        default_factory=lambda: Path(os.environ["SHORTLIST_DATA"]) / "ml-latest-small"
    )

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "ratings.csv").open(newline="") as file:
            return sorted(csv.DictReader(file), key=lambda row: int(row["timestamp"]))

    @cached_property
    def edges(self) -> np.ndarray:
        """(num_slices + 1,) seconds: start of each slice, and the end of the last."""
        time = np.array([int(row["timestamp"]) for row in self.rows])
        first = round(len(time) * (1 - NEWEST_SHARE))
        cuts = np.linspace(first, len(time) - 1, self.num_slices + 1).round().astype(int)
        return np.append(time[cuts[:-1]], time[-1] + 1)

    @property
    def days(self) -> range:
        return range(self.num_slices)

    def config(self, day: int) -> RunConfig:
        log = self.work / f"ratings-{day}.csv"
        if not log.is_file():
            log.parent.mkdir(parents=True, exist_ok=True)
            start = self.edges[day - 1] if day else 0
            new = [row for row in self.rows if start <= int(row["timestamp"]) < self.edges[day]]
            with log.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(new[0]))
                writer.writeheader()
                writer.writerows(new)
        columns = {"user_id": "userId", "item_id": "movieId", "value": "rating"}
        columns["event_timestamp"] = "timestamp"
        base = load_run_config(CONFIGS / "movielens-100k.toml").model_dump(mode="json")
        base |= {
            "name": "latest-small",
            "validation": {"rating_range": [0.5, 5]},
            "data": {
                "source": "files",
                "target_events": ["rating"],
                "like_threshold": 4.0,
                "clock": "replay",
                "files": {
                    "interactions": {
                        "path": str(log),
                        "event_type": "rating",
                        "timestamp_unit": "s",
                        "columns": columns,
                    },
                    "items": {
                        "path": str(self.folder / "movies.csv"),
                        "columns": {
                            "item_id": "movieId",
                            "title": "title",
                            "categories": "genres",
                        },
                    },
                },
            },
        }
        return with_train(RunConfig.model_validate(base), self.settings)

    def window(self, day: int) -> tuple[int, int]:
        return int(self.edges[day]) * SECOND, int(self.edges[day + 1]) * SECOND


def with_train(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """Return a configuration with some of its sources and rankers.

    Args:
        settings: {"sources": types to keep, "rankers": types to keep}; an empty list keeps all.
    """
    update = {
        part: tuple(each for each in getattr(config.train, part) if not kept or each.kind in kept)
        for part, kept in settings.items()
    }
    value = config.value if any(r.kind == "value" for r in update.get("rankers", ())) else {}
    return config.model_copy(
        update={"train": config.train.model_copy(update=update), "value": value}
    )
