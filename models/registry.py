"""The registry of candidate sources: the config, fit function and load function of each type.

To add a source: write a file with a Config, a `fit_x` and a `load`, add the Config to the union
`SourceConfig`, and add one line to SOURCES.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from models.baselines.ease import Ease, EaseConfig, fit_ease
from models.baselines.ials import Ials, IalsConfig, fit_ials
from models.baselines.item_knn import ItemKNN, ItemKnnConfig, fit_item_knn
from models.baselines.personal import Personal, PersonalConfig, fit_personal
from models.baselines.popularity import (
    Popularity,
    PopularityConfig,
    RecentPopularityConfig,
    fit_popularity,
    fit_recent_popularity,
)
from models.content.audience import Audience, AudienceConfig, fit_audience
from models.content.extend import extend_content
from models.content.fusion import ContentConfig, fit_content, load_content
from models.data import TrainingData, Validation
from models.incremental import Increment
from models.queries import Source
from models.retrieval.continue_two_tower import continue_two_tower
from models.retrieval.two_tower import TwoTowerConfig, fit_two_tower, load_two_tower
from models.sequence.bsarec import BsarecConfig
from models.sequence.fit import (
    ARCHITECTURES,
    continue_sequence,
    fit_sequence,
    load_sequence,
)
from models.sequence.sasrec import SasrecConfig
from models.sequence.simple import AverageConfig, GruConfig
from models.training import TrainingOptions
from shortlist.items.catalogue import Catalogue

SourceConfig = Annotated[
    PopularityConfig
    | RecentPopularityConfig
    | PersonalConfig
    | ItemKnnConfig
    | EaseConfig
    | IalsConfig
    | TwoTowerConfig
    | SasrecConfig
    | BsarecConfig
    | GruConfig
    | AverageConfig
    | AudienceConfig
    | ContentConfig,
    Field(discriminator="kind"),
]


CONTINUED, EXTENDED, FITTED_AGAIN = "continued", "extended by new items", "fitted again"
"""What incremental training does with a source; neural ones without new examples are extended."""


@dataclass(frozen=True)
class Entry:
    """Fit, load and continue functions of a source type."""

    fit: Callable[[Any, TrainingData, Validation, TrainingOptions], Source]
    load: Callable[[Path, Catalogue], Source]
    advance: Callable[[Any, TrainingData, Increment, TrainingOptions], Source] | None = None
    """Returns a trained source after an incremental training. None: it is fitted again on all data,
    which is cheap."""


SOURCES: dict[str, Entry] = {
    "popularity": Entry(fit_popularity, Popularity.load),
    "recent_popularity": Entry(fit_recent_popularity, Popularity.load),
    "personal": Entry(fit_personal, Personal.load),
    "item_knn": Entry(fit_item_knn, ItemKNN.load),
    "ease": Entry(fit_ease, Ease.load),
    "ials": Entry(fit_ials, Ials.load),
    "two_tower": Entry(fit_two_tower, load_two_tower, continue_two_tower),
    **{
        kind: Entry(fit_sequence, partial(load_sequence, kind), continue_sequence)
        for kind in ARCHITECTURES
    },
    "audience": Entry(fit_audience, Audience.load),
    "content": Entry(fit_content, load_content, extend_content),
}
BASELINES = ("popularity", "recent_popularity", "personal", "item_knn", "ease", "ials")
"""Source types that evaluation tables use as baselines."""


def parse_source(text: str) -> SourceConfig:
    """Parse the JSON of one source's config into the config class of its type.

    Raises:
        pydantic.ValidationError: unknown source type, or a key that its config does not have.
    """
    return TypeAdapter(SourceConfig).validate_json(text)


def fit(
    config: SourceConfig, data: TrainingData, validation: Validation, options: TrainingOptions
) -> Source:
    """Return a fitted source, with tuning or early stopping on `validation`."""
    return SOURCES[config.kind].fit(config, data, validation, options)


def frozen(source: Source) -> dict[str, Any]:
    """Return the values that `fit` chose on validation, as a JSON object.

    For neural sources, this is `epochs`, the number of the best epoch. For others, it is the chosen
    value of each tuned hyperparameter.
    """
    history = getattr(source, "history", None)
    if history is not None:
        return {"epochs": history.best_epoch}
    return dict(getattr(source, "chosen", {}))


def refit(
    config: SourceConfig,
    data: TrainingData,
    options: TrainingOptions,
    *,
    frozen: Mapping[str, Any],
) -> Source:
    """Return a source fitted on other data, without validation.

    Args:
        frozen: the values chosen by an earlier `fit`, as returned by the function `frozen`.
    """
    chosen = {name: (value,) for name, value in frozen.items() if name != "epochs"}
    config = type(config).model_validate(config.model_dump() | chosen)
    return fit(config, data, Validation([]), replace(options, epochs=frozen.get("epochs")))


def advance(
    source: Source,
    config: SourceConfig,
    data: TrainingData,
    options: TrainingOptions,
    *,
    frozen: Mapping[str, Any],
    increment: Increment,
) -> Source:
    """Return a trained source after an incremental training on `data`.

    Args:
        source: the trained source; its catalogue comes first in that of `data`.
        frozen: as for `refit`.
    """
    entry = SOURCES[config.kind]
    if entry.advance is None:
        return refit(config, data, options, frozen=frozen)
    return entry.advance(source, data, increment, options)


def how_advanced(kind: str, source: Source) -> str:
    """Return what an incremental training did with a source of type `kind`, for the manifest."""
    if SOURCES[kind].advance is None:
        return FITTED_AGAIN
    return EXTENDED if getattr(source, "history", None) is None else CONTINUED


def load(kind: str, folder: Path, catalogue: Catalogue) -> Source:
    """Return the source of type `kind` that was saved in `folder`.

    Raises:
        ValueError: unknown type, or the saved source does not fit the catalogue.
    """
    if kind not in SOURCES:
        raise ValueError(f"no source of kind '{kind}', want one of {', '.join(SOURCES)}")
    return SOURCES[kind].load(folder, catalogue)
