"""The release from which an incremental training starts, and the time windows after it.

The base is the serving release. An incremental training keeps its hyperparameters, its chain, its
ranker and its encoder of user attributes; a full training chooses them again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.runtime.configuration import RunConfig
from models.checkpoint import differences
from shortlist.config import Settings
from shortlist.features.finalize import schema_hash
from shortlist.items.catalogue import Catalogue
from shortlist.moments import moment_text
from shortlist.releases.release import Release, ReleaseStore
from shortlist.splits import Windows

TEST_SHARE = 0.5
"""Share of the new events, the newest, on which the increment and the base are compared."""
NOT_LEARNED = {"parallel", "threads", "device"}
"""Keys of `[train]` that don't change what the models learn."""


class IncrementalError(ValueError):
    """Incremental training isn't possible; the message says why, and what to run instead."""


class NothingNew(IncrementalError):
    """There are too few events since the last release."""


@dataclass(frozen=True)
class Base:
    """The release that an incremental training continues."""

    release: Release

    @property
    def data_end(self) -> int:
        """Microseconds: the release has learned from the events before it."""
        return self.release.about["data_end"]

    @property
    def catalogue(self) -> Catalogue:
        """The items in the order of the release's models."""
        return Catalogue.load(self.release.file("items.parquet"))

    def windows(self, times: np.ndarray) -> Windows:
        """Return the windows of a run that learns from the events after the release.

        The first two edges are those of the last full training. The test window is the newest part
        of the events that the release doesn't know; validation is everything before it.

        Args:
            times: (E,) int64 microseconds, times of all target events.

        Raises:
            NothingNew: there are no new events, or all have the same time.
        """
        new = np.sort(times[times >= self.data_end])
        until = moment_text(self.data_end)
        if len(new) == 0:
            raise NothingNew(
                f"no target event since {until}, where release {self.release.release_id} ends:"
                " there is nothing to learn"
            )
        cut = int(new[round((1 - TEST_SHARE) * (len(new) - 1))])
        if cut == new[0]:
            later = new[new > cut]
            if len(later) == 0:
                raise NothingNew(
                    f"all {len(new):,} target events since {until}, where release"
                    f" {self.release.release_id} ends, have the same time: too few to learn from"
                    " and to judge by; wait for more"
                )
            cut = int(later[0])
        windows = self.release.about["windows"]
        first = (windows["retrieval_train"][0], *windows["ranker_train"])
        return Windows((*first, cut, int(new[-1]) + 1))


def find_base(settings: Settings, config: RunConfig) -> Base:
    """Return the serving release, if a run with `config` can continue it.

    Raises:
        IncrementalError: no release serves, it has another configuration or feature schema, or an
            earlier version of the code made it.
        ReleaseError: the release is damaged.
    """
    store = ReleaseStore(settings.releases)
    if store.current_id() is None:
        raise IncrementalError(
            f"{settings.releases}: no release serves yet, so there is none to continue;"
            " run a full training first: `shortlist run CONFIG`"
        )
    release = store.open()
    why = _why_not(release.about, config)
    if why is not None:
        raise IncrementalError(
            f"release {release.release_id} can't be continued: {why}; run a full training:"
            " `shortlist run CONFIG`"
        )
    return Base(release)


def _why_not(about: dict[str, Any], config: RunConfig) -> str | None:
    if "learned_with" not in about:
        return "an earlier version made it, without its configuration"
    if about["dataset"] != config.name:
        return f"it is of configuration '{about['dataset']}', this one is '{config.name}'"
    if found := differences(about["learned_with"], learned_with(config)):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"the configuration has changed: {'; '.join(found[:3])}{more}"
    if about["feature_schema"] != schema_hash():
        return f"its feature schema is {about['feature_schema']}, this code has {schema_hash()}"
    return None


def learned_with(config: RunConfig) -> dict[str, Any]:
    """Return the part of a run's configuration that determines its models, as JSON."""
    content = config.model_dump(mode="json", include={"seed", "split", "train", "value"})
    train = {key: value for key, value in content["train"].items() if key not in NOT_LEARNED}
    for parts in ("sources", "rankers"):  # by type, so that a difference names the type
        train[parts] = {part["kind"]: part for part in train[parts]}
    content["train"] = train
    rules = {"target_events", "repeats", "low_rating", "like_threshold", "exclude", "clock"}
    return content | {
        "tick": config.tick,
        "data": config.data.model_dump(mode="json", include=rules),
    }
