"""Loads the models of a release as a chain."""

import json
from pathlib import Path
from typing import Any

from models import registry
from models.ranking.registry import load_ranker
from models.recommend.chain import Chain, ChainConfig
from models.recommend.cold_start.new_items import CONTENT, NewItems
from models.vector_source import VectorSource
from shortlist.features.finalize import schema_hash
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue
from shortlist.releases.release import Release, ReleaseError


def load_chain(folder: Path, about: dict[str, Any], *, sources: Path) -> Chain:
    """Load the models in `folder`, with the catalogue that they were trained on.

    Args:
        folder: folder of a release, which need not be published yet.
        about: description of the release.
        sources: folder with a subfolder for each source.

    Raises:
        ReleaseError: the feature schema or the ranker's features differ from those of this code.
    """
    if about["feature_schema"] != schema_hash():
        raise ReleaseError(
            f"{folder.name}: feature schema {about['feature_schema']}, this code has"
            f" {schema_hash()}; run `shortlist upgrade CONFIG`"
        )
    catalogue = Catalogue.load(folder / "items.parquet")
    chain = Chain(
        ChainConfig.model_validate(about["chain"]),
        sources={
            name: registry.load(kind, sources / name, catalogue)
            for name, kind in about["sources"].items()
        },
        ranker=load_ranker(about["ranker"], folder / "ranker") if about["ranker"] else None,
        catalogue=catalogue,
        profiles=ProfileEncoder.from_json(json.loads((folder / "profiles.json").read_text())),
    )
    trained_names, names = tuple(about["ranking_schema"]["names"]), chain.schema.names
    if trained_names != names:
        raise ReleaseError(
            f"{folder.name}: the ranker was trained on other features than this code makes:"
            f" {sorted(set(trained_names) ^ set(names)) or 'another order'}"
        )
    return chain


def load_served(release: Release, catalogue: Catalogue) -> Chain:
    """Load a release over a newer catalogue, as the service answers with it.

    Items that were added after its training are found by content, and as the newest ones.

    Args:
        catalogue: begins with the release's items, in their order (`Catalogue.with_current`).
    """
    chain = load_chain(release.path, release.about, sources=release.file("sources"))
    return over_catalogue(chain, catalogue)


def over_catalogue(chain: Chain, catalogue: Catalogue) -> Chain:
    """Return a chain over a newer catalogue, with a source of the items that were added to it.

    Args:
        catalogue: as for `load_served`.
    """
    if catalogue.num_items == chain.num_known:
        return chain.live(catalogue, None)
    content = chain.sources.get(CONTENT)
    new = NewItems(
        catalogue,
        num_known=chain.num_known,
        content=content if isinstance(content, VectorSource) else None,
    )
    return chain.live(catalogue, new)
