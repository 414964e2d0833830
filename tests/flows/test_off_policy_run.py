"""A challenger is judged by lists that a real service explored, before it gets traffic."""

import json
from pathlib import Path

import numpy as np
import pytest

from shortlist.config import Settings
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.conftest import CATEGORIES, NUM_USERS, shortlist, world_toml
from tests.examples import endurance
from tests.services.conftest import FOLDERS, copy_home, refresh, serving

pytestmark = [
    pytest.mark.slow,
    endurance("a service and a training"),
]
MINUTE = 60_000_000
ROUNDS, K = 10, 10
TRAIN = """sources = [{ kind = "item_knn" }, { kind = "recent_popularity" }]
rankers = [{ kind = "lambdamart" }]
"""


def explore(client: ShortlistClient, rng: np.random.Generator) -> int:
    """Request lists for all users, half an hour apart; post what they choose.

    Users prefer one category, and see the first positions more often. Returns the number of lists.
    """
    at = client.recommend(RecommendRequest(user_id="u1", k=K)).at
    taste = rng.integers(len(CATEGORIES), size=NUM_USERS)
    lists = 0
    for _ in range(ROUNDS):
        for user in rng.permutation(NUM_USERS):
            at += 30 * MINUTE
            user_id = f"u{user + 1}"
            answer = client.recommend(RecommendRequest(user_id=user_id, k=K, at=at))
            lists += 1
            chosen = []
            for item in answer.items:
                liked = int(item.item_id[1:]) % len(CATEGORIES) == taste[user]
                if rng.random() < (0.5 if liked else 0.1) * item.rank**-0.4:
                    chosen.append(
                        Event(
                            user_id=user_id,
                            item_id=item.item_id,
                            event_type="rating",
                            value=4,
                            event_timestamp=at + MINUTE,
                            request_id=answer.request_id,
                            position=item.rank,
                        )
                    )
            if chosen:
                client.events(chosen)
    return lists


@pytest.fixture(scope="module")
def home(served_home: Path, world_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose newest events follow explored lists, and a run of another recipe."""
    home = copy_home(served_home, tmp_path_factory.mktemp("explored") / "home", folders=FOLDERS)
    setting = json.dumps({"kind": "softmax", "temperature": 0.3})
    with (
        serving(home, SHORTLIST_CLOCK="replay", SHORTLIST_EXPLORE=setting) as served,
        ShortlistClient(served.url) as client,
    ):
        assert explore(client, np.random.default_rng(0)) == ROUNDS * NUM_USERS
    refresh(world_config, home=home)
    config = home / "challenger.toml"
    text = world_toml(world_config.parent, train=TRAIN)
    config.write_text(text.replace("[0.55, 0.15, 0.10, 0.10]", "[0.35, 0.15, 0.10, 0.30]"))
    for step in ("train", "evaluate", "package"):
        done = shortlist(step, str(config), "--json", home=home, timeout=600)
        assert done.returncode == 0, done.stderr[-3_000:]
    return home


def test_the_release_carries_the_estimate_and_a_gate_reads_it(home: Path) -> None:
    store = ReleaseStore(Settings(home=home).releases)
    (challenger,) = set(store.ids()) - {store.current_id()}
    found = store.open(challenger).about["off_policy"]
    assert found["refused"] is None, found
    assert found["explored"] >= 200
    assert found["against"] == "champion"
    assert found["attention"][0] == 1
    shown, lead = found["shown"], found["lead"]["dr"]
    for policy in found["policies"].values():
        assert policy["dr"]["low"] < policy["dr"]["high"]
        assert abs(policy["dr"]["mean"] - shown["mean"]) < shown["mean"]
    done = shortlist("promote", "--release", challenger, "--json", home=home)
    (gate,) = [g for g in json.loads(done.stdout)["gates"] if g["name"] == "off-policy"]
    assert gate["figure"] == pytest.approx(lead["low"])
    assert gate["passed"] == (lead["low"] >= -0.1 * found["base"])


def test_the_command_estimates_the_release_again(home: Path) -> None:
    store = ReleaseStore(Settings(home=home).releases)
    newest = store.ids()[-1]
    known = store.open(newest).about["off_policy"]
    done = shortlist("evaluate", "--off-policy", newest, "--json", home=home, timeout=600)
    assert done.returncode == 0, done.stderr[-3_000:]
    again = json.loads(done.stdout)
    assert again["explored"] == known["explored"]
    assert again["policies"]["challenger"]["dr"]["mean"] == pytest.approx(
        known["policies"]["challenger"]["dr"]["mean"], rel=1e-6
    )
    shown = shortlist("evaluate", "--off-policy", newest, home=home, timeout=600).stdout
    assert "lists have random positions" in shown
    assert "lead: of the challenger over the champion" in shown


def test_a_home_without_explored_lists_is_refused(served_home: Path, tmp_path: Path) -> None:
    home = copy_home(served_home, tmp_path / "home", folders=(*FOLDERS, "runs"))
    done = shortlist("evaluate", "--off-policy", home=home, timeout=600)
    assert done.returncode == 1, done.stderr[-3_000:]
    assert "serve traffic with exploration switched on" in " ".join(done.stdout.split())
