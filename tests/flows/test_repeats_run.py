"""Data with repeat purchases (a café), from `shortlist init` to served lists."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flows.runtime.configuration import load_run_config
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Settings
from shortlist.datasets.service.service_log import read_lines
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore
from tests.conftest import shortlist
from tests.examples import endurance

pytestmark = endurance("two whole runs")
CUSTOMERS, PURCHASES = 40, 60
DRINKS = ("espresso", "flat white", "mint tea", "cocoa", "lemonade", "chai")
START = 1_735_689_600  # 1 January 2025


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 2,400 purchases of 6 drinks; each customer mostly buys two of them."""
    folder = tmp_path_factory.mktemp("cafe")
    rng = np.random.default_rng(0)
    rows = []
    for customer in range(CUSTOMERS):
        share = np.full(len(DRINKS), 0.04)
        share[rng.permutation(len(DRINKS))[:2]] += (0.56, 0.20)
        days = np.cumsum(rng.exponential(1.5, size=PURCHASES))
        for day, drink in zip(days, rng.choice(len(DRINKS), PURCHASES, p=share), strict=True):
            at = START + int(day * 86_400)
            rows.append((f"c{customer}", DRINKS[drink], "purchase", round(2 + drink / 2, 2), at))
    rows.sort(key=lambda row: row[-1])
    with (folder / "purchases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id", "event_type", "price", "timestamp"))
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    """The config that `init` writes, with faster sources."""
    told = shortlist(
        "init",
        str(folder / "purchases.csv"),
        "--out",
        str(folder / "run.toml"),
        home=folder / "home",
    )
    assert told.returncode == 0, told.stderr
    assert "repeats allowed (GUESS: in 9" in " ".join(told.stdout.split())
    text = (folder / "run.toml").read_text()
    assert 'repeats = "allow"' in text
    assert 'kind = "personal"' in text
    before, _, after = text.partition("sources = [")
    sources = '"personal" }, { kind = "popularity" }, { kind = "item_knn" }, { kind = "ease" }]'
    quick = folder / "quick.toml"
    quick.write_text(f"{before}sources = [{{ kind = {sources}{after[after.index(']') + 1 :]}")
    return quick


@pytest.fixture(scope="module")
def run(config: Path, folder: Path) -> dict:
    done = shortlist("run", str(config), "--json", home=folder / "home", timeout=600)
    assert done.returncode == 0, done.stderr[-5_000:]
    return json.loads(done.stdout)


def test_what_people_had_before_is_relevant_and_found(run: dict) -> None:
    found = {method: of["ndcg@10"]["mean"] for method, of in run["metrics"].items()}
    assert run["promoted"]
    assert found["personal"] > found["popularity"] + 0.1
    assert found["chain"] > found["popularity"] + 0.1
    assert run["n_requests"] > 200


def test_the_ranker_reads_the_own_history_and_histories_hold_every_purchase(
    run: dict, folder: Path
) -> None:
    about = ReleaseStore(folder / "home" / "releases").open().about
    assert about["chain"]["repeats"] == "allow"
    assert "own_events_log" in about["ranking_schema"]["names"]


def test_the_service_shows_again_what_was_had_before(run: dict, folder: Path) -> None:
    settings = Settings(home=folder / "home")
    log = [entry for _, _, entry in read_lines(settings.serving_log)]
    events = Lake(settings.lake).interactions(event_types=("purchase",)).to_pylist()
    had: dict[str, Counter] = {}
    for event in events:
        had.setdefault(event["user_id"], Counter())[event["item_id"]] += 1
    firsts = [
        (entry["user_id"], entry["items"][0]["item_id"])
        for entry in log
        if entry["user_id"] in had and entry["items"]
    ]
    assert len(firsts) > 80, "every purchase is asked for again, not only the first of an item"
    favourites = {user: count.most_common(1)[0][0] for user, count in had.items()}
    right = np.mean([favourites[user] == item for user, item in firsts])
    assert right > 0.8


def test_after_some_days_is_a_mode_of_its_own(config: Path, folder: Path) -> None:
    text = config.read_text()
    later = folder / "later.toml"
    later.write_text(text.replace('repeats = "allow"', 'repeats = "after 2 days"'))
    data = load_run_config(later).data
    assert data.repeat_after == 2 * MICROSECONDS_PER_DAY
    assert not data.lists.once
    home = folder / "later"
    done = shortlist("run", str(later), "--json", home=home, timeout=600)
    assert done.returncode == 0, done.stderr[-5_000:]
    summary = json.loads(done.stdout)
    assert summary["promoted"]
    # No list contains an item that its user bought less than two days before.
    events = Lake(home / "lake").interactions(event_types=("purchase",)).to_pylist()
    bought: dict[str, list] = {}
    for event in events:
        at = int(event["event_timestamp"].timestamp() * 1e6)
        bought.setdefault(event["user_id"], []).append((at, event["item_id"]))
    shown = again = 0
    for _, _, entry in read_lines(Settings(home=home).serving_log):
        now = entry["event_timestamp"]
        soon = now - 2 * MICROSECONDS_PER_DAY
        for item in entry["items"]:
            shown += 1
            times = [t for t, i in bought.get(entry["user_id"], []) if i == item["item_id"]]
            assert not any(soon < t < now for t in times)
            again += any(t <= soon for t in times)
    assert shown > 50
    assert again > 20
