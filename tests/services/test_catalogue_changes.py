"""A refresh brings changed availability and prices into a running service.

Neither a training nor a restart is needed.
"""

import csv
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.config import Settings
from shortlist.feature_store.packs import current_pack_id
from shortlist.http.api import Event, RecommendRequest, SimilarRequest
from shortlist.http.client import ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.services.conftest import (
    FOLDERS,
    copy_home,
    ids,
    json_of,
    logged,
    refresh,
    serving,
)

PRICE = 41.5


NEW = {"item_id": "i-new", "title": "A drama of today", "genres": "drama", "year": "2023"}


def changed_catalogue(config: Path, folder: Path, *, off_the_shelf: set[str]) -> Path:
    """Write a changed catalogue and a config that reads it; return the config's path.

    The catalogue also contains NEW. All items cost PRICE, and those in `off_the_shelf` are
    unavailable.
    """
    with (config.parent / "items.csv").open() as file:
        rows = [*csv.DictReader(file), NEW]
    items = folder / "items.csv"
    with items.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "eur", "stock"])
        writer.writeheader()
        for row in rows:
            here = row["item_id"] not in off_the_shelf
            writer.writerow(row | {"eur": PRICE, "stock": "true" if here else "false"})
    mapped = 'published_at = "year", price = "eur", available = "stock"'
    text = config.read_text().replace(str(config.parent / "items.csv"), str(items))
    changed = folder / "changed.toml"
    changed.write_text(text.replace('published_at = "year"', mapped))
    return changed


FILTERS: list[dict[str, Any]] = [
    {},
    {"filters": {"categories": ["drama", "science"]}},
    {"filters": {"exclude_categories": ["comedy"]}},
    {"filters": {"published_after": 473_385_600_000_000}},  # 1 January 1985
    {"filters": {"max_price": 50}},
    {"exclude": ["i1"]},
]
WHO: list[dict[str, Any]] = [
    {"user_id": "u1"},
    {"recent_items": ["i2", "i5"]},
    {"user_id": "u5", "recent_items": ["i2"]},
]


def asked() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return {name: (route, body)} for each of WHO and for two items, with each filter."""
    bodies = [("/recommend", who | more) for who in WHO for more in FILTERS]
    bodies += [("/similar", {"item_id": one} | more) for one in ("i3", "i7") for more in FILTERS]
    return {f"{route} {json.dumps(body)}": (route, body | {"k": 60}) for route, body in bodies}


def shown_by(client: ShortlistClient) -> dict[str, list[str]]:
    answers = {}
    for name, (route, body) in asked().items():
        if route == "/recommend":
            answers[name] = ids(client.recommend(RecommendRequest.model_validate(body)))
        else:
            answers[name] = ids(client.similar(SimilarRequest.model_validate(body)))
    return answers


def take_in(config: Path, *, home: Path, client: ShortlistClient) -> None:
    """Ingest, validate and refresh; wait until the service has the newest item features."""
    json_of("ingest", str(config), home=home)
    json_of("validate", str(config), home=home)
    refresh(config, home=home)
    newest = current_pack_id(Settings(home=home).packs)
    deadline = time.monotonic() + 30
    while client.ready().pack_id != newest and time.monotonic() < deadline:
        time.sleep(0.2)
    assert client.ready().pack_id == newest


def test_items_off_the_shelf_disappear_and_a_price_is_read_after_a_refresh(
    served_home: Path, world_config: Path, tmp_path: Path
) -> None:
    home = copy_home(served_home, tmp_path / "home", folders=FOLDERS)
    shutil.copy(served_home / "clock.json", home / "clock.json")
    names = ReleaseStore(home / "releases").open().about["ranking_schema"]["names"]
    price = names.index("price_log")
    with serving(home) as served, ShortlistClient(served.url) as client:
        user = RecommendRequest(user_id="u1", k=60)
        first = client.recommend(user)
        shown = logged(home, first.request_id)["items"]
        assert {item["features"][price] for item in shown} == {0}
        process, release = client.ready().pid, client.ready().release_id
        before = shown_by(client)
        gone = {items[0] for items in before.values() if items}
        assert len(gone) > 1
        # u9 rates the new film before the catalogue has it.
        rating = Event(user_id="u9", item_id=NEW["item_id"], event_type="rating", value=5.0)
        assert client.events([rating]).unknown_items == 1

        take_in(
            changed_catalogue(world_config, tmp_path, off_the_shelf=gone), home=home, client=client
        )
        after = shown_by(client)
        for name, items in after.items():
            assert not gone & set(items), name
            if "max_price" not in name:  # prices were unknown before, so this filter left no items
                assert set(items) - {NEW["item_id"]} == set(before[name]) - gone, name
        answer = client.recommend(user)
        shown = logged(home, answer.request_id)["items"]
        prices = [item["features"][price] for item in shown]
        assert prices == pytest.approx([np.log1p(PRICE)] * len(ids(answer)), rel=1e-5)
        by_source = {source: item.item_id for item in answer.items for source in item.sources}
        assert by_source["new"] == NEW["item_id"]
        # The rating of u9 counts now, so u9 isn't shown the film.
        of_u9 = ids(client.recommend(RecommendRequest(user_id="u9", k=60)))
        assert of_u9
        assert NEW["item_id"] not in of_u9

        # Repeat with the first item of each list and of each source, including new items.
        gone |= {items[0] for items in after.values() if items} | set(by_source.values())
        take_in(
            changed_catalogue(world_config, tmp_path, off_the_shelf=gone), home=home, client=client
        )
        for name, items in shown_by(client).items():
            assert not gone & set(items), name
            if "max_price" not in name:
                assert set(items) == set(before[name]) - gone, name
        assert (client.ready().pid, client.ready().release_id) == (process, release)
