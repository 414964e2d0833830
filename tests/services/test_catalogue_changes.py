"""A running service follows the catalogue: a refresh takes an item off its lists and changes the
price that the ranker reads, without a training or a restart.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shortlist.api import RecommendRequest, SimilarRequest
from shortlist.client import ShortlistClient
from shortlist.config import Settings
from shortlist.feature_store.packs import current_pack_id
from shortlist.release import ReleaseStore
from tests.conftest import shortlist
from tests.services.conftest import ROOT, copy_home, environment, serving
from tests.services.test_service import ids, logged

FOLDERS = ("releases", "packs", "feast", "features", "lake", "held_back")
PRICE = 41.5


def changed_catalogue(config: Path, folder: Path, *, off_the_shelf: str) -> Path:
    """The run's config over a catalogue in which everything costs PRICE and one item is gone."""
    with (config.parent / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    items = folder / "items.csv"
    with items.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "eur", "stock"])
        writer.writeheader()
        for row in rows:
            here = row["item_id"] != off_the_shelf
            writer.writerow(row | {"eur": PRICE, "stock": "true" if here else "false"})
    mapped = 'published_at = "year", price = "eur", available = "stock"'
    text = config.read_text().replace(str(config.parent / "items.csv"), str(items))
    changed = folder / "changed.toml"
    changed.write_text(text.replace('published_at = "year"', mapped))
    return changed


def told(*arguments: str, home: Path) -> dict:
    done = shortlist(*arguments, "--json", home=home)
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


def refresh(config: Path, *, home: Path) -> None:
    """As the deployment does it, in a process of its own."""
    code = (
        "import sys, flows.cli; from flows.refresh import refresh_flow; refresh_flow(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(config)],
        cwd=ROOT,
        env=environment(home, PREFECT_HOME=str(home / "prefect")),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]


def test_an_item_off_the_shelf_disappears_and_a_price_is_read_after_a_refresh(
    served_home: Path, world_config: Path, tmp_path: Path
) -> None:
    home = copy_home(served_home, tmp_path / "home", folders=FOLDERS)
    shutil.copy(served_home / "clock.json", home / "clock.json")
    names = ReleaseStore(home / "releases").open().about["ranking_schema"]["names"]
    price = names.index("price_log")
    with serving(home) as served, ShortlistClient(served.url) as client:
        wanted = [RecommendRequest(user_id=user, k=60) for user in ("u1", "u5")]
        before = {request.user_id: client.recommend(request) for request in wanted}
        gone = next(item for item in ids(before["u1"]) if item in ids(before["u5"]))
        shown = logged(home, before["u1"].request_id)["items"]
        assert {item["features"][price] for item in shown} == {0}
        process, release = client.ready().pid, client.ready().release_id

        config = changed_catalogue(world_config, tmp_path, off_the_shelf=gone)
        batch = told("ingest", str(config), home=home)
        told("validate", batch["batch_id"], "--config", str(config), home=home)
        assert gone in ids(client.recommend(RecommendRequest(user_id="u1", k=60)))
        refresh(config, home=home)
        newest = current_pack_id(Settings(home=home).packs)
        deadline = time.monotonic() + 30
        while client.ready().pack_id != newest and time.monotonic() < deadline:
            time.sleep(0.2)

        for user, answer in before.items():
            after = client.recommend(RecommendRequest(user_id=user, k=60))
            assert gone not in ids(after)
            assert set(ids(after)) == set(ids(answer)) - {gone}
            shown = logged(home, after.request_id)["items"]
            prices = [item["features"][price] for item in shown]
            assert prices == pytest.approx([np.log1p(PRICE)] * len(ids(after)), rel=1e-5)
        assert gone not in ids(client.similar(SimilarRequest(item_id=ids(after)[0], k=60)))
        assert (client.ready().pid, client.ready().release_id) == (process, release)
